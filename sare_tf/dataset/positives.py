"""Positives: which database images show the place of a query.

A place is given by `place_id`, by coordinates and a radius, or by relations: a
table of query, database image and what the one is to the other. Coordinates of
two UTM grids are never near each other, see `manifest.grid`. Axis letters: Q
queries, N database images.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from sare_tf.dataset.manifest import coordinates, grid, has_coordinates
from sare_tf.dataset.names import RELATIONS, RULES


def make_relations(
    pairs: Iterable[tuple[str, str, str]], manifest: pd.DataFrame
) -> pd.DataFrame:
    """Makes the table of which database images answer which query.

    Args:
        pairs: image_id of a query, image_id of a database image, and one of
            `names.RELATIONS`.
        manifest: the manifest that holds both images.

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


def check_rule(rule: str) -> None:
    """Raises ValueError for an unknown rule."""
    if rule not in RULES:
        raise ValueError(
            f"Expected rule {', '.join(RULES)}. Received: rule={rule!r}."
        )


def choose_rule(
    queries: pd.DataFrame,
    database: pd.DataFrame,
    *,
    rule: str = "auto",
    relations: pd.DataFrame | None = None,
) -> str:
    """Returns the rule that "auto" means for these images, or `rule` itself.

    "auto" means "list" where relations name one of the queries, "radius" where
    every image has coordinates, and "place" otherwise.

    Raises:
        ValueError: an unknown rule.
    """
    check_rule(rule)
    if rule != "auto":
        return rule
    is_listed = relations is not None and (
        relations["query"].isin(queries["image_id"]).any()
    )
    return automatic_rule(
        is_listed=is_listed,
        is_located=has_coordinates(queries) and has_coordinates(database),
    )


def automatic_rule(*, is_listed: bool, is_located: bool) -> str:
    """Returns the rule that "auto" means, see `choose_rule`."""
    if is_listed:
        return "list"
    return "radius" if is_located else "place"


def missing_for(rule: str, count: int) -> ValueError:
    """Makes the error for images that lack what a rule needs.

    Args:
        rule: radius, place or list.
        count: number of images without coordinates or place; not used for a
            list, of which there is none.
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


def find_positives(
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
        rule: "radius", by distance between coordinates, see `within`; "place",
            by equal place_id; "list", by `relations`, all but junk; "auto", see
            `choose_rule`.
        radius_m: of `within`; used by the radius rule only.
        min_distance_m: of `within`; used by the radius rule only.
        relations: the table of `make_relations`, if the dataset has a list.
        other_timestamp: whether positives with the time stamp of the query are
            left out. A query without a time stamp keeps all.

    Returns:
        For each query int64 positions in `database`, ascending.

    Raises:
        ValueError: an unknown rule, or images without the coordinates, places
            or relations that it needs.
    """
    rule = choose_rule(queries, database, rule=rule, relations=relations)
    if rule == "list":
        positives = _listed(queries, database, relations)
    elif rule == "place":
        positives = _of_the_same_place(queries, database)
    elif has_coordinates(queries) and has_coordinates(database):
        positives = within(
            coordinates(queries),
            coordinates(database),
            radius_m,
            min_distance_m=min_distance_m,
            zones=(queries["utm_zone"], database["utm_zone"]),
        )
    else:
        raise missing_for("radius", _without_coordinates(queries, database))
    if other_timestamp:
        times = database["timestamp"].to_numpy(object)
        positives = [
            rows[times[rows] != time] if time else rows
            for rows, time in zip(positives, queries["timestamp"], strict=True)
        ]
    return positives


