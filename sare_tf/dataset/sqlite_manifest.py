"""The images of a dataset, as a reader lists them: a manifest on disk.

A temporary database of SQLite holds the rows, so that memory does not grow
with their number; nothing is written while they are few. It lies in the folder
for temporary files, SQLite's choice: that of the environment variable
SQLITE_TMPDIR or TMPDIR, else /var/tmp. It has no name there, and goes with its
process, however that ends.

Readers fill the table `images` and complete it by SQL; `record_plan` and
`record_warnings` make tables of their own beside it. Texts sort by their UTF-8
bytes, which is the order of Python's strings. Unknown coordinates are NULL.
"""

import contextlib
import itertools
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from sare_tf.dataset import manifest

# What readers need of an image before its row is complete: its degrees, and
# the area that it is split by.
_PASSING = {"latitude": "REAL", "longitude": "REAL", "area": "TEXT"}
_SQL_TYPES = {"str": "TEXT", "float64": "REAL", "int64": "INTEGER"}
# Numbers of numpy, which SQLite does not know.
sqlite3.register_adapter(np.int64, int)
# Of memory for pages of the database, and as much for each sorting.
_CACHE_KIBIBYTES = 2 << 10

_SORTED_IN_MEMORY = 1 << 16

# The columns of a manifest, to be created or selected.
COLUMNS = ", ".join(manifest.COLUMNS)
SCHEMA = ", ".join(
    f"{name} {_SQL_TYPES[dtype]}"
    for name, (dtype, *_) in manifest.COLUMNS.items()
)
_DTYPES = {name: dtype for name, (dtype, *_) in manifest.COLUMNS.items()}
_UNKNOWN = {name: value for name, (_, value, *_) in manifest.COLUMNS.items()}
_UNKNOWN |= dict.fromkeys(_PASSING)
_INSERT = (
    f"INSERT OR IGNORE INTO images VALUES ({', '.join('?' * len(_UNKNOWN))})"
)


