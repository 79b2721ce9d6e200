import numpy as np
import pytest

from sare_tf.dataset.readers import splitting
from sare_tf.dataset.readers.collector import Collector
from sare_tf.dataset.sqlite_manifest import Group, SqliteManifest


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
    """Queries of each place; the last place is added first."""
    places = [place for place, size in sizes.items() for _ in range(size)]
    images = SqliteManifest()
    for number, place in enumerate(reversed(places)):
        images.add({"image_id": f"{place}{number}", "place_id": place})
    splitting.choose_roles(images, Group.PLACE, **options)
    table = images.table().sort_values("image_id")
    assert set(table["role"]) <= {"query", "database"}
    queries = table[table["role"] == "query"]
    return {
        place: queries["image_id"][queries["place_id"] == place].tolist()
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
        splitting.choose_roles(
            SqliteManifest(), Group.PLACE, fraction=fraction, seed=0
        )


def street(**columns):
    collector = Collector("here", "here", layout="streets")
    for number in range(300):
        collector.add(
            f"{number:03d}.jpg",
            split="",
            role="",
            utm_east_m=10.0 * number,
            utm_north_m=0.0,
            utm_zone="17T",
            **columns,
        )
    return collector


def test_no_two_splits_come_near_in_a_street():
    collector = street()
    splitting.complete(
        collector, split_fractions=(0.5, 0.2, 0.3), query_fraction=0.25, seed=0
    )
    rows = collector.images.table().to_dict("records")
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    # By loops: the nearest two images of different splits.
    apart = min(
        abs(a["utm_east_m"] - b["utm_east_m"])
        for a in rows
        for b in rows
        if a["split"] != b["split"]
    )
    assert apart > 50
    assert len(rows) + len(collector.rejected) == 300
    assert 0 < len(collector.rejected) <= 5 * 5  # At each of five cuts.
    assert {reason for _, reason in collector.rejected} == {
        "within 50 m of an image of another split"
    }


def test_nothing_to_split_by():
    collector = street()
    collector.add("x.jpg", split="", role="", place_id="somewhere")
    with pytest.raises(ValueError, match="Received: 301 images, some with"):
        splitting.complete(
            collector, split_fractions=(1, 0, 0), query_fraction=None, seed=0
        )
