"""What training and evaluation will not use of records, or count as a miss.

Found by SQL in the plan of a build, and for coordinates in strips of the map,
so that memory does not grow with the number of images. What a positive is,
`positives.find_positives` says.
"""

import array
import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from sare_tf.dataset import manifest, positives
from sare_tf.dataset.sqlite_manifest import Listing

# Queries of a strip of the map, and database images beside them at a time.
_STRIP_IMAGES = 1 << 14
# Of the distances of a tree, relative and in metres.
_ERROR, _ERROR_M = 1e-9, 1e-6


def check_rule(
    listing: Listing, *, rule: str, relations: pd.DataFrame | None
) -> None:
    """Refuses a rule of positives that the images do not allow.

    Args:
        listing: with the table `planned` of `record_plan`.
        rule: of `positives.find_positives`.
        relations: those of the reading, or None.

    Raises:
        ValueError: the rule is unknown, or needs coordinates, places or a list
            that are not there.
    """
    _keep(listing, (), relations)
    for split in manifest.SPLITS:
        _Split.of(listing, split).choose(rule, relations)


def find(
    listing: Listing,
    *,
    refused: Iterable[str],
    rule: str,
    radius_m: float,
    relations: pd.DataFrame | None,
) -> Iterator[tuple[str, str]]:
    """Finds places and images, and splits, that a user should know of.

    Args:
        listing: with the table `planned` of `record_plan`.
        refused: image ids of which none counts.
        rule: of `positives.find_positives`.
        radius_m: of `positives.find_positives`.
        relations: those of the reading, or None.

    Yields:
        Its name, and the warning.

    Raises:
        ValueError: as `check_rule` does.
    """
    _keep(listing, refused, relations)
    for split, place in listing.run(
        "SELECT split, place_id FROM kept WHERE place_id != '' "
        "GROUP BY split, place_id HAVING count(*) = 1 ORDER BY split, place_id"
    ):
        yield f"{split}/{place}", "place with one image"
    for split in manifest.SPLITS:
        part = _Split.of(listing, split)
        if not part.counts:
            yield split, "split without an image"
            continue
        for role in ("query", "database"):
            if role not in part.counts:
                yield split, f"split without a {role} image"
        chosen = part.choose(rule, relations)
        if not chosen:
            yield split, "split of which nothing says what matches"
        elif chosen == "radius":
            alone = _without_near(listing, split, radius_m)
        else:
            alone = listing.run(_WITHOUT_POSITIVE[chosen], split, split)
        for (image_id,) in alone if chosen else ():
            yield image_id, "query without a positive in the database"


def counts(listing: Listing) -> dict[str, int]:
    """Images of each split and role, such as test/query, after `find`."""
    found = listing.run(
        "SELECT split || '/' || role AS name, count(*) FROM kept "
        "GROUP BY name ORDER BY name"
    )
    return dict(found)


_WITHOUT_POSITIVE = {
    "place": """
        SELECT image_id FROM kept
        WHERE split = ? AND role = 'query' AND place_id NOT IN (
            SELECT place_id FROM kept WHERE split = ? AND role = 'database'
        ) ORDER BY position
    """,
    "list": """
        SELECT image_id FROM kept
        WHERE split = ? AND role = 'query' AND image_id NOT IN (
            SELECT relations.query FROM relations
            JOIN kept ON kept.image_id = relations.database
            WHERE relation != 'junk' AND split = ? AND role = 'database'
        ) ORDER BY position
    """,
}


def _keep(
    listing: Listing, refused: Iterable[str], relations: pd.DataFrame | None
) -> None:
    """Makes the tables `kept`, what is looked at of images, and `relations`."""
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
        listing.run(f"DROP TABLE IF EXISTS {name}")
        listing.run(f"CREATE TABLE {name} ({columns})")
    listing.run_many(
        "INSERT INTO refused VALUES (?)", ((name,) for name in refused)
    )
    listing.run(
        "INSERT INTO kept SELECT position, image_id, split, role, place_id, "
        "utm_zone, utm_east_m, utm_north_m FROM planned "
        "WHERE image_id NOT IN refused ORDER BY position"
    )
    if relations is not None:
        rows = relations[["query", "database", "relation"]]
        listing.run_many(
            "INSERT INTO relations VALUES (?, ?, ?)",
            rows.itertuples(index=False, name=None),
        )


