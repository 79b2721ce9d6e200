"""The manifest: a table with one row per image, and which images are positives.

Coordinates are metres of the UTM zone in `utm_zone` ("17T", number and latitude
band; empty where unknown), float64: float32 has steps of half a metre at these
values. Distances between zones mean nothing, so images of different zones are
never positives of each other. What a layout does not tell is NaN, an empty
string or -1. An image's place is given by `place_id`, by its coordinates and a
radius, or by a list of relations: a table of query, database image and what
the one is to the other.

What `complete` makes, as readers do, holds texts other than image_id as
categories in ascending order: a few bytes for each image. Elsewhere texts are
str.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
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
_REQUIRED = ("image_id", "split", "role")
# Rows that become columns, and rows that are written or read, at a time.
_GATHERED_ROWS = 1 << 12
BLOCK_ROWS = 1 << 14
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


class Gatherer:
    """Gathers rows in columns, which take far less memory than the rows do."""

    def __init__(self):
        self._rows = []
        self._blocks = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, row: Mapping[str, object]) -> None:
        """Adds a row: columns of `COLUMNS` -> values.

        Raises:
            ValueError: an unknown column.
        """
        unknown = sorted(row.keys() - COLUMNS.keys())
        if unknown:
            raise _unknown(unknown)
        self._rows.append(row)
        self._count += 1
        if len(self._rows) == _GATHERED_ROWS:
            self._close_block()

    def table(self) -> pd.DataFrame:
        """The columns that any row has, as `complete` takes; ends the work."""
        self._close_block()
        blocks, self._blocks = self._blocks, []
        sizes = [len(next(iter(block.values()))) for block in blocks]
        columns = {}
        for name in COLUMNS:
            if any(name in block for block in blocks):
                arrays = [
                    block.pop(name, None) or _array(name, [None] * size)
                    for block, size in zip(blocks, sizes, strict=True)
                ]
                columns[name] = pa.chunked_array(arrays).unify_dictionaries()
        # A block of memory for each column: none is copied into one of all.
        return pa.table(columns).to_pandas(split_blocks=True)

    def _close_block(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self._blocks.append(
                {
                    name: _array(name, [row.get(name) for row in rows])
                    for name in COLUMNS
                    if any(name in row for row in rows)
                }
            )


def make(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Makes a manifest from rows that hold what is known.

    Args:
        rows: mappings from columns of `COLUMNS` to values; image_id, split and
            role are always given.

    Returns:
        All columns, in the order of `COLUMNS`, in the order of the rows.

    Raises:
        ValueError: an unknown column, or as `complete` does.
    """
    gatherer = Gatherer()
    for row in rows:
        gatherer.append(row)
    return plain(complete(gatherer.table()))


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """Makes a manifest from a table that holds what is known.

    Args:
        table: some columns of `COLUMNS`; image_id, split and role at least.

    Returns:
        All columns, in the order of `COLUMNS`; texts other than image_id are
        categories.

    Raises:
        ValueError: an unknown column, split or role, an image_id that occurs
            twice, or several UTM zones beside coordinates without a zone.
    """
    unknown = sorted(set(table) - set(COLUMNS))
    if unknown:
        raise _unknown(unknown)
    columns = {}
    for name, (dtype, default) in COLUMNS.items():
        if name in table:
            column = table[name].array
        elif dtype == "str":
            codes = np.zeros(len(table), np.int8)
            column = pd.Categorical.from_codes(codes, [default or ""])
        else:
            # One number in memory, which stands for all.
            column = np.broadcast_to(np.array(default, dtype), len(table))
        if dtype == "str" and name != "image_id":
            columns[name] = categories(column)
        else:
            columns[name] = pd.array(column, dtype=dtype, copy=False)
    # Without a copy, which would put numbers of all columns into one block.
    manifest = pd.DataFrame(columns, copy=False)
    _check(manifest)
    return manifest


def categories(texts: Iterable[str]) -> pd.Categorical:
    """Texts as categories in ascending order, without any that is not used.

    Args:
        texts: strings or categories [B].
    """
    found = pd.Categorical(texts)
    order = found.categories.argsort()
    order = order[np.isin(order, np.unique(found.codes))]
    if np.array_equal(order, np.arange(len(found.categories))):
        return found
    rank = np.full(len(found.categories) + 1, -1, found.codes.dtype)
    rank[order] = np.arange(len(order))
    return pd.Categorical.from_codes(rank[found.codes], found.categories[order])


def in_order(image_ids: pd.Series, *keys: Iterable[str]) -> np.ndarray:
    """Positions of images in ascending order of keys, then of image_id.

    Args:
        image_ids: str [B], each once.
        *keys: texts [B] as of `categories`, the foremost first.

    Returns:
        int32 [B].
    """
    order = pc.sort_indices(pa.array(image_ids, pa.large_string()))
    order = order.to_numpy().astype(np.int32)
    for key in reversed(keys):
        codes = categories(key).codes[order]
        order = order[np.argsort(codes, kind="stable")]
    return order


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


def grids(manifest: pd.DataFrame) -> np.ndarray:
    """What the coordinates of each image count from, object [B].

    Coordinates of one grid can be compared. The bands of a zone north of the
    equator share one ("17 north" for 17S and 17T), as do those south of it.
    """
    return manifest["utm_zone"].map(_grid).to_numpy(object)


def has_coordinates(manifest: pd.DataFrame) -> bool:
    """True if every image has finite coordinates."""
    return bool(np.isfinite(_coordinates(manifest)).all())


def has_places(manifest: pd.DataFrame) -> bool:
    """True if every image has a place_id."""
    return bool((manifest["place_id"] != "").all())


