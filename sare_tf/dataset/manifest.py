"""The manifest: a table with one row per image, and which images are positives.

Coordinates are metres of the UTM zone in `utm_zone` ("17T", number and latitude
band; empty where unknown), float64: float32 has steps of half a metre at these
values. Distances between zones mean nothing, so images of different zones are
never positives of each other. What a layout does not tell is NaN, an empty
string or -1. An image's place is given by `place_id`, by its coordinates and a
radius, or by a list of relations: a table of query, database image and what
the one is to the other.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.spatial import cKDTree

SPLITS = ("train", "val", "test")
ROLES = ("database", "query")

# Column -> type and the value that stands for "unknown". `subtasks` are names
# with spaces between: those of Mapillary SLS that an image is part of.
COLUMNS = {
    "image_id": ("str", None),
    "split": ("str", None),
    "role": ("str", None),
    "place_id": ("str", ""),
    "utm_east_m": ("float64", np.nan),
    "utm_north_m": ("float64", np.nan),
    "utm_zone": ("str", ""),
    "heading_deg": ("float64", np.nan),
    "timestamp": ("str", ""),
    "panorama_id": ("str", ""),
    "sequence_id": ("str", ""),
    "frame": ("int64", -1),
    "condition": ("str", ""),
    "subtasks": ("str", ""),
    "width": ("int64", -1),
    "height": ("int64", -1),
}
# Rows that are written or read at a time.
BLOCK_ROWS = 1 << 12
# A listed database image is a positive, or junk: neither right nor wrong.
# Easy and hard positives are what the Revisited Oxford and Paris tell apart.
RELATIONS = ("positive", "easy", "hard", "junk")
RULES = ("auto", "radius", "place", "list")

# Potential positives in training, as arguments of `positives` beside the
# radius. OpenIBL, ibl/utils/data/sampler.py: all within it. NetVLAD, dbBase.m
# and dbTokyoTimeMachine.m: also farther than 1 m, and of another time.
TRAIN_RULES = {
    "openibl": {"min_distance_m": 0.0, "other_timestamp": False},
    "netvlad": {"min_distance_m": 1.0, "other_timestamp": True},
}


def make_relations(
    pairs: Iterable[tuple[str, str, str]], manifest: pd.DataFrame
) -> pd.DataFrame:
    """Makes the table of which database images answer which query.

    Args:
        pairs: image_id of a query, image_id of a database image, and one of
            `RELATIONS`.
        manifest: the manifest that both are in.

    Returns:
        Columns query, database and relation, in the order of the pairs.

    Raises:
        ValueError: an unknown relation, a pair twice, or an image that is not
            a query, or not a database image, of the manifest.
    """
    relations = pd.DataFrame(
        list(pairs), columns=["query", "database", "relation"], dtype=object
    )
    other = sorted(set(relations["relation"]) - set(RELATIONS))
    if other:
        raise ValueError(
            f"Expected relations {', '.join(RELATIONS)}. Received: {other[:3]}."
        )
    for role in ("query", "database"):
        known = manifest["image_id"][manifest["role"] == role]
        absent = relations[role][~relations[role].isin(known)]
        if len(absent):
            raise ValueError(
                f"Expected relations of images in the manifest. Received: "
                f"{role}={absent.iloc[0]!r}, which is no {role} image of it."
            )
    twice = relations.duplicated(["query", "database"])
    if twice.any():
        query, database, _ = relations[twice].iloc[0]
        raise ValueError(
            "Expected every pair of query and database image once. Received: "
            f"query={query!r}, database={database!r} more than once."
        )
    return relations


def grid(zone: str) -> str:
    """What the coordinates of a UTM zone count from.

    Those of one grid can be compared. The bands of a zone north of the equator
    share one ("17 north" for 17S and 17T), as do those south of it. A zone that
    is none is a grid of its own.
    """
    match = re.fullmatch(r"(\d{1,2})([C-HJ-NP-X])", zone)
    if not match:
        return zone
    return f"{int(match[1])} {'north' if match[2] >= 'N' else 'south'}"


def grids(manifest: pd.DataFrame) -> np.ndarray:
    """The grid of each image, object [B]."""
    return manifest["utm_zone"].map(grid).to_numpy(object)


def coordinates(manifest: pd.DataFrame) -> np.ndarray:
    """Returns metres east and north, float64 [N, 2]; NaN where unknown."""
    return manifest[["utm_east_m", "utm_north_m"]].to_numpy(np.float64)


def has_coordinates(manifest: pd.DataFrame) -> bool:
    """True if every image has finite coordinates."""
    return bool(np.isfinite(coordinates(manifest)).all())


def has_places(manifest: pd.DataFrame) -> bool:
    """True if every image has a place_id."""
    return bool((manifest["place_id"] != "").all())


def choose_rule(
    queries: pd.DataFrame,
    database: pd.DataFrame,
    *,
    rule: str = "auto",
    relations: pd.DataFrame | None = None,
) -> str:
    """What `auto` stands for with these images; other rules as they are.

    "list" where relations name one of the queries, "radius" where every image
    has coordinates, else "place".

    Raises:
        ValueError: an unknown rule.
    """
    check_rule(rule)
    if rule != "auto":
        return rule
    is_listed = relations is not None and (
        relations["query"].isin(queries["image_id"]).any()
    )
    return auto_rule(
        is_listed=is_listed,
        is_located=has_coordinates(queries) and has_coordinates(database),
    )


def auto_rule(*, is_listed: bool, is_located: bool) -> str:
    """What `auto` stands for, see `choose_rule`."""
    if is_listed:
        return "list"
    return "radius" if is_located else "place"


def check_rule(rule: str) -> None:
    """Raises ValueError for an unknown rule."""
    if rule not in RULES:
        raise ValueError(
            f"Expected rule {', '.join(RULES)}. Received: rule={rule!r}."
        )


def lacking(rule: str, count: int) -> ValueError:
    """Says that images have not what a rule of `positives` goes by.

    Args:
        rule: radius, place or list.
        count: the images without; of a list, there is none at all.
    """
    return ValueError(
        {
            "radius": "Expected coordinates of every image for positives by "
            f"radius. Received: {count} images without. Use "
            "--positives=place, or a layout with coordinates.",
            "place": "Expected a place_id of every image for positives by "
            f"place. Received: {count} images without. Use "
            "--positives=radius, or one folder per place.",
            "list": "Expected a list of positives. Received: a dataset "
            "without. Use --positives=radius or --positives=place.",
        }[rule]
    )


def positives(
    queries: pd.DataFrame,
    database: pd.DataFrame,
    *,
    rule: str = "auto",
    radius_m: float = 25.0,
    min_distance_m: float = 0.0,
    relations: pd.DataFrame | None = None,
    other_timestamp: bool = False,
) -> list[np.ndarray]:
    """Finds the database images that show the place of each query.

    Args:
        queries: Q rows of a manifest.
        database: N rows of the same manifest.
        rule: "radius", by distance between coordinates of one UTM zone;
            "place", by equal place_id; "list", by `relations`, all but junk;
            "auto", see `choose_rule`.
        radius_m: a positive is at most this far away, inclusive.
        min_distance_m: if above 0, a positive is strictly farther than this.
            Both count for the radius rule only.
        relations: what `make_relations` made, where the dataset has a list.
        other_timestamp: a positive has not the time stamp of the query; counts
            for queries that have one.

    Returns:
        For each query int64 positions in `database`, ascending.

    Raises:
        ValueError: the rule needs coordinates, places or a list that are not
            there.
    """
    rule = choose_rule(queries, database, rule=rule, relations=relations)
    if rule == "list":
        found = _listed(queries, database, relations)
    elif rule == "place":
        found = _same_place_id(queries, database)
    elif has_coordinates(queries) and has_coordinates(database):
        found = _near(queries, database, radius_m, min_distance_m)
    else:
        raise lacking("radius", _without_coordinates(queries, database))
    if other_timestamp:
        times = database["timestamp"].to_numpy(object)
        found = [
            rows[times[rows] != time] if time else rows
            for rows, time in zip(found, queries["timestamp"], strict=True)
        ]
    return found


def in_blocks(parts: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The same rows in blocks of `BLOCK_ROWS`, whatever the parts were."""
    waiting, count = [], 0
    for part in parts:
        while len(part):
            taken = part.iloc[: BLOCK_ROWS - count]
            part = part.iloc[len(taken) :]
            waiting.append(taken)
            count += len(taken)
            if count == BLOCK_ROWS:
                yield pd.concat(waiting, ignore_index=True)
                waiting, count = [], 0
    if waiting:
        yield pd.concat(waiting, ignore_index=True)


