"""Splits and roles where the layout has none: by place, at random, by seed."""

import array
import itertools
import operator
import sys
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from sare_tf.dataset import manifest
from sare_tf.dataset.readers import reading, utm
from sare_tf.dataset.sqlite_manifest import Listing

# Two splits keep this far apart: twice the usual radius of a positive, so that
# no database image answers queries of both.
APART_M = 50.0
# Images linked by steps of APART_M form an area; a larger one is cut.
_AREA_M = 500.0
# Pairs of images that are looked at together.
_LINKED_PAIRS = 1 << 18


def split_places(
    places: Sequence[str], *, fractions: Sequence[float], seed: int
) -> dict[str, str]:
    """Assigns places to train, val and test at random.

    Args:
        places: their names, sorted.
        fractions: shares of train, val and test; their sum is 1.
        seed: the same seed gives the same split.

    Returns:
        place -> split. A split with a share above 0 gets at least one place.

    Raises:
        ValueError: fractions that make no split, or fewer places than splits.
    """
    fractions = np.asarray(fractions, np.float64)
    if (
        fractions.shape != (len(manifest.SPLITS),)
        or (fractions < 0).any()
        or abs(fractions.sum() - 1) > 1e-6
    ):
        raise ValueError(
            "Expected three shares from 0 to 1, of train, val and test, with "
            f"sum 1. Received: split_fractions={fractions.tolist()}."
        )
    wanted = fractions > 0
    if len(places) < wanted.sum():
        raise ValueError(
            f"Expected at least {wanted.sum()} places, one for each split. "
            f"Received: {len(places)}. Add places, or set a share of "
            "--split_fractions to 0."
        )
    counts = np.maximum(np.floor(fractions * len(places)), wanted).astype(int)
    # What rounding leaves goes to the largest share, or is taken from there.
    counts[np.argmax(fractions)] += len(places) - counts.sum()
    order = np.random.default_rng(seed).permutation(len(places))
    splits = np.repeat(manifest.SPLITS, counts)
    return {
        places[position]: str(split)
        for position, split in zip(order, splits, strict=True)
    }


def split_by(
    images: Listing,
    place: str,
    *,
    fractions: Sequence[float],
    seed: int,
    where: str = "true",
) -> None:
    """Gives images a split by `split_places`.

    Args:
        images: nothing is done where there are none.
        place: of an image, in SQL.
        fractions: of `split_places`; errors as there.
        seed: of `split_places`.
        where: which images, in SQL.
    """
    places = images.column(
        f"SELECT DISTINCT {place} AS place FROM images WHERE {where} "
        "ORDER BY place"
    )
    if places:
        split_of = split_places(places, fractions=fractions, seed=seed)
        images.define("split_of", lambda place: split_of[place])
        images.run(f"UPDATE images SET split = split_of({place}) WHERE {where}")