def has_truth(
    queries: pd.DataFrame,
    database: pd.DataFrame,
    *,
    relations: pd.DataFrame | None = None,
) -> bool:
    """True if `positives` can tell with some rule, as "auto" chooses."""
    rule = choose_rule(queries, database, relations=relations)
    return rule != "place" or (has_places(queries) and has_places(database))


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
    if rule not in RULES:
        raise ValueError(
            f"Expected rule {', '.join(RULES)}. Received: rule={rule!r}."
        )
    if rule != "auto":
        return rule
    if relations is not None:
        if relations["query"].isin(queries["image_id"]).any():
            return "list"
    located = has_coordinates(queries) and has_coordinates(database)
    return "radius" if located else "place"


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
        raise ValueError(
            "Expected coordinates of every image for positives by radius. "
            f"Received: {_without_coordinates(queries, database)} images "
            "without. Use --positives=place, or a layout with coordinates."
        )
    if other_timestamp:
        times = database["timestamp"].to_numpy(object)
        found = [
            rows[times[rows] != time] if time else rows
            for rows, time in zip(found, queries["timestamp"], strict=True)
        ]
    return found


def plain(manifest: pd.DataFrame) -> pd.DataFrame:
    """The same rows with texts as str in place of categories."""
    texts = manifest.select_dtypes("category")
    return manifest.astype(dict.fromkeys(texts, "str"))


def in_blocks(parts: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The same rows in blocks of 16,384, whatever the parts they come in."""
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
        plain(manifest).to_parquet(temporary, index=False)


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


def _unknown(names: list[str]) -> ValueError:
    return ValueError(
        f"Expected columns of a manifest: {', '.join(COLUMNS)}. Received: "
        f"{names}."
    )


def _array(name: str, values: list[object]) -> pa.Array:
    """Values of a column, with what stands for "unknown" in place of None."""
    dtype, default = COLUMNS[name]
    values = [default if value is None else value for value in values]
    if dtype != "str":
        return pa.array(np.array(values, dtype))
    if name == "image_id":
        return pa.array(values, pa.large_string())
    return pa.array(values, pa.string()).dictionary_encode()


def _check(manifest: pd.DataFrame) -> None:
    for name in _REQUIRED:
        empty = np.flatnonzero(
            (manifest[name].isna() | (manifest[name] == "")).to_numpy()
        )
        if len(empty):
            raise ValueError(
                "Expected image_id, split and role of every image. Received: "
                f"{manifest.iloc[empty[0]].to_dict()} without {[name]}."
            )
    # Digests tell first, since comparing the texts takes much memory.
    twice = ()
    if _may_have_equal(manifest["image_id"]):
        twice = manifest["image_id"][manifest["image_id"].duplicated()].unique()
    if len(twice):
        raise ValueError(
            f"Expected every image_id once. Received: {len(twice)} of them "
            f"more than once, such as {list(twice[:3])}."
        )
    for name, allowed in (("split", SPLITS), ("role", ROLES)):
        other = sorted(set(manifest[name].unique()) - set(allowed))
        if other:
            raise ValueError(
                f"Expected {name} to be one of {', '.join(allowed)}. "
                f"Received: {other[:3]}."
            )
    zones = set(manifest["utm_zone"].unique()) - {""}
    if len(set(map(_grid, zones))) > 1:
        located = np.isfinite(_coordinates(manifest)).all(axis=1)
        unknown = located & (manifest["utm_zone"] == "").to_numpy()
        if unknown.any():
            raise ValueError(
                "Expected the UTM zone of every image with coordinates where "
                f"there are several zones. Received: {sorted(zones)}, and "
                f"{unknown.sum()} images without, such as "
                f"{manifest['image_id'][unknown].iloc[0]!r}."
            )


def _may_have_equal(texts: pd.Series) -> bool:
    """False if all differ for sure: their digests do."""
    digests = np.empty(len(texts), np.uint64)
    for start in range(0, len(texts), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        digests[block] = pd.util.hash_array(texts.iloc[block].to_numpy(object))
    digests.sort()
    return bool((digests[1:] == digests[:-1]).any())


def _grid(zone: str) -> str:
    match = re.fullmatch(r"(\d{1,2})([C-HJ-NP-X])", zone)
    if not match:
        return zone
    return f"{int(match[1])} {'north' if match[2] >= 'N' else 'south'}"


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


def _coordinates(manifest: pd.DataFrame) -> np.ndarray:
    return manifest[["utm_east_m", "utm_north_m"]].to_numpy(np.float64)


def _without_coordinates(*manifests: pd.DataFrame) -> int:
    return sum(
        int((~np.isfinite(_coordinates(manifest)).all(axis=1)).sum())
        for manifest in manifests
    )


def _listed(
    queries: pd.DataFrame,
    database: pd.DataFrame,
    relations: pd.DataFrame | None,
) -> list[np.ndarray]:
    if relations is None:
        raise ValueError(
            "Expected a list of positives. Received: a dataset without. Use "
            "--positives=radius or --positives=place."
        )
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
        raise ValueError(
            "Expected a place_id of every image for positives by place. "
            f"Received: {unknown} images without. Use --positives=radius, or "
            "one folder per place."
        )
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
        within = _within(
            _coordinates(queries)[query_rows],
            _coordinates(database)[database_rows],
            radius_m,
            min_distance_m,
        )
        for row, near in zip(query_rows, within, strict=True):
            found[row] = database_rows[near]
    return found


def _within(
    queries: np.ndarray,
    database: np.ndarray,
    radius_m: float,
    min_distance_m: float,
) -> list[np.ndarray]:
    """Database rows by exact squared distance; the tree only preselects."""
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
