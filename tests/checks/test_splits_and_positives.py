"""Splits, and queries without positives, in hand-made manifests."""

import numpy as np
import pandas as pd
import pytest
from toy_findings import RADIUS, at, by_name, concerned, table

from sare_tf.checks import (
    matching,
    position_findings,
    splits_and_positives,
)
from sare_tf.checks.finding import ERROR, NOTE, WARNING
from sare_tf.dataset.names import ROLES, SPLITS
from sare_tf.evaluation import protocols


def test_splits_that_are_missing():
    rows = table(
        ("a", "train", "query", {}),
        ("b", "train", "database", {}),
        ("c", "val", "database", {}),
    )
    found = splits_and_positives.splits(rows, evaluated="test")
    assert [(one.severity, one.message) for one in found] == [
        (ERROR, "The split val has no query image."),
        (ERROR, "The split test has no image."),
    ]
    [val] = splits_and_positives.splits(rows.iloc[:2], evaluated="train")[:1]
    assert (val.severity, val.message) == (NOTE, "The split val has no image.")


def line(split, *, queries, database):
    """Images on a line, by their metres east."""
    return table(
        *((f"q{east}", split, "query", at(east)) for east in queries),
        *((f"d{east}", split, "database", at(east)) for east in database),
    )


def by_radius(**options):
    return matching.by_manifest("within", rule="radius", **options)


def positives_of(rows, split, rule, *, is_used):
    """Findings, how many queries have no positive, and samples."""
    matches = matching.match(rows, split, rule)
    findings = splits_and_positives.positives(matches, is_used=is_used)
    return findings, matches.num_without, list(matches.samples)


def test_queries_without_a_positive():
    rows = line("train", queries=(0, 100, 200), database=(25, 130, 500))
    [found], count, samples = positives_of(
        rows, "train", by_radius(radius_m=25.0), is_used=True
    )
    assert (found.severity, count) == (WARNING, 2)
    assert concerned(found) == ["q100", "q200"]
    assert found.message == (
        "2 of 3 queries of the split train (66.7 %) have no positive "
        "(within): training leaves them out."
    )
    assert samples == [("q0", ["d25"])]


@pytest.mark.parametrize(("is_used", "severity"), [(1, ERROR), (0, WARNING)])
def test_no_query_has_a_positive(is_used, severity):
    rows = line("test", queries=(0, 100), database=(500,))
    [found], count, samples = positives_of(
        rows, "test", by_radius(radius_m=25.0), is_used=bool(is_used)
    )
    assert (found.severity, count, samples) == (severity, 2, [])
    assert found.message.endswith("they count as misses.")


def test_the_protocol_decides(tmp_path):
    rows = line("test", queries=(0, 100), database=(25.0,))
    for name, severity in (("pitts30k", WARNING), ("msls", NOTE)):
        rule = matching.by_protocol(protocols.choose(name), None)
        [found], count, _ = positives_of(rows, "test", rule, is_used=True)
        assert (found.severity, count) == (severity, 1)
        assert f"(protocol {name})" in found.message
    rule = matching.by_protocol(protocols.choose("tokyo247"), None)
    [found], count, _ = positives_of(rows, "test", rule, is_used=True)
    assert (found.severity, found.name) == (ERROR, "nothing_tells_what_matches")
    assert "Expected panorama_id of every image" in found.message
    [found], *_ = positives_of(rows, "test", rule, is_used=False)
    assert found.severity == NOTE


def test_samples_are_of_different_places():
    """One of the three places has nearly all queries."""
    rows = table(
        *((f"q{n}", "val", "query", {"place_id": "a"}) for n in range(20)),
        ("q20", "val", "query", {"place_id": "b"}),
        ("q21", "val", "query", {"place_id": "c"}),
        *((f"d{p}", "val", "database", {"place_id": p}) for p in "abc"),
    )
    rule = matching.by_protocol(protocols.choose("place"), None)
    samples = matching.match(rows, "val", rule).samples
    assert samples == [("q0", ["da"]), ("q20", ["db"]), ("q21", ["dc"])]


