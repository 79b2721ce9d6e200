"""A list on disk is the list in memory."""

import numpy as np
import pandas as pd

from sare_tf.dataset import manifest
from sare_tf.dataset.readers.collector import Reading
from sare_tf.dataset.sqlite_manifest import Group, SqliteManifest
from sare_tf.records import shard_plan


def rows(count):
    return [
        {"image_id": f"{number}.jpg", "split": "train", "role": "database"}
        for number in range(count)
    ]


def test_rows_come_back_as_a_manifest(monkeypatch):
    """In blocks, with what is not known in its place."""
    monkeypatch.setattr(manifest, "BLOCK_ROWS", 2)
    given = rows(7)
    given[1] |= {"place_id": "b", "frame": 3, "utm_east_m": 584_958.123456789}
    given[5] |= {"frame": np.int64(2**40), "utm_east_m": np.float64(1.5)}
    given[6] |= {"place_id": "a", "heading_deg": 90, "timestamp": "ö\0ö"}
    images = SqliteManifest()
    images.add_all(given)
    table = images.table()
    assert len(images) == len(table) == 7
    assert {name: str(dtype) for name, dtype in table.dtypes.items()} == {
        name: dtype for name, (dtype, *_) in manifest.COLUMNS.items()
    }
    for number, row in enumerate(given):
        expected = {
            name: row.get(name, unknown)
            for name, (_, unknown, *_) in manifest.COLUMNS.items()
        }
        pd.testing.assert_series_equal(
            table.iloc[number],
            pd.Series(expected, name=number, dtype=object),
            check_exact=True,
        )


def test_a_list_without_images():
    table = SqliteManifest().table()
    assert not len(table)
    assert table["frame"].dtype == "int64"
    assert list(table) == list(manifest.COLUMNS)


def test_a_plan_is_read_as_it_was_written(tmp_path):
    images = SqliteManifest()
    images.add_all(rows(5))
    [shard] = shard_plan.make(
        Reading(images, tmp_path, []),
        shard_mebibytes=1,
        preparation=shard_plan.Preparation(),
    ).shards
    assert shard.count == 5
    planned = shard.read_rows()
    assert planned["image_id"].tolist() == [f"{n}.jpg" for n in range(5)]
    assert planned["bytes"].tolist() == [-1] * 5
    pd.testing.assert_frame_equal(
        planned[list(manifest.COLUMNS)], images.table()
    )


def grouped(rows):
    """Groups of images, by each of `Group`."""
    images = SqliteManifest()
    images.add_all(
        {"image_id": str(n), "role": "database"} | row
        for n, row in enumerate(rows)
    )
    images.set_areas(np.arange(1, 1 + len(rows)), ["z", "y", "z"])
    return images, {group: list(images.members(group)) for group in Group}


def test_images_are_grouped():
    rows = [
        {"split": "val", "place_id": "b", "utm_east_m": 19.9},
        {"split": "train", "place_id": "", "utm_east_m": -0.5},
        {"split": "train", "place_id": "b", "utm_east_m": 10.0},
    ]
    for row in rows:
        row |= {"utm_north_m": 30.0, "utm_zone": "17T"}
    images, members = grouped(rows)
    assert members == {
        Group.PLACE: [("", 2), ("b", 1), ("b", 3)],
        Group.AREA: [("y", 2), ("z", 1), ("z", 3)],
        Group.CELL: [("17T -1 3", 2), ("17T 1 3", 1), ("17T 1 3", 3)],
        Group.PLACE_IN_SPLIT: [("train b", 3), ("train y", 2), ("val b", 1)],
    }
    assert images.groups(Group.PLACE) == ["", "b"]
    assert images.groups(Group.PLACE, splits=["val"]) == ["b"]
    images.set_splits({"b": "test"}, Group.PLACE, splits=["val"])
    images.set_roles([1], splits=["test"])
    images.set_roles([2], splits=["train"])
    table = images.table()
    assert table["split"].tolist() == ["test", "train", "train"]
    assert table["role"].tolist() == ["query", "query", "database"]


def test_positions_are_read_and_set():
    images = SqliteManifest()
    for number, (east, zone) in enumerate(
        [(1.5, "17T"), (np.nan, "17T"), (2.5, "")]
    ):
        images.add(
            {"image_id": str(number), "utm_zone": zone, "utm_east_m": east}
            | {"utm_north_m": 7.0, "place_id": "p", "latitude": 9.0}
        )
    assert images.count_unknown() == (0, 1)
    assert images.zones() == ["17T"]
    all_rows, *_, zones = images.positions(with_zone=False)
    assert (all_rows.tolist(), zones) == ([1, 3], ["17T", ""])
    [row], [east], [north], [zone] = images.positions(with_zone=True)
    assert (row, east, north, zone) == (1, 1.5, 7.0, "17T")
    rows, latitude, _ = images.degrees()
    assert (rows.tolist(), latitude.tolist()) == ([1, 2, 3], [9.0] * 3)
    images.set_positions([2.0], [8.0], [9.0], ["18T"])
    assert images.table()["utm_east_m"].tolist() == [1.5, 8.0, 2.5]
    assert images.remove(2) == "1"
    assert len(images) == 2
    assert list(images.roles(["0", "1"])) == [("0", None)]
