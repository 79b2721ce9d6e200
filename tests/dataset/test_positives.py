"""Positives against loops, and by hand."""

import numpy as np
import pandas as pd
import pytest
import toy_manifest
from toy_manifest import rows

from sare_tf.dataset.names import TRAIN_RULES
from sare_tf.dataset.positives import (
    choose_rule,
    find_positives,
    make_relations,
    within,
)


def by_loops(queries, database, radius_m, min_distance_m):
    found = []
    for _, query in queries.iterrows():
        near = []
        for position, (_, image) in enumerate(database.iterrows()):
            squared = (query.utm_east_m - image.utm_east_m) ** 2
            squared += (query.utm_north_m - image.utm_north_m) ** 2
            if squared <= radius_m**2 and (
                min_distance_m == 0 or squared > min_distance_m**2
            ):
                near.append(position)
        found.append(near)
    return found


@pytest.mark.parametrize(
    ("radius_m", "min_distance_m"), [(25.0, 0.0), (10.0, 1.0), (0.0, 0.0)]
)
def test_positives_by_radius_equal_loops(radius_m, min_distance_m):
    rng = np.random.default_rng(0)
    # Whole metres, so that distances of exactly 1, 10 and 25 occur.
    make = rng.integers(0, 60, 40).astype(float) + 500_000
    queries = toy_manifest.make(rows(make[:15], role="query", prefix="q"))
    database = toy_manifest.make(rows(make[15:]))
    found = find_positives(
        queries, database, radius_m=radius_m, min_distance_m=min_distance_m
    )
    expected = by_loops(queries, database, radius_m, min_distance_m)
    assert [list(some) for some in found] == expected
    assert sum(map(len, expected)) > 0


def test_the_radius_is_inclusive_and_the_minimum_is_not():
    database = toy_manifest.make(rows([0.0, 1.0, 1.5, 25.0, 25.000001]))
    query = toy_manifest.make(rows([0.0], role="query", prefix="q"))
    [found] = find_positives(query, database, min_distance_m=1.0)
    assert found.tolist() == [2, 3]
    assert found.dtype == np.int64


def test_positives_of_another_time():
    """Two queries of one spot: one of 2014, one without a time stamp."""
    database = [
        {**row, "timestamp": time}
        for row, time in zip(
            rows([0.0, 1.0, 2.0, 90.0]),
            ["2014", "2009", "", "2009"],
            strict=True,
        )
    ]
    queries = rows([0.0, 0.0], role="query", prefix="q")
    queries[0]["timestamp"] = "2014"
    queries, database = toy_manifest.make(queries), toy_manifest.make(database)
    found = find_positives(queries, database, other_timestamp=True)
    assert [some.tolist() for some in found] == [[1, 2], [0, 1, 2]]
    found = find_positives(queries, database, **TRAIN_RULES["netvlad"])
    assert [some.tolist() for some in found] == [[2], [2]]
    found = find_positives(queries, database, **TRAIN_RULES["openibl"])
    assert [some.tolist() for some in found] == [[0, 1, 2], [0, 1, 2]]


def test_positives_by_place():
    database = toy_manifest.make(
        [
            {
                "image_id": str(n),
                "split": "val",
                "role": "database",
                "place_id": p,
            }
            for n, p in enumerate("baab")
        ]
    )
    queries = toy_manifest.make(
        [
            {"image_id": str(n), "split": "val", "role": "query", "place_id": p}
            for n, p in enumerate("abc")
        ]
    )
    found = find_positives(queries, database)
    assert [some.tolist() for some in found] == [[1, 2], [0, 3], []]


def test_auto_prefers_coordinates():
    database = toy_manifest.make(rows([0.0, 100.0], place_id="same"))
    query = toy_manifest.make(
        rows([0.0], role="query", prefix="q", place_id="same")
    )
    assert find_positives(query, database)[0].tolist() == [0]
    by_place = find_positives(query, database, rule="place")
    assert by_place[0].tolist() == [0, 1]


def test_refused_rules():
    bare = toy_manifest.make(
        [{"image_id": "a", "split": "val", "role": "query"}]
    )
    with pytest.raises(
        ValueError, match="Received: 2 images without. Use --po"
    ):
        find_positives(bare, bare, rule="radius")
    with pytest.raises(ValueError, match="Expected a place_id of every image"):
        find_positives(bare, bare)
    with pytest.raises(ValueError, match="rule='near'"):
        find_positives(bare, bare, rule="near")


