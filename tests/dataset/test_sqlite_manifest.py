"""A list on disk is the list in memory."""

import itertools
import os
import sqlite3

import numpy as np
import pandas as pd
import pytest

from sare_tf.dataset import manifest, sqlite_manifest
from sare_tf.dataset.sqlite_manifest import Listing
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
    found = Listing()
    found.add_all(given)
    table = found.table()
    assert len(found) == len(table) == 7
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
    table = Listing().table()
    assert not len(table)
    assert table["frame"].dtype == "int64"
    assert list(table) == list(manifest.COLUMNS)


def test_order_is_that_of_sorted():
    """Also of names beyond what UTF-16 holds in one unit."""
    names = ["b", "a", "", "ab", "B", "é", "\uffee", "\U0001f600", "a\0", "ae"]
    found = Listing()
    for split, place in itertools.product(names, names):
        found.add({"image_id": f"{split}|{place}", "split": split})
    given = found.column("SELECT image_id FROM images ORDER BY rowid")
    ordered = found.column("SELECT image_id FROM images ORDER BY image_id")
    assert ordered == sorted(given)
    splits = found.column("SELECT DISTINCT split FROM images ORDER BY split")
    assert splits == sorted(names)


@pytest.mark.parametrize("held", [2, 20, 1000])
def test_names_are_sorted(monkeypatch, held):
    monkeypatch.setattr(sqlite_manifest, "_SORTED_IN_MEMORY", held)
    rng = np.random.default_rng(0)
    names = [f"{number:x}\0"[: 1 + number % 4] for number in range(20)]
    names += ["é.jpg", os.fsdecode(b"caf\xe9.jpg"), "é"]
    some = [names[at] for at in rng.permutation(len(names))]
    found = list(sqlite_manifest.sorted_names(iter(some)))
    assert found == sorted(some, key=os.fsencode)


def test_memory_does_not_grow():
    """Pages beyond the cache are on disk, also while sorting."""
    sqlite3.connect("").execute("PRAGMA hard_heap_limit = 50000000")
    try:
        found = Listing()
        long = "x" * 500
        found.add_all(
            row | {"condition": long, "place_id": f"{number % 997}{long}"}
            for number, row in enumerate(rows(100_000))
        )
        ordered = found.run(
            f"SELECT {sqlite_manifest.COLUMNS} FROM images "
            "ORDER BY place_id, image_id"
        )
        first, second = itertools.islice(ordered, 2)
        assert (first[0], second[0]) == ("0.jpg", "10967.jpg")
    finally:
        sqlite3.connect("").execute("PRAGMA hard_heap_limit = 0")


def test_no_room_for_temporary_files():
    found = Listing()
    found.run("PRAGMA max_page_count = 20")
    with pytest.raises(OSError, match="SQLITE_TMPDIR") as raised:
        found.add_all(rows(10_000))
    assert "Received: database or disk is full" in str(raised.value)


def test_mistakes_are_not_taken_for_want_of_room():
    with pytest.raises(sqlite3.OperationalError, match="no such table: imges"):
        Listing().run("SELECT * FROM imges")


def test_a_plan_is_read_as_it_was_written(tmp_path):
    found = Listing()
    found.add_all(rows(5))
    [shard] = shard_plan.make(
        shard_plan.Reading(found, tmp_path, []),
        shard_mebibytes=1,
        preparation=shard_plan.Preparation(),
    )
    assert shard.count == 5
    assert shard.rows["image_id"].tolist() == [f"{n}.jpg" for n in range(5)]
    assert shard.rows["bytes"].tolist() == [-1] * 5
    pd.testing.assert_frame_equal(
        shard.rows[list(manifest.COLUMNS)], found.table()
    )
