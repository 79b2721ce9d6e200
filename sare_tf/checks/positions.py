"""What is found in positions: none, no zone, impossible, near other splits."""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from sare_tf.checks.finding import (
    ERROR,
    NOTE,
    WARNING,
    Finding,
    count,
    if_any,
    named,
    points_of,
)
from sare_tf.dataset import manifest
from sare_tf.dataset.readers import utm

# Images in touching cells of this size are one region.
_REGION_M = 10_000.0
# Regions of at most this share of the images, or of one image, lie apart; if
# more than `_SCATTERED` of all images do, the dataset is like that.
_APART, _SCATTERED = 0.001, 0.01
# The positions of panoramas are shared by their 24 cut-outs (Pittsburgh).
_CUTOUTS = 24
# A position that more than this share of the images has may be a default.
_SAME_SHARE = 0.05
# As far from the middle of its zone as `coordinates.project` goes, about.
_ZONE_EAST_M, _ZONE_NORTH_M = 2_300_000.0, 10_000_000.0
# Latitude bands of UTM, 8 degrees each from 80 south, and how far images of a
# region may be from the middle of theirs.
_BANDS, _BAND_DEG = "CDEFGHJKLMNPQRSTUVWX", 24.0
# Cells, in degrees, by which swapped latitudes and longitudes are found.
_SWAP_CELL_DEG = 0.1
_SOUTHERNMOST_DEG = -60.0


def overlap(table: pd.DataFrame, *, radius_m: float) -> list[Finding]:
    """Images of val and test within the radius of one of train."""
    points, grids = points_of(table), manifest.grids(table)
    located = np.isfinite(points).all(axis=1)
    found = []
    for split in manifest.SPLITS[1:]:
        images = []
        for grid in sorted(set(grids[located])):
            here = located & (grids == grid)
            trained = np.flatnonzero(here & (table["split"] == "train"))
            judged = np.flatnonzero(here & (table["split"] == split))
            if not len(trained) or not len(judged):
                continue
            metres, nearest = cKDTree(points[trained]).query(points[judged])
            images += [
                (
                    table["image_id"].iat[judged[at]],
                    f"{split}, {metres[at]:.1f} m from "
                    + table["image_id"].iat[trained[nearest[at]]],
                )
                for at in np.flatnonzero(metres <= radius_m)
            ]
        total = int((table["split"] == split).sum())
        found += if_any(
            images,
            severity=WARNING,
            name="splits_overlap",
            message=f"{len(images):,} of {total:,} images of the split {split} "
            f"lie within {radius_m:g} m of one of train.",
            action="Places that were trained on are recognised better: move "
            "the images to one split, or say so beside the figures.",
        )
    return found


def zones(table: pd.DataFrame) -> list[Finding]:
    """Images without a position or zone, and those of several zones."""
    points = points_of(table)
    located = np.isfinite(points).all(axis=1)
    zone = table["utm_zone"].to_numpy(object)
    known = np.array(
        [bool(re.fullmatch(r"\d{1,2}[C-HJ-NP-X]", name)) for name in zone], bool
    )
    found = []
    if located.any():
        found += if_any(
            named(table, ~located, table["split"].iat.__getitem__),
            severity=WARNING,
            name="no_position",
            message=f"{count((~located).sum(), 'image')} of {len(table):,} "
            "without a position, though others have one.",
            action="Add their positions, or leave them out: positives by "
            "radius need one of every image.",
        )
    outside = located & known
    outside &= (
        (np.abs(points[:, 0] - 500_000) > _ZONE_EAST_M)
        | (points[:, 1] < 0)
        | (points[:, 1] > _ZONE_NORTH_M)
        | _off_band(zone, _degrees(table, points)[:, 0])
    )
    found += if_any(
        named(table, outside, lambda row: _metres(points[row])),
        severity=ERROR,
        name="outside_zone",
        message=f"{count(outside.sum(), 'image')} outside of the UTM zone "
        "named.",
        action="Check east and north (swapped?), the zone, and that they are "
        "metres and not degrees.",
    )
    if located.any() and not known[located].any():
        found.append(
            Finding(
                severity=NOTE,
                name="no_zone",
                message="No image has a UTM zone: positions are taken as "
                "metres of one plane.",
                action="Nothing to do where they are, or are made up.",
                count=int(located.sum()),
            )
        )
    elif (located & ~known).any():
        found += if_any(
            named(table, located & ~known, lambda row: f"zone {zone[row]!r}"),
            severity=ERROR,
            name="no_zone",
            message=f"{count((located & ~known).sum(), 'image')} with a "
            "position in no UTM zone, though others have one.",
            action="Give them a zone with its latitude band, such as 17T.",
        )
    names, counts = np.unique(zone[known].astype(str), return_counts=True)
    if len(names) > 1:
        found.append(
            Finding(
                severity=NOTE,
                name="several_zones",
                message=f"{len(names)} UTM zones: "
                + _some(
                    f"{n} ({c:,})" for n, c in zip(names, counts, strict=True)
                )
                + ". Images of different zones are never positives.",
                action="Nothing to do where they are different cities; give "
                "one --utm_zone where a city is cut.",
                count=len(names),
            )
        )
    return found


