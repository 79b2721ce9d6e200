"""Rounds of an epoch: whole batches, and how long descriptors serve."""

import numpy as np
import pytest
import toy_training

from sare_tf.records.records import Records
from sare_tf.training.miner import Miner
from sare_tf.training.split import Split


@pytest.fixture
def miner(toy_records):
    def make(**changes):
        options = toy_training.options(**changes)
        return Miner(Split(Records(toy_records), "train", options), options)

    return make


def test_rounds_are_whole_batches_and_grow_when_the_rate_is_halved(miner):
    """12 queries; every is 4, 8 and 16 in epochs 1, 2 and 3."""
    growing = miner(refresh_every_queries=4, tuples_per_batch=2, halve_every=1)
    for epoch, lengths in ((1, [4, 4, 4]), (2, [6, 6]), (3, [12])):
        rounds = growing.rounds(epoch)
        assert [len(queries) for queries in rounds] == lengths
        assert sorted(np.concatenate(rounds)) == list(range(12))
    small = miner(refresh_every_queries=1, tuples_per_batch=5)
    assert [len(queries) for queries in small.rounds(1)] == [5, 5]
    once = miner(refresh_every_queries=0)
    assert [len(queries) for queries in once.rounds(1)] == [12]


def test_the_interval_never_exceeds_the_option(miner):
    for every in range(1, 14):
        rounds = miner(refresh_every_queries=every, tuples_per_batch=2).rounds
        longest = max(len(queries) for queries in rounds(1))
        assert longest <= max(2, every + every % 2)


def test_no_query_is_an_error(tmp_path):
    records = toy_training.records(tmp_path, places=2, queries=0)
    with pytest.raises(ValueError, match="Expected query images in the split"):
        Split(Records(records), "train", toy_training.options())
