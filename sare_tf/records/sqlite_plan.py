"""The images of a plan on disk: which shard holds which, and what is kept.

`SqlitePlan` orders the images of a `SqliteManifest` for their shards.
`KeptImages` are those that were not refused, to be asked what training and
evaluation will not use. Both are tables beside that of the images, so that
memory does not grow with the number of images.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator

import pandas as pd

from sare_tf.dataset import manifest
from sare_tf.dataset.sqlite_manifest import (
    CELL_M,
    COLUMNS,
    SCHEMA,
    SqliteManifest,
    read_frame,
)

# What a plan adds to the columns of an image: its group, see `SqlitePlan`, and
# size and time of its file.
_PLANNED = {"group": "str", "bytes": "int64", "modified_ns": "int64"}
_PLANNED_COLUMNS = ", ".join(
    f'"{name}"' for name in (*manifest.COLUMNS, *_PLANNED)
)


class SqlitePlan:
    """All images in the order of their shards.

    They are sorted by split, role, group and image_id. The group of an image is
    its place, or the cell that it stands in, or "" if it has neither.

    Args:
        images: the manifest. One plan of it is in use at a time: a new one
            replaces the tables of the one before.
        status: image_id -> size of its file and time of its last change.
    """

    def __init__(
        self,
        images: SqliteManifest,
        status: Callable[[str], tuple[int, int]],
    ):
        self.database = images.database
        self.database.define("group_of", _group_of, arguments=4)
        self.database.run("DROP TABLE IF EXISTS planned")
        self.database.run(
            "CREATE TABLE planned (position INTEGER PRIMARY KEY, "
            f'{SCHEMA}, "group" TEXT, bytes INTEGER, modified_ns INTEGER)'
        )
        rows = self.database.run(
            f"SELECT {COLUMNS}, group_of(place_id, utm_zone, utm_east_m, "
            'utm_north_m) AS "group" FROM images '
            'ORDER BY split, role, "group", image_id'
        )
        values = ", ".join("?" * (1 + len(manifest.COLUMNS) + len(_PLANNED)))
        self.database.run_many(
            f"INSERT INTO planned VALUES ({values})",
            (
                (position, *row, *status(row[0]))
                for position, row in enumerate(rows, 1)
            ),
        )

    def rows(self, start: int, stop: int) -> pd.DataFrame:
        """Reads images into memory.

        Args:
            start: position of the first image, from 1.
            stop: position after the last.

        Returns:
            The columns of a manifest, and group, bytes and modified_ns.
        """
        rows = self.database.run(
            f"SELECT {_PLANNED_COLUMNS} FROM planned "
            "WHERE position >= ? AND position < ?",
            start,
            stop,
        )
        return read_frame(rows, more=_PLANNED)

    def groups(self) -> Iterator[tuple[str, str, str, int, int]]:
        """Yields split, role, group, position and bytes of each image.

        An image with neither place nor position is a group of its own.
        """
        return self.database.run(
            'SELECT split, role, iif("group" = \'\', image_id, "group"), '
            "position, bytes FROM planned ORDER BY position"
        )

    def set_cuts(self, cuts: Iterable[tuple[int, int, bytes]]) -> None:
        """Sets where shards may begin.

        Args:
            cuts: for each group the position of its first image, the bytes of
                all images before it, and a digest.
        """
        self.database.run("DROP TABLE IF EXISTS cuts")
        self.database.run(
            "CREATE TABLE cuts (position INTEGER, begin INTEGER, digest BLOB, "
            "PRIMARY KEY (begin, position)) WITHOUT ROWID"
        )
        self.database.run_many("INSERT INTO cuts VALUES (?, ?, ?)", cuts)

    def lowest_cut(
        self, positions: tuple[int, int], num_bytes: tuple[int, int]
    ) -> tuple[int, int] | None:
        """Returns the cut of lowest digest: its position and bytes before it.

        Args:
            positions: the cut lies between these positions.
            num_bytes: there are at least so many bytes before the cut, and
                fewer than so many.

        Returns:
            None if there is no cut.
        """
        return self.database.run(
            "SELECT position, begin FROM cuts WHERE position > ? AND "
            "position < ? AND begin >= ? AND begin < ? "
            "ORDER BY digest, position LIMIT 1",
            *positions,
            *num_bytes,
        ).fetchone()


class KeptImages:
    """The images of a plan without those that were refused, and relations.

    Args:
        plan: the plan.
        refused: image ids of which none counts.
        relations: the table of the reading, or None.

    Attributes:
        has_relations: whether there is a table of relations.
    """

    def __init__(
        self,
        plan: SqlitePlan,
        *,
        refused: Iterable[str],
        relations: pd.DataFrame | None,
    ):
        self.has_relations = relations is not None
        self._database = plan.database
        for name, columns in (
            ("refused", "image_id TEXT PRIMARY KEY"),
            ("relations", "query TEXT, database TEXT, relation TEXT"),
            (
                "kept",
                "position INTEGER PRIMARY KEY, image_id TEXT, split TEXT, role "
                "TEXT, place_id TEXT, utm_zone TEXT, utm_east_m REAL, "
                "utm_north_m REAL",
            ),
        ):
            self._database.run(f"DROP TABLE IF EXISTS {name}")
            self._database.run(f"CREATE TABLE {name} ({columns})")
        self._database.run_many(
            "INSERT INTO refused VALUES (?)", ((name,) for name in refused)
        )
        self._database.run(
            "INSERT INTO kept SELECT position, image_id, split, role, "
            "place_id, utm_zone, utm_east_m, utm_north_m FROM planned "
            "WHERE image_id NOT IN refused ORDER BY position"
        )
        if relations is not None:
            rows = relations[["query", "database", "relation"]]
            self._database.run_many(
                "INSERT INTO relations VALUES (?, ?, ?)",
                rows.itertuples(index=False, name=None),
            )

    def counts(self) -> dict[str, int]:
        """Returns the images of each split and role, such as test/query."""
        rows = self._database.run(
            "SELECT split || '/' || role AS name, count(*) FROM kept "
            "GROUP BY name ORDER BY name"
        )
        return dict(rows)

    def places_of_one_image(self) -> Iterator[tuple[str, str]]:
        """Yields split and place_id of places with a single image."""
        return self._database.run(
            "SELECT split, place_id FROM kept WHERE place_id != '' GROUP BY "
            "split, place_id HAVING count(*) = 1 ORDER BY split, place_id"
        )

    def roles(self, split: str) -> list[tuple[str, int, int, int]]:
        """Returns what there is of a split.

        Returns:
            For each role that it has: the role, the number of images, of those
            without coordinates, and of those without a place.
        """
        return self._database.run(
            "SELECT role, count(*), sum(utm_east_m + utm_north_m IS NULL), "
            "sum(place_id = '') FROM kept WHERE split = ? GROUP BY role",
            split,
        ).fetchall()

    def has_listed_query(self, split: str) -> bool:
        """Returns whether relations name a query of a split."""
        return bool(
            self._database.value(
                "SELECT EXISTS (SELECT 1 FROM kept WHERE split = ? AND role = "
                "'query' AND image_id IN (SELECT query FROM relations))",
                split,
            )
        )

    def without_positive(self, split: str, rule: str) -> Iterator[str]:
        """Yields the queries of a split without a positive.

        Args:
            split: the split.
            rule: "place" or "list".
        """
        positive = {
            "place": "place_id NOT IN (SELECT place_id FROM kept "
            "WHERE split = ? AND role = 'database')",
            "list": "image_id NOT IN (SELECT relations.query FROM relations "
            "JOIN kept ON kept.image_id = relations.database "
            "WHERE relation != 'junk' AND split = ? AND role = 'database')",
        }[rule]
        rows = self._database.run(
            "SELECT image_id FROM kept WHERE split = ? AND role = 'query' AND "
            f"{positive} ORDER BY position",
            split,
            split,
        )
        for (image_id,) in rows:
            yield image_id

    def zones(self, split: str) -> list[str]:
        """Returns the UTM zones of a split."""
        return self._database.column(
            "SELECT DISTINCT utm_zone FROM kept WHERE split = ?", split
        )

    def index_by_east(self) -> None:
        """Makes `queries` and `database_between` quick."""
        self._database.run(
            "CREATE INDEX IF NOT EXISTS by_east ON kept "
            "(split, role, utm_zone, utm_east_m, utm_north_m)"
        )

    def queries(self, split: str, zones: list[str]) -> sqlite3.Cursor:
        """Selects position, metres east and north of queries, by east."""
        return self._database.run(
            "SELECT position, utm_east_m, utm_north_m FROM kept "
            f"WHERE split = ? AND utm_zone IN ({_marks(zones)}) AND "
            "role = 'query' ORDER BY utm_east_m",
            split,
            *zones,
        )

    def database_between(
        self, split: str, zones: list[str], east_m: tuple[float, float]
    ) -> sqlite3.Cursor:
        """Selects metres east and north of database images.

        Args:
            split: the split.
            zones: UTM zones.
            east_m: least and greatest metres east.
        """
        return self._database.run(
            "SELECT utm_east_m, utm_north_m FROM kept "
            f"WHERE split = ? AND utm_zone IN ({_marks(zones)}) AND "
            "role = 'database' AND utm_east_m BETWEEN ? AND ?",
            split,
            *zones,
            *east_m,
        )

    def image_id(self, position: int) -> str:
        """Returns the image at a position of the plan."""
        return self._database.value(
            "SELECT image_id FROM kept WHERE position = ?", position
        )


def _group_of(
    place: str, zone: str, east_m: float | None, north_m: float | None
) -> str:
    """Names the place of an image, or the cell it stands in, or nothing."""
    if place or east_m is None or north_m is None:
        return place
    east, north = east_m // CELL_M, north_m // CELL_M
    return f"{zone}_{east:.0f}_{north:.0f}".lstrip("_")


def _marks(values: list[str]) -> str:
    return ", ".join("?" * len(values))