def test_zones_are_never_compared():
    """The same metres in another zone are another place."""
    database = rows([0.0, 10.0], utm_zone="17T", prefix="a")
    database += rows([0.0], utm_zone="18T", prefix="b")
    # A band further south counts from the same equator; 17G is south of it.
    database += rows([20.0], utm_zone="17S", prefix="c")
    database += rows([0.0], utm_zone="17G", prefix="d")
    queries = rows([0.0], utm_zone="17T", role="query", prefix="q")
    queries += rows([0.0], utm_zone="18T", role="query", prefix="r")
    queries += rows([0.0], utm_zone="33X", role="query", prefix="s")
    table = toy_manifest.make(database + queries)
    found = find_positives(
        table[table["role"] == "query"], table[table["role"] == "database"]
    )
    assert [some.tolist() for some in found] == [[0, 1, 3], [2], []]


def test_an_unknown_zone_is_the_one_there_is():
    database = toy_manifest.make(rows([0.0], utm_zone="17T"))
    query = toy_manifest.make(rows([0.0], role="query", prefix="q"))
    assert find_positives(query, database)[0].tolist() == [0]


def listed():
    database = toy_manifest.make(rows([0.0, 1.0, 2.0, 3.0]))
    queries = toy_manifest.make(rows([0.0, 0.0], role="query", prefix="q"))
    return queries, database, pd.concat([queries, database])


def test_positives_by_list():
    queries, database, both = listed()
    pairs = [
        ("q1", "a3", "hard"),
        ("q1", "a0", "positive"),
        ("q1", "a2", "junk"),
        ("q1", "a1", "easy"),
    ]
    relations = make_relations(pairs, both)
    assert relations["database"].tolist() == ["a3", "a0", "a2", "a1"]
    for rule in ("list", "auto"):
        found = find_positives(
            queries, database, rule=rule, relations=relations
        )
        assert [some.tolist() for some in found] == [[], [0, 1, 3]]
        assert found[0].dtype == found[1].dtype == np.int64
    # Images that the database lacks are not found in it.
    found = find_positives(queries, database[1:], relations=relations)
    assert found[1].tolist() == [0, 2]


def test_auto_follows_a_list_of_these_queries_only():
    queries, database, both = listed()
    relations = make_relations([("q1", "a0", "positive")], both)
    chosen = choose_rule(queries, database, relations=relations)
    assert chosen == "list"
    first = choose_rule(queries[:1], database, relations=relations)
    assert first == "radius"
    assert choose_rule(queries, database, rule="place") == "place"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (
            [("q0", "a0", "good")],
            "positive, easy, hard, junk. Received: .'good'",
        ),
        ([("a1", "a0", "easy")], "query='a1', which is no query image"),
        ([("q0", "q1", "easy")], "database='q1', which is no database image"),
        (
            [("q0", "a1", "easy"), ("q0", "a1", "junk")],
            "query='q0', database='a1' more than once",
        ),
    ],
)
def test_wrong_relations_are_refused(pairs, message):
    with pytest.raises(ValueError, match=message):
        make_relations(pairs, listed()[2])


def test_no_list_to_follow():
    queries, database, _ = listed()
    with pytest.raises(ValueError, match="Received: a dataset without. Use"):
        find_positives(queries, database, rule="list")


def test_points_within_a_radius_equal_loops():
    """Plain arrays; whole metres, so that some are exactly 5 m apart."""
    rng = np.random.default_rng(1)
    queries, database = (
        rng.integers(0, 25, (count, 2)) + 0.0 for count in (30, 50)
    )
    zones = (rng.choice(["17T", "18T"], 30), rng.choice(["17S", "18T"], 50))
    number = {"17T": 17, "17S": 17, "18T": 18}
    for given in (None, zones):
        near = within(queries, database, 5.0, min_distance_m=1.0, zones=given)
        expected = [
            [
                n
                for n in range(50)
                if 1
                < (queries[q, 0] - database[n, 0]) ** 2
                + (queries[q, 1] - database[n, 1]) ** 2
                <= 25
                and (
                    given is None or number[given[0][q]] == number[given[1][n]]
                )
            ]
            for q in range(30)
        ]
        assert [rows.tolist() for rows in near] == expected
        assert any(expected)
        assert all(rows.dtype == np.int64 for rows in near)


def test_points_of_no_image():
    none, one = np.zeros((0, 2)), np.zeros((1, 2))
    assert within(none, one, 5.0) == []
    assert [rows.tolist() for rows in within(one, none, 5.0)] == [[]]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros(2), r"Expected queries \[count, 2\].* Received: queries \[2"),
        (np.zeros((2, 3)), r"Received: queries \[2, 3\]"),
        (np.array([[0, 0], [0, np.nan]]), "Received: 1 of 2 points without"),
    ],
)
def test_wrong_points_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        within(points, np.zeros((1, 2)), 5.0)
