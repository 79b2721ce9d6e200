"""A temporary database of SQLite, for rows that are too many for memory.

It writes nothing to the disk while its rows are few. SQLite chooses the folder:
that of the environment variable SQLITE_TMPDIR or TMPDIR, else /var/tmp. The
file has no name there, and vanishes with its process, however that ends.

Texts sort by their UTF-8 bytes, which is the order of Python's strings.
"""

import contextlib
import itertools
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator

import numpy as np

# Memory for pages of a database, and as much again for each sorting.
_CACHE_KIBIBYTES = 2 << 10
_SORTED_IN_MEMORY = 1 << 16

# SQLite does not know the numbers of numpy.
sqlite3.register_adapter(np.int64, int)


class SqliteDatabase:
    """A temporary database, empty at first."""

    def __init__(self):
        # Threads of an executor may ask in turns.
        self._connection = sqlite3.connect(
            "", isolation_level=None, check_same_thread=False
        )
        for pragma in (
            "journal_mode = OFF",
            "temp_store = FILE",
            f"cache_size = -{_CACHE_KIBIBYTES}",
        ):
            self.run(f"PRAGMA {pragma}")
        # One transaction for everything: ending one takes longer than a row.
        self.run("BEGIN")

    def run(self, sql: str, *values: object) -> sqlite3.Cursor:
        """Runs a statement, and returns its rows, which are read lazily.

        Raises:
            OSError: the folder for temporary files is full.
        """
        with _explained():
            return self._connection.execute(sql, values)

    def run_many(self, sql: str, rows: Iterable[tuple]) -> None:
        """Runs a statement with each row of values; raises as `run` does."""
        with _explained():
            self._connection.executemany(sql, rows)

    def value(self, sql: str, *values: object) -> object:
        """Returns the only value that a statement gives."""
        [[value]] = self.run(sql, *values)
        return value

    def column(self, sql: str, *values: object) -> list:
        """Returns the only column that a statement gives."""
        return [value for (value,) in self.run(sql, *values)]

    def define(self, name: str, function: Callable, *, arguments: int) -> None:
        """Makes a function of texts and numbers known to SQL.

        Args:
            name: its name in SQL.
            function: the function.
            arguments: how many it takes.
        """
        self._connection.create_function(name, arguments, function)


def sorted_names(names: Iterable[str]) -> Iterator[str]:
    """Yields file names in the order of `sorted`, with few in memory."""
    names = iter(names)
    first = list(itertools.islice(names, _SORTED_IN_MEMORY))
    if len(first) < _SORTED_IN_MEMORY:
        yield from sorted(first)
        return
    database = SqliteDatabase()
    # As bytes, because a file name may be no text.
    database.run("CREATE TABLE names (name BLOB)")
    database.run_many(
        "INSERT INTO names VALUES (?)",
        ((os.fsencode(name),) for name in itertools.chain(first, names)),
    )
    del first
    for (name,) in database.run("SELECT name FROM names ORDER BY name"):
        yield os.fsdecode(name)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        # Any other one is a mistake in the statement.
        if not re.search("full|disk|unable to open", str(error)):
            raise
        raise OSError(
            "Expected room in the folder for temporary files, for a list of "
            f"the images. Received: {error}. Name another folder by the "
            "environment variable SQLITE_TMPDIR."
        ) from error