@dataclasses.dataclass(frozen=True)
class _Split:
    """What there is of a split.

    Attributes:
        counts: role -> images, of roles that there are.
        without_position: images.
        without_place: images.
        is_listed: relations name a query of it.
    """

    counts: dict[str, int]
    without_position: int
    without_place: int
    is_listed: bool

    @classmethod
    def of(cls, listing: Listing, split: str) -> "_Split":
        rows = listing.run(
            "SELECT role, count(*), sum(utm_east_m + utm_north_m IS NULL), "
            "sum(place_id = '') FROM kept WHERE split = ? GROUP BY role",
            split,
        ).fetchall()
        is_listed = listing.value(
            "SELECT EXISTS (SELECT 1 FROM kept WHERE split = ? AND role = "
            "'query' AND image_id IN (SELECT query FROM relations))",
            split,
        )
        return cls(
            {role: count for role, count, *_ in rows},
            sum(row[2] for row in rows),
            sum(row[3] for row in rows),
            bool(is_listed),
        )

    def choose(self, rule: str, relations: pd.DataFrame | None) -> str:
        """Returns the rule that counts; empty where nothing says what matches.

        Raises:
            ValueError: as `check_rule` does.
        """
        positives.check_rule(rule)
        automatic = positives.automatic_rule(
            is_listed=self.is_listed, is_located=not self.without_position
        )
        if automatic == "place" and self.without_place:
            return ""
        chosen = automatic if rule == "auto" else rule
        lacking = {
            "radius": self.without_position,
            "place": self.without_place,
            "list": int(relations is None),
        }
        if lacking[chosen]:
            raise positives.missing_for(chosen, lacking[chosen])
        return chosen


def _without_near(
    listing: Listing, split: str, radius_m: float
) -> Iterator[tuple[str]]:
    """Queries of a split without a database image within a radius."""
    listing.run(
        "CREATE INDEX IF NOT EXISTS by_east ON kept "
        "(split, role, utm_zone, utm_east_m, utm_north_m)"
    )
    grids = {}
    for zone in listing.column(
        "SELECT DISTINCT utm_zone FROM kept WHERE split = ?", split
    ):
        grids.setdefault(manifest.grid(zone), []).append(zone)
    if len(grids.keys() - {""}) < 2:  # Unknown is the one zone there is.
        grids = {"": sum(grids.values(), [])}
    far = array.array("q")
    for zones in grids.values():
        far.extend(_far(listing, split, zones, radius_m))
    for position in sorted(far):
        yield from listing.run(
            "SELECT image_id FROM kept WHERE position = ?", position
        )


def _far(
    listing: Listing, split: str, zones: list[str], radius_m: float
) -> Iterator[int]:
    """Positions of queries that are far from the database images of zones."""
    wanted = (
        f"FROM kept WHERE split = ? AND utm_zone IN "
        f"({', '.join('?' * len(zones))})"
    )
    queries = listing.run(
        f"SELECT position, utm_east_m, utm_north_m {wanted} AND role = 'query' "
        "ORDER BY utm_east_m",
        split,
        *zones,
    )
    reach_m = radius_m * (1 + _ERROR) + _ERROR_M
    while strip := queries.fetchmany(_STRIP_IMAGES):
        positions, *points = np.array(strip, np.float64).T
        points = np.stack(points, axis=1)
        database = listing.run(
            f"SELECT utm_east_m, utm_north_m {wanted} AND role = 'database' "
            "AND utm_east_m BETWEEN ? AND ?",
            split,
            *zones,
            points[0, 0] - reach_m,
            points[-1, 0] + reach_m,
        )
        is_far = np.ones(len(points), bool)
        while some := database.fetchmany(_STRIP_IMAGES):
            rows = np.flatnonzero(is_far)
            near = _any_near(points[rows], np.array(some), radius_m, reach_m)
            is_far[rows[near]] = False
        yield from positions[is_far].astype(np.int64).tolist()


def _any_near(
    points: np.ndarray, others: np.ndarray, radius_m: float, reach_m: float
) -> np.ndarray:
    """Whether points [B, 2] are within a radius of another one, bool [B]."""
    distances_m, _ = cKDTree(others).query(points, distance_upper_bound=reach_m)
    near = distances_m <= radius_m * (1 - _ERROR) - _ERROR_M
    # By exact distances, where those of the tree could be either.
    close = np.flatnonzero((distances_m <= reach_m) & ~near)
    within = positives.within(points[close], others, radius_m)
    near[close] = [len(rows) > 0 for rows in within]
    return near
