"""Findings in positions: impossible ones, and splits that overlap."""

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from sare_tf.checks import land
from sare_tf.checks.finding import ERROR, WARNING, Finding, count, if_any
from sare_tf.checks.positions import REGION_M, Positions, regions
from sare_tf.dataset import manifest
from sare_tf.dataset.names import SPLITS

# The limits are ours. Regions of at most this share of the images, or of one
# image, lie apart. If more than `_SCATTERED` of all images lie apart, the
# dataset is like that.
_APART, _SCATTERED = 0.001, 0.01
# A panorama's cut-outs have the same position: 24 in Pittsburgh's.
_CUTOUTS = 24
# A position that more than this share of the images has may be a default.
_SAME_SHARE = 0.05
# Coordinates whose median is below this may be made up, and begin at 0.
_MADE_UP_M = 100_000
# Cells, in degrees, by which swapped latitudes and longitudes are recognised.
_SWAP_CELL_DEG = 0.1
_SOUTHERNMOST_DEG = -60.0


def overlap(table: pd.DataFrame, *, radius_m: float) -> list[Finding]:
    """Finds images of val and test within the radius of one of train."""
    points, grids = manifest.coordinates(table), manifest.grids(table)
    located = np.isfinite(points).all(axis=1)
    findings = []
    for split in SPLITS[1:]:
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
                    table["image_id"].iat[judged[number]],
                    f"{split}, {metres[number]:.1f} m from "
                    + table["image_id"].iat[trained[nearest[number]]],
                )
                for number in np.flatnonzero(metres <= radius_m)
            ]
        total = int((table["split"] == split).sum())
        findings += if_any(
            images,
            severity=WARNING,
            name="splits_overlap",
            message=f"{len(images):,} of {total:,} images of the split {split} "
            f"lie within {radius_m:g} m of one of train.",
            action="Places that were trained on are recognised better: move "
            "the images to one split, or mention it beside the figures.",
        )
    return findings


def suspicious(table: pd.DataFrame) -> list[Finding]:
    """Finds positions that are hardly those of photographs."""
    positions = Positions.of(table)
    if not positions.located.any():
        return []
    zero = positions.located & (positions.points == 0).all(axis=1)
    swapped = _swapped(positions.degrees)
    apart = _far_from_all(regions(table)) & ~zero & ~swapped
    return [
        *_zero(positions, zero),
        *_same(positions),
        *if_any(
            positions.in_degrees(swapped),
            severity=ERROR,
            name="swapped",
            message=f"{count(swapped.sum(), 'image')} that would be among "
            "the others if latitude and longitude were swapped.",
            action="Swap them.",
        ),
        *_antarctica(positions),
        *_at_sea(positions),
        *if_any(
            positions.in_metres(apart),
            severity=WARNING,
            name="far_from_all",
            message=f"{count(apart.sum(), 'image')} more than "
            f"{REGION_M / 1000:g} km from all others.",
            action="Check their positions.",
        ),
    ]


def _zero(positions: Positions, zero: np.ndarray) -> list[Finding]:
    points = positions.points[positions.located]
    if np.median(np.abs(points).max(axis=1)) <= _MADE_UP_M:
        return []
    return if_any(
        positions.in_metres(zero),
        severity=ERROR,
        name="position_zero",
        message=f"{count(zero.sum(), 'image')} at the position 0, 0.",
        action="This is not a position: correct it, or leave the images out.",
    )


def _same(positions: Positions) -> list[Finding]:
    located = positions.located
    _, of_image, counts = np.unique(
        positions.points[located],
        axis=0,
        return_inverse=True,
        return_counts=True,
    )
    many = counts > max(_CUTOUTS, _SAME_SHARE * located.sum())
    same = np.zeros(len(located), bool)
    same[located] = many[of_image] & (len(counts) > 1)
    return if_any(
        positions.in_metres(same),
        severity=WARNING,
        name="same_position",
        message=f"{count(same.sum(), 'image')} at "
        f"{count(many.sum(), 'position')}, shared to the last digit.",
        action="Check that it is not a default of the device or of a map.",
    )


def _antarctica(positions: Positions) -> list[Finding]:
    south = positions.degrees[:, 0] < _SOUTHERNMOST_DEG
    return if_any(
        positions.in_degrees(south),
        severity=WARNING,
        name="antarctica",
        message=f"{count(south.sum(), 'image')} in Antarctica.",
        action="Check that latitude and longitude are not swapped.",
    )


def _at_sea(positions: Positions) -> list[Finding]:
    """Finds datasets mostly at sea, and where they would be if swapped.

    If latitude and longitude of all images are swapped, no image stands out.
    """
    sea = land.is_sea(positions.degrees)
    known = np.isfinite(positions.degrees).all(axis=1)
    # One photograph may well be taken at sea.
    if sea.sum() <= max(known.sum() / 2, 1):
        return []
    here = np.median(positions.degrees[sea], axis=0)
    message = f"{count(sea.sum(), 'image')} at sea, around {_written(here)}."
    swapped = positions.degrees[sea][:, ::-1]
    if (np.abs(swapped[:, 0]) <= 90).all() and not land.is_sea(swapped).any():
        message += (
            " With latitude and longitude swapped, they would be on land, "
            f"around {_written(here[::-1])}."
        )
    return if_any(
        positions.in_degrees(sea),
        severity=WARNING,
        name="at_sea",
        message=message,
        action="Check that latitude and longitude are not swapped.",
    )


def _written(degrees: np.ndarray) -> str:
    return "{:.3f}, {:.3f}".format(*degrees)


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