class Listing:
    """A database with the table `images`: the columns of `manifest.COLUMNS`,
    and `latitude`, `longitude` and `area` for the use of readers. Its `rowid`
    counts from 1, in the order in which images were added."""

    def __init__(self):
        # Threads of an engine may ask in turns.
        self._database = sqlite3.connect(
            "", isolation_level=None, check_same_thread=False
        )
        for pragma in (
            "journal_mode = OFF",
            "temp_store = FILE",
            f"cache_size = -{_CACHE_KIBIBYTES}",
        ):
            self.run(f"PRAGMA {pragma}")
        passing = ", ".join(map(" ".join, _PASSING.items()))
        self.run(
            f"CREATE TABLE images ({SCHEMA}, {passing}, UNIQUE (image_id))"
        )
        # One transaction for all: to end one takes longer than a row does.
        self.run("BEGIN")

    def __len__(self) -> int:
        return self.value("SELECT count(*) FROM images")

    def add(self, row: Mapping[str, object]) -> bool:
        """Adds an image.

        Args:
            row: what is known of it: columns of `images` -> values.

        Returns:
            False if there is one of that image_id already, which stays.

        Raises:
            ValueError: an unknown column.
        """
        unknown = sorted(row.keys() - manifest.COLUMNS.keys() - _PASSING.keys())
        if unknown:
            raise ValueError(
                "Expected columns of a manifest: "
                f"{', '.join(manifest.COLUMNS)}. Received: {unknown}."
            )
        row = _UNKNOWN | row
        return bool(self.run(_INSERT, *row.values()).rowcount)

    def add_all(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Adds images of which none may be there already.

        Raises:
            ValueError: one is, or as `add` does.
        """
        twice = [row["image_id"] for row in rows if not self.add(row)]
        if twice:
            raise ValueError(
                f"Expected every image_id once. Received: {len(twice)} of them "
                f"more than once, such as {twice[:3]}."
            )

    def run(self, sql: str, *values: object) -> sqlite3.Cursor:
        """Runs a statement; gives its rows, read as they are asked for.

        Raises:
            OSError: no room in the folder for temporary files.
        """
        with _explained():
            return self._database.execute(sql, values)

    def run_many(self, sql: str, rows: Iterable[tuple]) -> None:
        """Runs a statement with each row of values; errors as of `run`."""
        with _explained():
            self._database.executemany(sql, rows)

    def value(self, sql: str, *values: object) -> object:
        """The one value that a statement gives."""
        [[found]] = self.run(sql, *values)
        return found

    def column(self, sql: str, *values: object) -> list:
        """The one column that a statement gives."""
        return [value for (value,) in self.run(sql, *values)]

    def define(self, name: str, function: Callable) -> None:
        """Makes a function of texts and numbers known to SQL."""
        count = function.__code__.co_argcount
        self._database.create_function(name, count, function)

    def table(
        self, source: str = "images ORDER BY rowid", *values: object
    ) -> pd.DataFrame:
        """Rows in memory: a manifest.

        Args:
            source: what follows FROM.
            *values: of its parameters.

        Returns:
            The columns of a manifest, in their order.
        """
        return frame(self.run(f"SELECT {COLUMNS} FROM {source}", *values))

    def check(self) -> None:
        """Checks that the rows make a manifest.

        Raises:
            ValueError: a row without image_id, split or role, an unknown split
                or role, or several UTM zones beside coordinates without zone.
        """
        for name in ("image_id", "split", "role"):
            row = self.run(
                f"SELECT {COLUMNS} FROM images WHERE {name} = '' LIMIT 1"
            ).fetchone()
            if row:
                row = dict(zip(manifest.COLUMNS, row, strict=True))
                raise ValueError(
                    "Expected image_id, split and role of every image. "
                    f"Received: {row} without {[name]}."
                )
        for name in ("split", "role"):
            values = self.column(
                f"SELECT DISTINCT {name} FROM images ORDER BY {name}"
            )
            manifest.check_values(name, values)
        zones = self.column(
            "SELECT DISTINCT utm_zone FROM images WHERE utm_zone != '' "
            "ORDER BY utm_zone"
        )
        if len(zones) > 1:
            without_zone = self.column(
                "SELECT image_id FROM images WHERE utm_zone = '' AND "
                "utm_east_m + utm_north_m IS NOT NULL ORDER BY rowid"
            )
            manifest.check_zones(zones, without_zone)


def frame(
    cursor: sqlite3.Cursor, *, more: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """The rows that a statement gives, as a table.

    Args:
        cursor: of columns of a manifest, and of others.
        more: names of those others -> types.
    """
    names = [name for name, *_ in cursor.description]
    dtypes = [(_DTYPES | (more or {}))[name] for name in names]
    blocks = [
        list(map(_array, dtypes, zip(*rows, strict=True)))
        for rows in iter(lambda: cursor.fetchmany(manifest.BLOCK_ROWS), [])
    ]
    blocks = blocks or [[_array(dtype, ()) for dtype in dtypes]]
    columns = map(pa.chunked_array, zip(*blocks, strict=True))
    return pa.table(list(columns), names).to_pandas()


def sorted_names(names: Iterable[str]) -> Iterator[str]:
    """Names of files, as by `sorted`, with some of them in memory at a time."""
    names = iter(names)
    some = list(itertools.islice(names, _SORTED_IN_MEMORY))
    if len(some) < _SORTED_IN_MEMORY:
        yield from sorted(some)
        return
    listing = Listing()
    # As bytes: a name may be no text.
    listing.run("CREATE TABLE names (name BLOB)")
    listing.run_many(
        "INSERT INTO names VALUES (?)",
        ((os.fsencode(name),) for name in itertools.chain(some, names)),
    )
    del some
    for (name,) in listing.run("SELECT name FROM names ORDER BY name"):
        yield os.fsdecode(name)


def _array(dtype: str, values: Sequence) -> pa.Array:
    if dtype == "str":
        return pa.array(values, pa.string())
    return pa.array(np.array(values, dtype))


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        # All else would be a mistake in what is asked.
        if not re.search("full|disk|unable to open", str(error)):
            raise
        raise OSError(
            "Expected room in the folder for temporary files, for a list of "
            f"the images. Received: {error}. Name another folder by the "
            "environment variable SQLITE_TMPDIR."
        ) from error
