import itertools
import math

import numpy as np
import pytest

from sare_tf.dataset.readers import reading, splitting
from sare_tf.dataset.sqlite_manifest import Listing


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


def listing(places):
    images = Listing()
    for number, place in enumerate(places):
        images.add({"image_id": f"{place}{number}", "place_id": place})
    return images


def roles(sizes, **options):
    """Queries of each place; the last of them are added first."""
    places = [place for place, size in sizes.items() for _ in range(size)]
    images = listing(reversed(places))
    splitting.choose_roles(images, "place_id", **options)
    assert set(images.column("SELECT role FROM images")) <= {
        *("query", "database")
    }
    return {
        place: images.column(
            "SELECT image_id FROM images WHERE place_id = ? AND role = 'query'"
            "ORDER BY image_id",
            place,
        )
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
        splitting.choose_roles(Listing(), "place_id", fraction=fraction, seed=0)


def test_areas_are_linked_by_50_m():
    east = np.array([0.0, 50.0, 100.0, 150.5, 150.5])
    areas = splitting.find_areas(
        east, np.zeros(5), ["17T", "17T", "17T", "17T", "18T"]
    )
    assert areas[0] == areas[1] == areas[2]
    assert len(set(areas)) == 3


@pytest.mark.parametrize("pairs", [1, 50, 1 << 20])
def test_areas_equal_a_loop(monkeypatch, pairs):
    """However few pairs of images are looked at together."""
    monkeypatch.setattr(splitting, "_LINKED_PAIRS", pairs)
    monkeypatch.setattr(splitting, "_AREA_M", 1e9)
    rng = np.random.default_rng(0)
    points = rng.integers(0, 60, (200, 2)) * 10.0
    area = list(range(200))
    for one, other in itertools.combinations(range(200), 2):
        if math.dist(points[one], points[other]) <= 50:
            old, new = area[other], area[one]
            area = [new if number == old else number for number in area]
    # Numbers in the order of the first image of each.
    numbers = {old: new for new, old in enumerate(dict.fromkeys(area))}
    assert len(numbers) > 5
    assert splitting.find_areas(*points.T, ["17T"] * 200) == [
        f"17T {numbers[old]} 0 0" for old in area
    ]


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
    rows = found.listing.table().to_dict("records")
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
