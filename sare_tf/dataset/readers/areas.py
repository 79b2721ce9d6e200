"""Areas of a map, which are whole in one split, and what comes between them."""

import sys
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from sare_tf.dataset.names import SPLITS
from sare_tf.dataset.readers.utm_zones import members

# Two splits keep this far apart: twice the usual radius of a positive, so that
# no database image answers queries of both.
APART_M = 50.0
# Images linked by steps of APART_M form an area; a larger one is cut. Ours.
_AREA_M = 500.0
# Pairs of images that are in memory together.
_LINKED_PAIRS = 1 << 18


def find_areas(
    east_m: np.ndarray, north_m: np.ndarray, zones: Sequence[str]
) -> list[str]:
    """Names the area of each image.

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
        for number, inside in enumerate(members(_linked(points))):
            squares = np.zeros((len(inside), 2))
            if np.ptp(points[inside], axis=0).max() > _AREA_M:
                squares = points[inside] // _AREA_M
            for row, (right, up) in zip(rows[inside], squares, strict=True):
                name = f"{zone} {number} {right:.0f} {up:.0f}"
                # All images of an area share one text in memory.
                names[row] = sys.intern(name)
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
        for position, split in enumerate(SPLITS):
            rows = np.flatnonzero((zones == zone) & (splits == split))
            later = np.isin(splits, SPLITS[position + 1 :])
            others = points[(zones == zone) & later]
            if len(rows) and len(others):
                distance, _ = cKDTree(others).query(points[rows])
                near[rows] = distance <= APART_M
    return near


def _linked(points: np.ndarray) -> np.ndarray:
    """Numbers the sets of points that steps of at most 50 m link.

    Args:
        points: [B, 2], in metres.

    Returns:
        int64 [B]: numbers from 0, in the order of the first point of each set.
    """
    tree = cKDTree(points)
    label = np.arange(len(points))
    counts = tree.query_ball_point(points, APART_M, return_length=True)
    start = 0
    while start < len(points):
        # As many points as leave room for their pairs.
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