def test_blocks_of_queries_change_nothing():
    rng = np.random.default_rng(0)
    rows = line(
        "val",
        queries=rng.permutation(2000)[:60].tolist(),
        database=rng.permutation(2000)[:30].tolist(),
    )
    rule = by_radius(radius_m=20.0)
    whole = matching.match(rows, "val", rule)
    assert matching.match(rows, "val", rule, block=7) == whole
    assert 0 < whole.num_without < 60
    assert whole.samples


def test_places_without_names_are_squares():
    """Ten queries of each of three places, in their order."""
    images = table(
        *(
            (f"{place}{number}", "val", role, {"place_id": place})
            for place in "abc"
            for role, numbers in (("query", range(10)), ("database", (10, 11)))
            for number in numbers
        )
    )
    rule = matching.by_manifest("of the same place", rule="place")
    samples = matching.match(images, "val", rule).samples
    assert [query for query, _ in samples] == ["a0", "b0", "c0"]
    # Without names, places are squares of 50 m: eight of ten, from end to end.
    east = [100 * place + view for place in range(10) for view in range(5)]
    images = line("val", queries=east, database=range(0, 1000, 100))
    samples = matching.match(images, "val", by_radius(radius_m=20.0)).samples
    assert [query for query, _ in samples] == [
        *("q0", "q100", "q200", "q300", "q500", "q600", "q700", "q900")
    ]


def test_a_split_without_queries_has_none_without_positive():
    rows = line("val", queries=(), database=(0,))
    rule = by_radius(radius_m=20.0)
    assert positives_of(rows, "val", rule, is_used=True) == (
        [],
        0,
        [],
    )


def test_places_with_one_image_and_in_several_splits():
    rows = table(
        ("a1", "train", "database", {"place_id": "a"}),
        ("a2", "train", "query", {"place_id": "a"}),
        ("b1", "train", "database", {"place_id": "b"}),
        ("b2", "test", "query", {"place_id": "b"}),
        ("b3", "test", "database", {"place_id": "b"}),
        ("c1", "test", "database", {}),
    )
    found = by_name(splits_and_positives.places(rows))
    alone = found["place_with_one_image"]
    assert alone.images == [("b1", "train, place b")]
    assert alone.message.startswith("1 place of 3 with one image")
    shared = found["place_in_several_splits"]
    assert concerned(shared) == ["b2", "b3"]
    assert shared.message.startswith("1 place of 2 in several splits")
    assert shared.severity == alone.severity == WARNING
    assert splits_and_positives.places(rows.iloc[:2]) == []


def test_overlap_equals_a_loop():
    rng = np.random.default_rng(0)
    rows = table(
        *(
            (
                f"{n:03d}",
                SPLITS[n % 3],
                ROLES[n % 2],
                at(*rng.integers(0, 1500, 2), zone=("17T", "18T")[n % 5 == 0]),
            )
            for n in range(300)
        )
    )
    found = position_findings.overlap(rows, radius_m=RADIUS)
    assert [one.severity for one in found] == [WARNING, WARNING]
    for split, one in zip(("val", "test"), found, strict=True):
        expected = [
            judged.image_id
            for judged in rows[rows["split"] == split].itertuples()
            if any(
                np.hypot(
                    judged.utm_east_m - trained.utm_east_m,
                    judged.utm_north_m - trained.utm_north_m,
                )
                <= RADIUS
                and judged.utm_zone == trained.utm_zone
                for trained in rows[rows["split"] == "train"].itertuples()
            )
        ]
        assert sorted(concerned(one)) == expected
        assert one.message.startswith(f"{len(expected)} of 100 images")
        assert 0 < len(expected) < 100


def test_tables_of_records_may_have_any_index():
    rows = line("test", queries=(0,), database=(1, 2))
    rows.index = pd.Index([7, 5, 3])
    assert position_findings.suspicious(rows) == []