def write(manifest: pd.DataFrame, path: str | Path) -> None:
    """Writes a manifest as parquet, in one piece."""
    with _in_one_piece(path) as temporary:
        manifest.to_parquet(temporary, index=False)


def write_parts(parts: Iterable[pd.DataFrame], path: str | Path) -> None:
    """Writes a manifest that comes in parts, of which one or more has rows.

    The file does not depend on what is in which part.
    """
    with _in_one_piece(path) as temporary, contextlib.ExitStack() as stack:
        writer = None
        for block in in_blocks(parts):
            block = pa.Table.from_pandas(block, preserve_index=False)
            writer = writer or stack.enter_context(
                pq.ParquetWriter(temporary, block.schema)
            )
            writer.write_table(block)


@contextlib.contextmanager
def _in_one_piece(path: str | Path) -> Iterator[Path]:
    path = Path(path)
    temporary = path.with_name(f".{path.name}.unfinished")
    yield temporary
    os.replace(temporary, path)


def read(path: str | Path) -> pd.DataFrame:
    """Reads what `write` wrote.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is damaged, or is no manifest.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a manifest. Received: path={str(path)!r}, which does "
            "not exist."
        )
    try:
        manifest = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected a manifest. Received: path={str(path)!r}, which cannot "
            f"be read ({error})."
        ) from error
    missing = [name for name in COLUMNS if name not in manifest]
    if missing:
        raise ValueError(
            f"Expected a manifest. Received: path={str(path)!r} without the "
            f"columns {missing}."
        )
    return manifest


def read_parts(
    path: str | Path, sizes: Iterable[int]
) -> Iterator[pd.DataFrame]:
    """Reads what `write` wrote, in parts of so many rows.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is damaged, or has fewer rows.
    """
    path = Path(path)
    try:
        with pq.ParquetFile(path) as file:
            batches = file.iter_batches(BLOCK_ROWS)
            waiting = file.schema_arrow.empty_table()
            for size in sizes:
                while len(waiting) < size:
                    batch = pa.Table.from_batches([next(batches)])
                    waiting = pa.concat_tables([waiting, batch])
                yield waiting[:size].to_pandas()
                waiting = waiting[size:]
    except FileNotFoundError:
        raise
    except (OSError, StopIteration) as error:
        raise ValueError(
            f"Expected a manifest. Received: path={str(path)!r}, which cannot "
            f"be read ({str(error) or 'too few rows'})."
        ) from error


def _by_zone(
    queries: pd.DataFrame, database: pd.DataFrame
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions of queries and database images that can be compared."""
    both = grids(queries), grids(database)
    names = set(both[0]) | set(both[1])
    if len(names - {""}) < 2:  # Unknown is the one zone there is.
        yield np.arange(len(queries)), np.arange(len(database))
        return
    for name in sorted(names):
        yield tuple(np.flatnonzero(some == name) for some in both)