def choose_roles(
    images: Listing,
    place: str,
    *,
    fraction: float,
    seed: int,
    where: str = "true",
) -> None:
    """Makes a share of each place's images queries, at random.

    Args:
        images: those of `where` are given a role.
        place: of an image, in SQL.
        fraction: share of queries. A place of two or more images has at least
            one query and one database image; a place of one has no query.
        seed: the same seed gives the same choice.
        where: which images, in SQL.

    Raises:
        ValueError: a fraction that is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(
            "Expected a share above 0 and below 1. Received: "
            f"query_fraction={fraction}."
        )
    rng = np.random.default_rng(seed)
    rows = images.run(
        f"SELECT {place} AS place, rowid FROM images WHERE {where} "
        "ORDER BY place, image_id"
    )
    chosen = array.array("q")
    for _, members in itertools.groupby(rows, operator.itemgetter(0)):
        members = [row for _, row in members]
        count = max(round(fraction * len(members)), 1)
        queries = rng.permutation(len(members))
        for position in queries[: min(count, len(members) - 1)]:
            chosen.append(members[position])
    images.run(f"UPDATE images SET role = 'database' WHERE {where}")
    images.run_many(
        "UPDATE images SET role = 'query' WHERE rowid = ?",
        ((row,) for row in chosen),
    )


def find_areas(
    east_m: np.ndarray, north_m: np.ndarray, zones: Sequence[str]
) -> list[str]:
    """Names the area of each image, to split by.

    Images linked by steps of at most 50 m are one area. One that spans more
    than 500 m, as whole streets do, is cut into squares of 500 m.

    Args:
        east_m: [B].
        north_m: [B].
        zones: B zones; images of different ones are never near.
    """
    names = np.empty(len(east_m), object)
    zones = np.asarray(zones, object)
    for zone in sorted(set(zones)):
        rows = np.flatnonzero(zones == zone)
        points = np.stack([east_m[rows], north_m[rows]], axis=1)
        for number, inside in enumerate(utm.members(_linked(points))):
            squares = np.zeros((len(inside), 2))
            if np.ptp(points[inside], axis=0).max() > _AREA_M:
                squares = points[inside] // _AREA_M
            for row, (right, up) in zip(rows[inside], squares, strict=True):
                name = f"{zone} {number} {right:.0f} {up:.0f}"
                # One text in memory for all of an area.
                names[row] = sys.intern(name)
    return names.tolist()


def _linked(points: np.ndarray) -> np.ndarray:
    """Sets of points that steps of at most 50 m link.

    Args:
        points: [B, 2], in metres.

    Returns:
        int64 [B]: numbers from 0, in the order of the first of each.
    """
    tree = cKDTree(points)
    label = np.arange(len(points))
    counts = tree.query_ball_point(points, APART_M, return_length=True)
    start = 0
    while start < len(points):
        # So many points that their pairs have room.
        sums = np.cumsum(counts[start : start + _LINKED_PAIRS])
        stop = start + max(int(np.searchsorted(sums, _LINKED_PAIRS)), 1)
        pairs = cKDTree(points[start:stop]).sparse_distance_matrix(
            tree, APART_M, output_type="ndarray"
        )
        links = label[pairs["i"] + start], label[pairs["j"]]
        graph = coo_array(
            (np.ones(len(pairs), bool), links), shape=2 * (len(points),)
        )
        label = connected_components(graph, directed=False)[1][label]
        start = stop
    _, first, label = np.unique(label, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[label]


def too_near(
    east_m: np.ndarray,
    north_m: np.ndarray,
    zones: Sequence[str],
    splits: Sequence[str],
) -> np.ndarray:
    """Finds images within 50 m of another split, where an area was cut.

    The larger use gives way: train to val and test, val to test.

    Args:
        east_m: [B].
        north_m: [B].
        zones: B zones.
        splits: B splits.

    Returns:
        bool [B]: the images to leave out.
    """
    zones, splits = np.array(zones, object), np.array(splits, object)
    points = np.stack([east_m, north_m], axis=1)
    near = np.zeros(len(points), bool)
    for zone in set(zones):
        for position, split in enumerate(manifest.SPLITS):
            rows = np.flatnonzero((zones == zone) & (splits == split))
            later = np.isin(splits, manifest.SPLITS[position + 1 :])
            others = points[(zones == zone) & later]
            if len(rows) and len(others):
                distance, _ = cKDTree(others).query(points[rows])
                near[rows] = distance <= APART_M
    return near


def complete(
    found: reading.Collector,
    *,
    split_fractions: Sequence[float] | None,
    query_fraction: float | None,
    seed: int,
) -> None:
    """Gives images their split and role, where the layout has none.

    By area where every image has coordinates, so that splits are 50 m apart,
    and an image that is not is refused; by place_id elsewhere.

    Args:
        found: its listing is completed.
        split_fractions: of `split_places`; None: the rows have splits.
        query_fraction: of `choose_roles`; None: the rows have roles.
        seed: of both.

    Raises:
        ValueError: rows with neither all coordinates nor all places, or as
            `split_places` and `choose_roles` do.
    """
    images = found.listing
    if split_fractions is None and query_fraction is None:
        return
    without_place, without_position, count = images.run(
        "SELECT sum(place_id = ''), sum(utm_east_m IS NULL), count(*) "
        "FROM images"
    ).fetchone()
    if not count:
        return
    if without_place and without_position:
        raise ValueError(
            "Expected a position of every image, or a place of every image, to "
            f"choose splits and queries by. Received: {count} images, "
            "some with the one and some with the other. Add what is missing, "
            "or columns split and role."
        )
    images.run("UPDATE images SET area = place_id")
    if not without_position:
        rows, east, north, zones = _positions(images)
        areas = find_areas(east, north, zones)
        images.run_many(
            "UPDATE images SET area = ? WHERE rowid = ?",
            zip(areas, rows.tolist(), strict=True),
        )
    if split_fractions is not None:
        split_by(images, "area", fractions=split_fractions, seed=seed)
    if query_fraction is not None:
        # A place that reaches into two splits is one in each.
        choose_roles(
            images,
            "split || ' ' || CASE WHEN place_id = '' THEN area ELSE place_id "
            "END",
            fraction=query_fraction,
            seed=seed,
        )
    if split_fractions is not None and not without_position:
        splits = images.column("SELECT split FROM images ORDER BY rowid")
        near = too_near(east, north, zones, splits)
        found.drop(
            rows[near], f"within {APART_M:g} m of an image of another split"
        )


def _positions(images: Listing) -> tuple[np.ndarray, ...]:
    """Row int64 [B], east and north [B], and zone, object [B], of each."""
    select = "SELECT {} FROM images ORDER BY rowid"
    numbers = np.fromiter(
        images.run(select.format("rowid, utm_east_m, utm_north_m")),
        np.dtype((np.float64, 3)),
    )
    zones = np.fromiter(
        (sys.intern(zone) for (zone,) in images.run(select.format("utm_zone"))),
        object,
    )
    rows, east, north = numbers.T
    return rows.astype(np.int64), east, north, zones