def within(
    queries: np.ndarray,
    database: np.ndarray,
    radius_m: float,
    *,
    min_distance_m: float = 0.0,
    zones: tuple[Sequence[str], Sequence[str]] | None = None,
) -> list[np.ndarray]:
    """Finds the points within a radius of each query: the radius rule.

    Distances are exact; the tree only preselects.

    Args:
        queries: float [Q, 2], metres east and north.
        database: float [N, 2].
        radius_m: a positive is at most this far away, inclusive.
        min_distance_m: if above 0, a positive is strictly farther than this.
        zones: UTM zones of the Q queries and of the N images, "" where unknown;
            None: all can be compared. Images of different grids are never near,
            see `manifest.grid`. Where there is one grid only, images of an
            unknown zone count to it.

    Returns:
        For each query int64 positions in `database`, ascending.

    Raises:
        ValueError: other shapes, or numbers that are not finite.
    """
    queries, database = (
        np.asarray(points, np.float64) for points in (queries, database)
    )
    for name, points in (("queries", queries), ("database", database)):
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(
                f"Expected {name} [count, 2]: metres east and north. Received: "
                f"{name} {list(points.shape)}."
            )
        if not np.isfinite(points).all():
            count = int((~np.isfinite(points).all(axis=1)).sum())
            raise ValueError(
                f"Expected {name} with finite coordinates. Received: {count} "
                f"of {len(points)} points without. Leave these out."
            )
    positives = [np.zeros(0, np.int64)] * len(queries)
    for query_rows, database_rows in _comparable(queries, database, zones):
        near = _within_grid(
            queries[query_rows],
            database[database_rows],
            radius_m,
            min_distance_m,
        )
        for row, positions in zip(query_rows, near, strict=True):
            positives[row] = database_rows[positions]
    return positives


def _comparable(
    queries: np.ndarray,
    database: np.ndarray,
    zones: tuple[Sequence[str], Sequence[str]] | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields rows of queries and database images of the same grid."""
    grids = []
    for of_points in zones or ((), ()):
        codes, different = pd.factorize(np.asarray(of_points, object))
        grids.append(np.array([*map(grid, different)], object)[codes])
    names = set(grids[0]) | set(grids[1])
    if len(names - {""}) < 2:
        yield np.arange(len(queries)), np.arange(len(database))
        return
    for name in sorted(names):
        yield tuple(np.flatnonzero(of_points == name) for of_points in grids)


def _within_grid(
    queries: np.ndarray,
    database: np.ndarray,
    radius_m: float,
    min_distance_m: float,
) -> list[np.ndarray]:
    if not len(queries) or not len(database):
        return [np.zeros(0, np.int64) for _ in queries]
    candidates = cKDTree(database).query_ball_point(
        queries, radius_m * (1 + 1e-9) + 1e-6, return_sorted=True
    )
    near = []
    for query, rows in zip(queries, candidates, strict=True):
        rows = np.asarray(rows, np.int64)
        squared = ((database[rows] - query) ** 2).sum(axis=1)
        keep = squared <= radius_m**2
        if min_distance_m > 0:
            keep &= squared > min_distance_m**2
        near.append(rows[keep])
    return near


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
        raise missing_for("list", 0)
    answers = relations[relations["relation"] != "junk"]
    positions = pd.Index(database["image_id"]).get_indexer(answers["database"])
    answers = answers.assign(position=positions)[positions >= 0]
    members = {
        query: np.sort(rows.to_numpy(np.int64))
        for query, rows in answers.groupby("query")["position"]
    }
    none = np.zeros(0, np.int64)
    return [members.get(query, none) for query in queries["image_id"]]


def _of_the_same_place(
    queries: pd.DataFrame, database: pd.DataFrame
) -> list[np.ndarray]:
    unknown = sum(
        int((rows["place_id"] == "").sum()) for rows in (queries, database)
    )
    if unknown:
        raise missing_for("place", unknown)
    places = pd.Categorical(database["place_id"])
    order = np.argsort(places.codes, kind="stable")
    # -1 for a place that the database has not: it begins and ends at 0.
    wanted = places.categories.get_indexer(queries["place_id"])
    codes = places.codes[order]
    begins, ends = (
        np.searchsorted(codes, wanted.astype(codes.dtype), side=side)
        for side in ("left", "right")
    )
    return [order[begin:end] for begin, end in zip(begins, ends, strict=True)]
