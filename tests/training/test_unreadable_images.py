"""Records that are damaged while a run is under way."""

import logging
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
import toy_training
from finished_runs import assert_same_run

from sare_tf import train
from sare_tf.records.records import Records
from sare_tf.training import datasets, unreadable_images
from sare_tf.training.miner import Miner
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import read_state
from sare_tf.training.split import Split
from sare_tf.training.training_data import TrainingData
from sare_tf.training.validation import Validation


def damage(records, image_ids):
    """Turns one bit of each image's record."""
    rows = Records(records).manifest.set_index("image_id")
    for image_id in image_ids:
        row = rows.loc[image_id]
        with (records / row["shard"]).open("r+b") as file:
            file.seek(row["byte_offset"] + row["byte_length"] // 2)
            (byte,) = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))


def ids(records, split, role, *positions):
    rows = Records(records).rows(split, role)
    return rows["image_id"].iloc[list(positions)].tolist()


@pytest.fixture(scope="module")
def stopped(toy_records, toy_run, tmp_path_factory):
    """Records, and a run of one epoch on them; then three images are lost."""
    records = tmp_path_factory.mktemp("data") / "records"
    shutil.copytree(toy_records, records)
    run = toy_run.after[1]
    lost = [
        *ids(records, "train", "query", 4),
        *ids(records, "train", "database", 3),
        *ids(records, "val", "database", 0),
    ]
    damage(records, lost)
    return records, run, lost


def test_lost_images_are_named_counted_and_left_out(
    stopped, tmp_path, monkeypatch, caplog
):
    records, run, lost = stopped
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        shutil.copytree(run, folder)
    made, seen = datasets.tuple_dataset, []

    def watched(source, tuples, **options):
        seen.append(source.manifest["image_id"].to_numpy()[tuples])
        return made(source, tuples, **options)

    monkeypatch.setattr(datasets, "tuple_dataset", watched)
    options = {"records": records, **toy_training.OPTIONS}
    with caplog.at_level(logging.WARNING):
        train.run(TrainingOptions(checkpoints=one, **options))
    assert set(unreadable_images.read(one)) == set(lost)
    for image_id in lost:
        assert f"Left out: {image_id} (" in caplog.text
    assert "3 bad images of 10 allowed" in caplog.text
    assert read_state(one)[1]["last"] == "epoch-0002"
    # A run that knows them from the start does the same.
    shutil.copy(one / unreadable_images.NAME, other)
    train.run(TrainingOptions(checkpoints=other, **options))
    assert_same_run(one, other)
    # Rounds of 6 and 3 of the 11 queries that are left, whole batches of 3.
    assert [len(tuples) for tuples in seen] == [6, 3] * 2
    assert not np.isin(np.concatenate(seen), lost).any()


def test_more_than_the_limit_are_refused(stopped, tmp_path):
    records, _, lost = stopped
    error = tf.errors.DataLossError(None, None, "corrupted record")
    with pytest.raises(ValueError, match="at most 2 images .* 3 in") as raised:
        unreadable_images.find(tmp_path, [Records(records)], error, limit=2)
    for image_id in lost:
        assert image_id in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_images_beyond_the_end_of_a_file_are_found(toy_records, tmp_path):
    """Half of the last image of a shard is cut off, and the next one."""
    shutil.copytree(toy_records, tmp_path / "records")
    records = Records(tmp_path / "records")
    queries = records.rows("train", "query")
    (shard,) = queries["shard"].unique()
    last = queries.sort_values("byte_offset").iloc[-2:]
    length = last["byte_offset"].iloc[0] + last["byte_length"].iloc[0] // 2
    os.truncate(tmp_path / "records" / shard, length)
    error = tf.errors.DataLossError(None, None, "corrupted record")
    unreadable_images.find(tmp_path, [records], error, limit=10)
    assert set(unreadable_images.read(tmp_path)) == set(last["image_id"])


def test_an_error_of_another_kind_stays_what_it_is(stopped, tmp_path):
    records, _, lost = stopped
    (tmp_path / unreadable_images.NAME).write_text(
        "{" + ", ".join(f'"{image_id}": ""' for image_id in lost) + "}"
    )
    error = tf.errors.InvalidArgumentError(None, None, "of the network")
    with pytest.raises(tf.errors.InvalidArgumentError, match="of the network"):
        unreadable_images.find(tmp_path, [Records(records)], error, limit=10)


def test_batches_of_places_do_without_lost_images(stopped):
    """Places of 4 images: two have lost one and 4 others are left."""
    records, _, lost = stopped
    options = toy_training.options(
        loss="place_sare_joint", places_per_batch=2, images_per_place=4
    )
    data = TrainingData.of(Records(records), options, bad=lost)
    plan = data.planned_places(epoch=1)
    assert plan.images.shape == (2, 8)
    names = plan.rows["image_id"].to_numpy()
    assert not np.isin(names[plan.images], lost).any()
    batches = datasets.planned_place_dataset(
        data.records, plan, height=16, width=16
    )
    assert len(list(batches)) == 2


def test_mining_and_validation_with_a_lost_image_by_hand(stopped):
    """A negative that is lost is none; a query's only positives leave it."""
    records = Records(stopped[0])
    options = toy_training.options()
    database = records.rows("train", "database")["image_id"].tolist()
    # The first place: both of its database images.
    split = Split(records, "train", options, bad=database[:2])
    miner = Miner(split, options)
    # 10 queries are left: 3 whole batches of 3.
    assert set(np.concatenate(miner.rounds(1))) < set(range(2, 12))
    assert miner.steps(1) == 3
    assert all(set(rows) >= {0, 1} for rows in miner.candidates.same_place)
    assert miner.images_to_embed(np.arange(2, 12)) == 10 + 10
    lost = records.rows("val", "query")["image_id"].iloc[:1].tolist()
    val = Validation(records, options, bad=lost)
    assert len(val.queries) == 11
    assert len(val.database) == 12
