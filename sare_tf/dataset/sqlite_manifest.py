"""A manifest on disk: memory does not grow with the number of its images.

Readers add images to a `SqliteManifest`, then complete coordinates, splits and
roles by its methods. The table `images` has the columns of `manifest.COLUMNS`,
and a few that readers need in between. Its `rowid`, which methods call the row
of an image, counts from 1 in the order in which images were added. Unknown
coordinates are NULL.
"""

import enum
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from sare_tf.dataset import manifest
from sare_tf.dataset.sqlite_database import SqliteDatabase

# Cells of this side stand for places where an image has none: CosPlace's.
CELL_M = 10.0

# What readers need of an image until its row is complete: its degrees, and the
# area by which it is split.
_BETWEEN = {"latitude": "REAL", "longitude": "REAL", "area": "TEXT"}
_SQL_TYPES = {"str": "TEXT", "float64": "REAL", "int64": "INTEGER"}
_DTYPES = {name: column.dtype for name, column in manifest.COLUMNS.items()}
_UNKNOWN = {name: column.unknown for name, column in manifest.COLUMNS.items()}
_UNKNOWN |= dict.fromkeys(_BETWEEN)

# The columns of a manifest, to select and to create.
COLUMNS = ", ".join(manifest.COLUMNS)
SCHEMA = ", ".join(
    f"{name} {_SQL_TYPES[dtype]}" for name, dtype in _DTYPES.items()
)
_INSERT = (
    f"INSERT OR IGNORE INTO images VALUES ({', '.join('?' * len(_UNKNOWN))})"
)
_IS_LOCATED = "utm_east_m + utm_north_m IS NOT NULL"


class Group(enum.Enum):
    """What images are grouped by, to choose splits and roles of groups."""

    PLACE = "place_id"
    AREA = "area"
    CELL = "cell(utm_zone, utm_east_m, utm_north_m)"
    # A place that reaches into two splits is one group in each.
    PLACE_IN_SPLIT = "split || ' ' || iif(place_id = '', area, place_id)"


