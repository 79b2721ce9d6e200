"""Splits and roles where the layout has none: by place, at random, by seed."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from sare_tf import manifest
from sare_tf.readers import coordinates, reading

# Two splits keep this far apart: twice the usual radius of a positive, so that
# no database image answers queries of both.
APART_M = 50.0
# Images linked by steps of APART_M form an area; a larger one is cut.
_AREA_M = 500.0


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


def choose_roles(
    image_ids: pd.Series, places: Sequence[str], *, fraction: float, seed: int
) -> np.ndarray:
    """Makes a share of each place's images queries, at random.

    Args:
        image_ids: str [B], each once.
        places: B names of places.
        fraction: share of queries. A place of two or more images has at least
            one query and one database image; a place of one has no query.
        seed: the same seed gives the same choice.

    Returns:
        The roles, object [B].

    Raises:
        ValueError: a fraction that is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(
            "Expected a share above 0 and below 1. Received: "
            f"query_fraction={fraction}."
        )
    places = manifest.categories(places)
    order = manifest.in_order(image_ids, places)
    rng = np.random.default_rng(seed)
    roles = np.full(len(order), "database", object)
    codes = places.codes[order]
    for images in np.split(order, np.flatnonzero(np.diff(codes)) + 1):
        count = max(round(fraction * len(images)), 1)
        queries = rng.permutation(len(images))[: min(count, len(images) - 1)]
        roles[images[queries]] = "query"
    return roles


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
    for zone in sorted(set(zones)):
        rows = np.flatnonzero(np.array(zones, object) == zone)
        points = np.stack([east_m[rows], north_m[rows]], axis=1)
        pairs = cKDTree(points).query_pairs(APART_M, output_type="ndarray")
        graph = coo_array(
            (np.ones(len(pairs)), pairs.T), shape=(len(rows), len(rows))
        )
        _, area = connected_components(graph, directed=False)
        for number, inside in enumerate(coordinates.members(area)):
            squares = np.zeros((len(inside), 2))
            if np.ptp(points[inside], axis=0).max() > _AREA_M:
                squares = points[inside] // _AREA_M
            for row, (right, up) in zip(rows[inside], squares, strict=True):
                names[row] = f"{zone} {number} {right:.0f} {up:.0f}"
    return names.tolist()


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
        found: its table is completed.
        split_fractions: of `split_places`; None: the rows have splits.
        query_fraction: of `choose_roles`; None: the rows have roles.
        seed: of both.

    Raises:
        ValueError: rows with neither all coordinates nor all places, or as
            `split_places` and `choose_roles` do.
    """
    table = found.table
    if table.empty or (split_fractions is None and query_fraction is None):
        return
    located = "utm_east_m" in table and np.isfinite(table["utm_east_m"]).all()
    if not located and not (
        "place_id" in table and (table["place_id"] != "").all()
    ):
        raise ValueError(
            "Expected a position of every image, or a place of every image, to "
            f"choose splits and queries by. Received: {len(table)} images, "
            "some with the one and some with the other. Add what is missing, "
            "or columns split and role."
        )
    if located:
        east, north = (
            table[name].to_numpy() for name in ("utm_east_m", "utm_north_m")
        )
        zones = table["utm_zone"].to_numpy(object)
        groups = manifest.categories(find_areas(east, north, zones))
    else:
        groups = manifest.categories(table["place_id"])
    if split_fractions is not None:
        split_of = split_places(
            list(groups.categories), fractions=split_fractions, seed=seed
        )
        table["split"] = manifest.categories(groups.map(split_of))
    if query_fraction is not None:
        named = groups
        if "place_id" in table:
            places = table["place_id"].to_numpy(object)
            named = np.where(places != "", places, groups)
        places = [
            f"{split} {place}"
            for split, place in zip(table["split"], named, strict=True)
        ]
        table["role"] = manifest.categories(
            choose_roles(
                table["image_id"], places, fraction=query_fraction, seed=seed
            )
        )
    if split_fractions is not None and located:
        near = too_near(east, north, zones, table["split"].to_numpy(object))
        found.drop(near, f"within {APART_M:g} m of an image of another split")
