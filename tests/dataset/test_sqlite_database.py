"""Rows on disk sort as in memory, and do not fill the memory."""

import itertools
import os
import sqlite3

import numpy as np
import pytest

from sare_tf.dataset import sqlite_database
from sare_tf.dataset.sqlite_database import SqliteDatabase


def test_order_is_that_of_sorted():
    """Also of names beyond what UTF-16 holds in one unit."""
    names = ["b", "a", "", "ab", "B", "é", "\uffee", "\U0001f600", "a\0", "ae"]
    given = [f"{one}|{two}" for one, two in itertools.product(names, names)]
    database = SqliteDatabase()
    database.run("CREATE TABLE texts (text TEXT, number INTEGER)")
    database.run_many(
        "INSERT INTO texts VALUES (?, ?)", zip(given, itertools.count())
    )
    ordered = database.column("SELECT text FROM texts ORDER BY text")
    assert ordered == sorted(given)
    assert database.value("SELECT count(DISTINCT number) FROM texts") == 100


def test_functions_of_any_kind_are_known_to_sql():
    database = SqliteDatabase()
    database.define("place_of", {"a": "b"}.__getitem__, arguments=1)
    database.define("largest", max, arguments=3)
    assert database.value("SELECT place_of('a')") == "b"
    assert database.value("SELECT largest(1, 3, 2)") == 3


@pytest.mark.parametrize("held", [2, 20, 1000])
def test_names_are_sorted(monkeypatch, held):
    monkeypatch.setattr(sqlite_database, "_SORTED_IN_MEMORY", held)
    rng = np.random.default_rng(0)
    names = [f"{number:x}\0"[: 1 + number % 4] for number in range(20)]
    names += ["é.jpg", os.fsdecode(b"caf\xe9.jpg"), "é"]
    shuffled = [names[number] for number in rng.permutation(len(names))]
    ordered = list(sqlite_database.sorted_names(iter(shuffled)))
    assert ordered == sorted(shuffled, key=os.fsencode)


def test_memory_does_not_grow():
    """Pages beyond the cache are on disk, also while sorting."""
    sqlite3.connect("").execute("PRAGMA hard_heap_limit = 50000000")
    try:
        database = SqliteDatabase()
        database.run("CREATE TABLE rows (name TEXT, long TEXT)")
        long = "x" * 500
        database.run_many(
            "INSERT INTO rows VALUES (?, ?)",
            ((f"{n}.jpg", f"{n % 997}{long}{long}") for n in range(100_000)),
        )
        ordered = database.run("SELECT * FROM rows ORDER BY long, name")
        first, second = itertools.islice(ordered, 2)
        assert (first[0], second[0]) == ("0.jpg", "10967.jpg")
    finally:
        sqlite3.connect("").execute("PRAGMA hard_heap_limit = 0")


def test_no_room_for_temporary_files():
    database = SqliteDatabase()
    database.run("PRAGMA max_page_count = 20")
    database.run("CREATE TABLE rows (number INTEGER)")
    with pytest.raises(OSError, match="SQLITE_TMPDIR") as raised:
        database.run_many(
            "INSERT INTO rows VALUES (?)", ((n,) for n in range(100_000))
        )
    assert "Received: database or disk is full" in str(raised.value)


def test_mistakes_are_not_taken_for_want_of_room():
    with pytest.raises(sqlite3.OperationalError, match="no such table: imges"):
        SqliteDatabase().run("SELECT * FROM imges")