class SqliteManifest:
    """The images of a dataset, on disk.

    Attributes:
        database: holds the table `images`.
    """

    def __init__(self):
        self.database = SqliteDatabase()
        between = ", ".join(map(" ".join, _BETWEEN.items()))
        self.database.run(
            f"CREATE TABLE images ({SCHEMA}, {between}, UNIQUE (image_id))"
        )
        self.database.define("cell", _cell, arguments=3)

    def __len__(self) -> int:
        return self.database.value("SELECT count(*) FROM images")

    def add(self, row: Mapping[str, object]) -> bool:
        """Adds an image.

        Args:
            row: what is known of it: column -> value. Columns are those of the
                manifest, and `latitude` and `longitude`.

        Returns:
            False if an image of that image_id is there already, which stays.

        Raises:
            ValueError: an unknown column.
        """
        unknown = sorted(row.keys() - _UNKNOWN.keys())
        if unknown:
            raise ValueError(
                "Expected columns of a manifest: "
                f"{', '.join(manifest.COLUMNS)}. Received: {unknown}."
            )
        row = _UNKNOWN | row
        return bool(self.database.run(_INSERT, *row.values()).rowcount)

    def add_all(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Adds images, none of which is there already.

        Raises:
            ValueError: one is, or a column is unknown.
        """
        twice = [row["image_id"] for row in rows if not self.add(row)]
        if twice:
            raise ValueError(
                f"Expected every image_id once. Received: {len(twice)} of them "
                f"more than once, such as {twice[:3]}."
            )

    def remove(self, row: int) -> str:
        """Removes an image, and returns its image_id."""
        image_id = self.database.value(
            "SELECT image_id FROM images WHERE rowid = ?", row
        )
        self.database.run("DELETE FROM images WHERE rowid = ?", row)
        return image_id

    def table(self) -> pd.DataFrame:
        """Reads all images into memory: a manifest, in the order added."""
        return read_frame(
            self.database.run(f"SELECT {COLUMNS} FROM images ORDER BY rowid")
        )

    def check(self) -> None:
        """Checks that the rows make a manifest.

        Raises:
            ValueError: a row without image_id, split or role, an unknown split
                or role, or several UTM zones beside coordinates without zone.
        """
        for name in ("image_id", "split", "role"):
            row = self.database.run(
                f"SELECT {COLUMNS} FROM images WHERE {name} = '' LIMIT 1"
            ).fetchone()
            if row:
                row = dict(zip(manifest.COLUMNS, row, strict=True))
                raise ValueError(
                    "Expected image_id, split and role of every image. "
                    f"Received: {row} without {[name]}."
                )
        for name in ("split", "role"):
            values = self.database.column(
                f"SELECT DISTINCT {name} FROM images ORDER BY {name}"
            )
            manifest.check_values(name, values)
        zones = self.database.column(
            "SELECT DISTINCT utm_zone FROM images WHERE utm_zone != '' "
            "ORDER BY utm_zone"
        )
        if len(zones) > 1:
            without_zone = self.database.column(
                "SELECT image_id FROM images WHERE utm_zone = '' AND "
                f"{_IS_LOCATED} ORDER BY rowid"
            )
            manifest.check_zones(zones, without_zone)

    def roles(self, image_ids: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yields image_id and role of those images that are there."""
        for image_id in image_ids:
            yield from self.database.run(
                "SELECT image_id, role FROM images WHERE image_id = ?", image_id
            )

    def has_a_place(self) -> bool:
        """Returns whether any image has a place_id."""
        return bool(self.database.value("SELECT max(place_id) FROM images"))

    def count_unknown(self) -> tuple[int, int]:
        """Returns the numbers of images without place and without position."""
        return self.database.run(
            "SELECT total(place_id = ''), total(utm_east_m IS NULL) FROM images"
        ).fetchone()

    def degrees(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns row, latitude and longitude of images that have them, [B]."""
        return self._numbers("latitude, longitude", "latitude IS NOT NULL")

    def zones(self) -> list[str]:
        """Returns the UTM zones of images with zone and coordinates."""
        return self.database.column(
            f"SELECT DISTINCT utm_zone FROM images WHERE utm_zone != '' AND "
            f"{_IS_LOCATED}"
        )

    def positions(
        self, *, with_zone: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
        """Returns row, metres east and north, [B] each, and zone of images.

        Args:
            with_zone: whether images without a zone are left out.
        """
        where = _IS_LOCATED + (" AND utm_zone != ''" if with_zone else "")
        rows, east_m, north_m = self._numbers("utm_east_m, utm_north_m", where)
        texts = self.database.run(
            f"SELECT utm_zone FROM images WHERE {where} ORDER BY rowid"
        )
        # Each zone is one text in memory.
        zones = [sys.intern(zone) for (zone,) in texts]
        return rows, east_m, north_m, zones

    def set_positions(
        self,
        rows: np.ndarray,
        east_m: np.ndarray,
        north_m: np.ndarray,
        zones: Sequence[str],
    ) -> None:
        """Sets coordinates and zone of images."""
        self.database.run_many(
            "UPDATE images SET utm_east_m = ?, utm_north_m = ?, utm_zone = ? "
            "WHERE rowid = ?",
            (
                (float(east), float(north), zone, int(row))
                for row, east, north, zone in zip(
                    rows, east_m, north_m, zones, strict=True
                )
            ),
        )

    def set_areas(self, rows: np.ndarray, areas: Sequence[str]) -> None:
        """Sets the area of images."""
        self.database.run_many(
            "UPDATE images SET area = ? WHERE rowid = ?",
            ((area, int(row)) for row, area in zip(rows, areas, strict=True)),
        )

    def splits(self) -> list[str]:
        """Returns the split of each image, in the order added."""
        return self.database.column("SELECT split FROM images ORDER BY rowid")

    def groups(
        self, group: Group, *, splits: Sequence[str] | None = None
    ) -> list[str]:
        """Returns the names of groups, sorted.

        Args:
            group: what images are grouped by.
            splits: those whose images count; None: all images.
        """
        return self.database.column(
            f"SELECT DISTINCT {group.value} AS name FROM images "
            f"{_within(splits)} ORDER BY name",
            *(splits or ()),
        )

    def members(
        self, group: Group, *, splits: Sequence[str] | None = None
    ) -> Iterator[tuple[str, int]]:
        """Yields group and row of images, ordered by group and image_id.

        Arguments are those of `groups`.
        """
        return self.database.run(
            f"SELECT {group.value} AS name, rowid FROM images "
            f"{_within(splits)} ORDER BY name, image_id",
            *(splits or ()),
        )

    def set_splits(
        self,
        split_of: Mapping[str, str],
        group: Group,
        *,
        splits: Sequence[str] | None = None,
    ) -> None:
        """Sets the split of images by their group.

        Args:
            split_of: name of a group -> split.
            group: of `groups`.
            splits: of `groups`.
        """
        self.database.define("split_of", split_of.__getitem__, arguments=1)
        self.database.run(
            f"UPDATE images SET split = split_of({group.value}) "
            f"{_within(splits)}",
            *(splits or ()),
        )

    def set_roles(
        self, query_rows: Iterable[int], *, splits: Sequence[str] | None = None
    ) -> None:
        """Makes images queries, and all others database images.

        Args:
            query_rows: rows of the queries.
            splits: those whose images get a role; None: all images.
        """
        self.database.run(
            f"UPDATE images SET role = 'database' {_within(splits)}",
            *(splits or ()),
        )
        self.database.run_many(
            "UPDATE images SET role = 'query' WHERE rowid = ?",
            ((row,) for row in query_rows),
        )

    def _numbers(self, columns: str, where: str) -> np.ndarray:
        """Reads row and two numbers of images, float64 [3, B]."""
        rows = self.database.run(
            f"SELECT rowid, {columns} FROM images WHERE {where} ORDER BY rowid"
        )
        return np.fromiter(rows, np.dtype((np.float64, 3))).T


def read_frame(
    cursor: sqlite3.Cursor, *, more: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Reads the rows that a statement gives into a table.

    Args:
        cursor: selects columns of a manifest, and others.
        more: names of the others -> types, as of `manifest.Column`.
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


def _within(splits: Sequence[str] | None) -> str:
    """Makes the condition that an image is in one of the splits."""
    if splits is None:
        return ""
    return f"WHERE split IN ({', '.join('?' * len(splits))})"


def _cell(zone: str, east_m: float, north_m: float) -> str:
    """Names the cell that a point is in."""
    return f"{zone} {east_m // CELL_M:.0f} {north_m // CELL_M:.0f}"


def _array(dtype: str, values: Sequence) -> pa.Array:
    if dtype == "str":
        return pa.array(values, pa.string())
    return pa.array(np.array(values, dtype))
