import numpy as np
import pandas as pd
import pytest

from sare_tf.readers import reading, splitting


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.5, 0.2, 0.2), (1.2, -0.1, -0.1)]
)
def test_wrong_fractions(fractions):
    with pytest.raises(ValueError, match="with sum 1. Received"):
        splitting.split_places(list("abcdef"), fractions=fractions, seed=0)


def test_too_few_places():
    with pytest.raises(ValueError, match="at least 3 places"):
        splitting.split_places(["a", "b"], fractions=(0.6, 0.2, 0.2), seed=0)
    split = splitting.split_places(["a", "b"], fractions=(0, 0, 1), seed=0)
    assert split == {"a": "test", "b": "test"}


@pytest.mark.parametrize("count", range(3, 40))
def test_every_split_gets_a_place(count):
    places = [str(number) for number in range(count)]
    split = splitting.split_places(places, fractions=(0.98, 0.01, 0.01), seed=0)
    counts = np.unique(list(split.values()), return_counts=True)[1]
    assert len(counts) == 3
    assert counts.sum() == count


def roles(sizes, **options):
    """Queries and all images of each place."""
    places = [place for place, size in sizes.items() for _ in range(size)]
    names = [f"{place}{number}" for number, place in enumerate(places)]
    found = splitting.choose_roles(pd.Series(names), places, **options)
    assert set(found) <= {"query", "database"}
    return {
        place: [
            name
            for name, of, role in zip(names, places, found, strict=True)
            if of == place and role == "query"
        ]
        for place in sizes
    }


def test_every_place_keeps_a_query_and_a_database_image():
    queries = roles({"a": 1, "b": 2, "c": 8}, fraction=0.25, seed=0)
    assert {place: len(some) for place, some in queries.items()} == {
        "a": 0,
        "b": 1,
        "c": 2,
    }
    most = roles({"a": 1, "b": 2, "c": 8}, fraction=0.99, seed=0)
    assert {place: len(some) for place, some in most.items()} == {
        "a": 0,
        "b": 1,
        "c": 7,
    }


def test_queries_are_chosen_by_seed():
    sizes = {place: 6 for place in "abcdef"}
    first = roles(sizes, fraction=0.5, seed=1)
    assert first == roles(sizes, fraction=0.5, seed=1)
    assert first != roles(sizes, fraction=0.5, seed=2)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 25])
def test_a_wrong_share_of_queries(fraction):
    with pytest.raises(ValueError, match=f"query_fraction={fraction}"):
        splitting.choose_roles(pd.Series([]), [], fraction=fraction, seed=0)


def test_areas_are_linked_by_50_m():
    east = np.array([0.0, 50.0, 100.0, 150.5, 150.5])
    areas = splitting.find_areas(
        east, np.zeros(5), ["17T", "17T", "17T", "17T", "18T"]
    )
    assert areas[0] == areas[1] == areas[2]
    assert len(set(areas)) == 3


def test_a_long_street_is_cut():
    east = np.arange(0.0, 2000.0, 10.0)
    areas = splitting.find_areas(east, np.zeros(200), ["17T"] * 200)
    assert len(set(areas)) == 4
    assert areas[0] == areas[49] != areas[50]


def test_train_gives_way_to_its_neighbours():
    east = np.array([0.0, 60.0, 100.0, 151.0, 0.0])
    zones = ["17T"] * 4 + ["18T"]
    splits = ["train", "train", "val", "test", "test"]
    near = splitting.too_near(east, np.zeros(5), zones, splits)
    # 60 m is 40 m from val; val is 51 m from test; other zones are far away.
    assert near.tolist() == [False, True, False, False, False]


def street(**columns):
    found = reading.Collector("here", "here", layout="streets")
    for number in range(300):
        found.add(
            f"{number:03d}.jpg",
            split="",
            role="",
            utm_east_m=10.0 * number,
            utm_north_m=0.0,
            utm_zone="17T",
            **columns,
        )
    return found


def test_no_two_splits_come_near_in_a_street():
    found = street()
    splitting.complete(
        found, split_fractions=(0.5, 0.2, 0.3), query_fraction=0.25, seed=0
    )
    rows = found.table.to_dict("records")
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    # By loops: the nearest two images of different splits.
    apart = min(
        abs(a["utm_east_m"] - b["utm_east_m"])
        for a in rows
        for b in rows
        if a["split"] != b["split"]
    )
    assert apart > 50
    assert len(rows) + len(found.rejected) == 300
    assert 0 < len(found.rejected) <= 5 * 5  # At each of five cuts.
    assert {reason for _, reason in found.rejected} == {
        "within 50 m of an image of another split"
    }


def test_nothing_to_split_by():
    found = street()
    found.add("x.jpg", split="", role="", place_id="somewhere")
    with pytest.raises(ValueError, match="Received: 301 images, some with"):
        splitting.complete(
            found, split_fractions=(1, 0, 0), query_fraction=None, seed=0
        )
