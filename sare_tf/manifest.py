"""The manifest: a table with one row per image, and which images are positives.

Coordinates are metres in one UTM zone, float64: float32 has steps of half a
metre at these values. What a layout does not tell is NaN, an empty string or
-1. An image's place is given by `place_id`, or by its coordinates and a radius.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

SPLITS = ("train", "val", "test")
ROLES = ("database", "query")

# Column -> type and the value that stands for "unknown".
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
    "width": ("int64", -1),
    "height": ("int64", -1),
}
_REQUIRED = ("image_id", "split", "role")

# Potential positives in training, as arguments of `positives` beside the
# radius. OpenIBL, ibl/utils/data/sampler.py: all within it. NetVLAD, dbBase.m
# and dbTokyoTimeMachine.m: also farther than 1 m, and of another time.
TRAIN_RULES = {
    "openibl": {"min_distance_m": 0.0, "other_timestamp": False},
    "netvlad": {"min_distance_m": 1.0, "other_timestamp": True},
}


def make(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Makes a manifest from rows that hold what is known.

    Args:
        rows: mappings from columns of `COLUMNS` to values; image_id, split and
            role are always given.

    Returns:
        All columns, in the order of `COLUMNS`, in the order of the rows.

    Raises:
        ValueError: an unknown column, split or role, an image_id that occurs
            twice, or coordinates in several UTM zones.
    """
    rows = list(rows)
    unknown = sorted({name for row in rows for name in row} - set(COLUMNS))
    if unknown:
        raise ValueError(
            f"Expected columns of a manifest: {', '.join(COLUMNS)}. "
            f"Received: {unknown}."
        )
    for row in rows:
        missing = [name for name in _REQUIRED if not row.get(name)]
        if missing:
            raise ValueError(
                f"Expected image_id, split and role of every image. Received: "
                f"{dict(row)} without {missing}."
            )
    columns = {}
    for name, (dtype, default) in COLUMNS.items():
        values = [row.get(name, default) for row in rows]
        dtype = object if dtype == "str" else dtype
        columns[name] = pd.Series(values, dtype=dtype)
    manifest = pd.DataFrame(columns)
    _check(manifest)
    return manifest


def has_coordinates(manifest: pd.DataFrame) -> bool:
    """True if every image has finite coordinates."""
    return bool(np.isfinite(_coordinates(manifest)).all())


def positives(
    queries: pd.DataFrame,
    database: pd.DataFrame,
    *,
    rule: str = "auto",
    radius_m: float = 25.0,
    min_distance_m: float = 0.0,
    other_timestamp: bool = False,
) -> list[np.ndarray]:
    """Finds the database images that show the place of each query.

    Args:
        queries: Q rows of a manifest.
        database: N rows of the same manifest.
        rule: "radius", by distance between coordinates; "place", by equal
            place_id; "auto", radius where every image has coordinates, else
            place.
        radius_m: a positive is at most this far away, inclusive.
        min_distance_m: if above 0, a positive is strictly farther than this.
            Both count for the radius rule only.
        other_timestamp: a positive has not the time stamp of the query; counts
            for queries that have one.

    Returns:
        For each query int64 positions in `database`, ascending.

    Raises:
        ValueError: the rule needs coordinates or places that are not there.
    """
    if rule not in ("auto", "radius", "place"):
        raise ValueError(
            f"Expected rule auto, radius or place. Received: rule={rule!r}."
        )
    located = has_coordinates(queries) and has_coordinates(database)
    if rule == "auto":
        rule = "radius" if located else "place"
    if rule == "place":
        found = _same_place_id(queries, database)
    elif located:
        found = _within(
            _coordinates(queries),
            _coordinates(database),
            radius_m,
            min_distance_m,
        )
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


def write(manifest: pd.DataFrame, path: str | Path) -> None:
    """Writes a manifest as parquet, in one piece."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.unfinished")
    manifest.to_parquet(temporary, index=False)
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


def _check(manifest: pd.DataFrame) -> None:
    twice = manifest["image_id"][manifest["image_id"].duplicated()].unique()
    if len(twice):
        raise ValueError(
            f"Expected every image_id once. Received: {len(twice)} of them "
            f"more than once, such as {list(twice[:3])}."
        )
    for name, allowed in (("split", SPLITS), ("role", ROLES)):
        other = sorted(set(manifest[name]) - set(allowed))
        if other:
            raise ValueError(
                f"Expected {name} to be one of {', '.join(allowed)}. "
                f"Received: {other[:3]}."
            )
    zones = sorted(set(manifest["utm_zone"]) - {""})
    if len(zones) > 1:
        counts = manifest["utm_zone"].value_counts()
        raise ValueError(
            "Expected coordinates in one UTM zone: distances between zones "
            "mean nothing. Received: "
            + ", ".join(f"{zone} ({counts[zone]} images)" for zone in zones)
            + ". Re-project them to one zone, or build one folder per zone."
        )


def _coordinates(manifest: pd.DataFrame) -> np.ndarray:
    return manifest[["utm_east_m", "utm_north_m"]].to_numpy(np.float64)


def _without_coordinates(*manifests: pd.DataFrame) -> int:
    return sum(
        int((~np.isfinite(_coordinates(manifest)).all(axis=1)).sum())
        for manifest in manifests
    )


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
    places = database["place_id"].to_numpy(object)
    members = {
        place: np.sort(rows).astype(np.int64)
        for place, rows in pd.Series(range(len(places)))
        .groupby(places)
        .indices.items()
    }
    none = np.zeros(0, np.int64)
    return [members.get(place, none) for place in queries["place_id"]]


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