def _without_coordinates(*manifests: pd.DataFrame) -> int:
    return sum(
        int((~np.isfinite(coordinates(manifest)).all(axis=1)).sum())
        for manifest in manifests
    )


def _listed(
    queries: pd.DataFrame,
    database: pd.DataFrame,
    relations: pd.DataFrame | None,
) -> list[np.ndarray]:
    if relations is None:
        raise lacking("list", 0)
    answers = relations[relations["relation"] != "junk"]
    positions = pd.Index(database["image_id"]).get_indexer(answers["database"])
    answers = answers.assign(position=positions)[positions >= 0]
    members = {
        query: np.sort(some.to_numpy(np.int64))
        for query, some in answers.groupby("query")["position"]
    }
    none = np.zeros(0, np.int64)
    return [members.get(query, none) for query in queries["image_id"]]


def _same_place_id(
    queries: pd.DataFrame, database: pd.DataFrame
) -> list[np.ndarray]:
    unknown = sum(
        int((rows["place_id"] == "").sum()) for rows in (queries, database)
    )
    if unknown:
        raise lacking("place", unknown)
    places = pd.Categorical(database["place_id"])
    order = np.argsort(places.codes, kind="stable")
    # -1 for a place that the database has not: there, it begins and ends at 0.
    wanted = places.categories.get_indexer(queries["place_id"])
    codes = places.codes[order]
    begins, ends = (
        np.searchsorted(codes, wanted.astype(codes.dtype), side=side)
        for side in ("left", "right")
    )
    return [order[begin:end] for begin, end in zip(begins, ends, strict=True)]


def _near(
    queries: pd.DataFrame,
    database: pd.DataFrame,
    radius_m: float,
    min_distance_m: float,
) -> list[np.ndarray]:
    found = [np.zeros(0, np.int64)] * len(queries)
    for query_rows, database_rows in _by_zone(queries, database):
        found_near = within(
            coordinates(queries)[query_rows],
            coordinates(database)[database_rows],
            radius_m,
            min_distance_m=min_distance_m,
        )
        for row, near in zip(query_rows, found_near, strict=True):
            found[row] = database_rows[near]
    return found


def within(
    queries: np.ndarray,
    database: np.ndarray,
    radius_m: float,
    *,
    min_distance_m: float = 0.0,
) -> list[np.ndarray]:
    """Finds points near others, as `positives` counts by radius.

    By exact squared distance; the tree only preselects.

    Args:
        queries: [Q, 2], in metres.
        database: [N, 2].
        radius_m: as of `positives`.
        min_distance_m: as of `positives`.

    Returns:
        For each query int64 positions in `database`, ascending.
    """
    if not len(queries) or not len(database):
        return [np.zeros(0, np.int64) for _ in queries]
    candidates = cKDTree(database).query_ball_point(
        queries, radius_m * (1 + 1e-9) + 1e-6, return_sorted=True
    )
    found = []
    for query, rows in zip(queries, candidates, strict=True):
        rows = np.asarray(rows, np.int64)
        squared = ((database[rows] - query) ** 2).sum(axis=1)
        keep = squared <= radius_m**2
        if min_distance_m > 0:
            keep &= squared > min_distance_m**2
        found.append(rows[keep])
    return found