def positions(table: pd.DataFrame) -> list[Finding]:
    """Positions that are hardly those of photographs."""
    points = points_of(table)
    located = np.isfinite(points).all(axis=1)
    if not located.any():
        return []
    found = []

    def metres(row: int) -> str:
        return _metres(points[row])

    def latitude(row: int) -> str:
        return (
            f"latitude {degrees[row, 0]:.5f}, longitude {degrees[row, 1]:.5f}"
        )

    zero = located & (points == 0).all(axis=1)
    if np.median(np.abs(points[located]).max(axis=1)) > 100_000:
        found += if_any(
            named(table, zero, metres),
            severity=ERROR,
            name="position_zero",
            message=f"{count(zero.sum(), 'image')} at the position 0, 0.",
            action="That is no position: correct them or leave them out.",
        )
    _, inverse, counts = np.unique(
        points[located], axis=0, return_inverse=True, return_counts=True
    )
    many = counts > max(_CUTOUTS, _SAME_SHARE * located.sum())
    same = np.zeros(len(table), bool)
    same[located] = many[inverse] & (len(counts) > 1)
    found += if_any(
        named(table, same, metres),
        severity=WARNING,
        name="same_position",
        message=f"{count(same.sum(), 'image')} at "
        f"{count(many.sum(), 'position')}, shared to the last digit.",
        action="Check that it is not a default of the device or of the map.",
    )
    degrees = _degrees(table, points)
    swapped = _swapped(degrees)
    found += if_any(
        named(table, swapped, latitude),
        severity=ERROR,
        name="swapped",
        message=f"{count(swapped.sum(), 'image')} among the others only if "
        "latitude and longitude are swapped.",
        action="Swap them.",
    )
    south = degrees[:, 0] < _SOUTHERNMOST_DEG
    found += if_any(
        named(table, south, latitude),
        severity=WARNING,
        name="antarctica",
        message=f"{count(south.sum(), 'image')} in Antarctica.",
        action="Check that latitude and longitude are not swapped.",
    )
    apart = _far_from_all(regions(table)) & ~zero & ~swapped
    return found + if_any(
        named(table, apart, metres),
        severity=WARNING,
        name="far_from_all",
        message=f"{count(apart.sum(), 'image')} more than "
        f"{_REGION_M / 1000:g} km from all others.",
        action="Check their positions.",
    )


def regions(table: pd.DataFrame) -> np.ndarray:
    """Numbers the regions of images, int64 [B]; -1 without a position.

    Images of one zone in touching cells of 10 km are of one region.
    """
    points, grids = points_of(table), manifest.grids(table)
    located = np.isfinite(points).all(axis=1)
    labels = np.full(len(table), -1, np.int64)
    for grid in sorted(set(grids[located])):
        rows = np.flatnonzero(located & (grids == grid))
        cells, of_image = np.unique(
            points[rows] // _REGION_M, axis=0, return_inverse=True
        )
        pairs = cKDTree(cells).query_pairs(1.5, output_type="ndarray")
        graph = coo_array(
            (np.ones(len(pairs)), pairs.T), shape=(len(cells), len(cells))
        )
        _, region = connected_components(graph, directed=False)
        labels[rows] = labels.max() + 1 + region[of_image]
    return labels


def _some(words: Iterable[str]) -> str:
    words = list(words)
    more = f" and {len(words) - 8} more" if len(words) > 8 else ""
    return ", ".join(words[:8]) + more


def _metres(point: np.ndarray) -> str:
    return f"{point[0]:.1f} east, {point[1]:.1f} north"


def _degrees(table: pd.DataFrame, points: np.ndarray) -> np.ndarray:
    """Latitude and longitude, float64 [B, 2]; NaN where unknown."""
    degrees = np.full(points.shape, np.nan)
    zones = table["utm_zone"].to_numpy(object)
    located = np.isfinite(points).all(axis=1)
    for zone in set(zones[located]):
        try:
            utm.parse_zone(zone)
        except ValueError:
            continue
        rows = np.flatnonzero(located & (zones == zone))
        degrees[rows] = np.stack(utm.to_degrees(*points[rows].T, zone), axis=1)
    return degrees


def _off_band(zones: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Marks images far from the latitude band of their zone, bool [B].

    Readers give all images of a region the band of their median.
    """
    middle = {
        letter: -76.0 + 8.0 * number for number, letter in enumerate(_BANDS)
    }
    bands = [middle.get(zone[-1:], np.nan) for zone in zones]
    return np.abs(latitude - np.array(bands)) > _BAND_DEG


def _swapped(degrees: np.ndarray) -> np.ndarray:
    """Marks positions that lie among more others when swapped, bool [B]."""
    marked = np.zeros(len(degrees), bool)
    known = np.flatnonzero(np.isfinite(degrees).all(axis=1))
    if not len(known):
        return marked
    cells, of_image, counts = np.unique(
        degrees[known] // _SWAP_CELL_DEG,
        axis=0,
        return_inverse=True,
        return_counts=True,
    )
    distance, nearest = cKDTree(cells).query(cells[:, ::-1])
    # Near the diagonal a position lies beside its own swap.
    off = np.abs(cells[:, 0] - cells[:, 1]) > 10
    is_swap = (distance < 2) & (counts[nearest] > counts) & off
    marked[known] = is_swap[of_image]
    return marked


def _far_from_all(labels: np.ndarray) -> np.ndarray:
    """Marks images of regions that are tiny beside the others, bool [B]."""
    located = labels >= 0
    if not located.any():
        return located
    counts = np.bincount(labels[located])
    limit = max(1, int(_APART * located.sum()))
    tiny = np.zeros(len(labels), bool)
    if counts.max() > limit:
        tiny[located] = counts[labels[located]] <= limit
    return tiny & (tiny.sum() <= max(1, _SCATTERED * located.sum()))
