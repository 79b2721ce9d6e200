"""Copies of images, in hand-made manifests."""

import numpy as np
import pytest
from toy_findings import RADIUS, at, by_name, concerned, contents, table

from sare_tf.checks import (
    duplicates,
    matching,
)
from sare_tf.checks.finding import ERROR, WARNING
from sare_tf.dataset.names import SPLITS, TRAIN_RULES
from sare_tf.dataset.positives import make_relations
from sare_tf.evaluation import protocols


def duplicates_of(rows, digests, *, relations=None, problems=(), **options):
    return by_name(
        duplicates.find(
            rows,
            contents(rows, digests=digests, problems=problems),
            relations=relations,
            radius_m=RADIUS,
            **options,
        )
    )


def test_copies_in_two_splits_are_an_error():
    rows = table(
        ("a", "train", "database", at(0)),
        ("b", "test", "database", at(1)),
        ("c", "test", "query", at(2)),
    )
    found = duplicates_of(rows, [5, 5, 6])
    assert list(found) == ["duplicates_across_splits"]
    assert found["duplicates_across_splits"].severity == ERROR
    assert found["duplicates_across_splits"].images == [
        ("a", "train; the same as b"),
        ("b", "test; the same as a"),
    ]


@pytest.mark.parametrize(
    ("split", "severity"), [("train", WARNING), ("test", ERROR)]
)
def test_a_query_that_is_in_the_database(split, severity):
    rows = table(
        ("q1", split, "query", at(0)),
        ("q2", split, "query", at(1)),
        ("d", split, "database", at(2)),
        ("other", split, "database", at(3)),
    )
    found = duplicates_of(rows, [5, 5, 5, 6])
    assert found["queries_in_database"].severity == severity
    assert found["queries_in_database"].images == [
        ("q1", f"{split}; the same as d"),
        ("q2", f"{split}; the same as d"),
    ]
    # The queries are copies of each other, too.
    assert concerned(found["duplicates"]) == ["q2"]
    assert found["duplicates"].severity == WARNING
    assert set(found) == {"queries_in_database", "duplicates"}


def test_a_copy_that_is_listed_as_junk_is_none():
    """As in Holidays, where a query is in the database."""
    rows = table(
        ("q", "test", "query", {}),
        ("d", "test", "database", {}),
    )
    junk = make_relations([("q", "d", "junk")], rows)
    assert duplicates_of(rows, [5, 5], relations=junk) == {}
    right = make_relations([("q", "d", "positive")], rows)
    assert set(duplicates_of(rows, [5, 5], relations=right)) == {
        "queries_in_database"
    }


def test_a_query_of_the_time_of_its_copy():
    """As in Tokyo Time Machine, all of whose queries are in the database."""
    rows = table(
        ("q", "val", "query", {"timestamp": "201306"}),
        ("d", "val", "database", {"timestamp": "201306"}),
        ("q2", "val", "query", {"timestamp": "201306"}),
        ("d2", "val", "database", {"timestamp": "201406"}),
        ("q3", "val", "query", {}),
        ("d3", "val", "database", {}),
    )
    digests = [5, 5, 6, 6, 7, 7]
    found = duplicates_of(rows, digests)["queries_in_database"]
    assert concerned(found) == ["q", "q2", "q3"]
    found = duplicates_of(rows, digests, by_timestamp={"val"})
    assert concerned(found["queries_in_database"]) == ["q2", "q3"]
    tokyotm = matching.by_protocol(protocols.choose("tokyotm"), None)
    assert tokyotm.other_timestamp
    netvlad = TRAIN_RULES["netvlad"]
    assert matching.by_manifest("", **netvlad).other_timestamp
    assert not matching.by_manifest("").other_timestamp


def test_parts_of_one_file_are_no_copies():
    rows = table(
        ("a.jpg#xywh=0,0,9,9", "test", "query", {}),
        ("a.jpg", "test", "database", {}),
    )
    assert duplicates_of(rows, [5, 5]) == {}


def test_unreadable_images_are_no_copies():
    rows = table(
        ("a", "test", "query", {}),
        ("b", "test", "query", {}),
    )
    assert duplicates_of(rows, [5, 5], problems={0: "no", 1: "no"}) == {}


@pytest.mark.parametrize(
    ("first", "second", "is_odd"),
    [
        (at(0), at(25), False),
        (at(0), at(25.5), True),
        (at(0), at(0, zone="54S"), True),
        ({"place_id": "x"}, {"place_id": "x"}, False),
        ({"place_id": "x"}, {"place_id": "y"}, True),
        ({"place_id": "x"}, {}, True),
    ],
)
def test_a_copy_at_another_place(first, second, is_odd):
    rows = table(
        ("a", "train", "database", first),
        ("b", "train", "database", second),
    )
    found = duplicates_of(rows, [5, 5])
    assert ("duplicates_elsewhere" in found) == is_odd
    assert found["duplicates"].count == 1


def test_copies_of_many_images_equal_a_loop():
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 40, 120)
    splits = rng.choice(SPLITS, 120)
    rows = table(
        *((f"{n:03d}", split, "database", {}) for n, split in enumerate(splits))
    )
    expected = [
        f"{n:03d}"
        for n in range(120)
        if any(
            digests[n] == digests[m] and splits[n] != splits[m]
            for m in range(120)
        )
    ]
    found = duplicates_of(rows, digests)["duplicates_across_splits"]
    assert sorted(concerned(found)) == expected
    assert 0 < len(expected) < 120
