"""Motion models: from where to where a camera moves between two queries.

A model is a sparse matrix P [N, N] whose rows sum to 1: P_ij is the probability
that the camera is at image j after it was at i, if it did not jump. Images are
in the order of their clips.

    by frame   uniform over the images that follow i in its clip, from a least
               to a most number of images; the window is cut at the ends
    by metres  proportional to exp(-d_ij^2 / (2 s^2)), up to 3 s
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

# SciPy takes long to import.
if TYPE_CHECKING:
    import scipy.sparse

_STANDARD_DEVIATIONS = 3


def by_frame(
    spans: Sequence[slice], window: tuple[int, int]
) -> "scipy.sparse.csr_array":
    """Returns the model by the order of the images.

    Source: Xu, Suenderhauf and Milford 2020, Probabilistic Visual Place
    Recognition for Hierarchical Localization, whose window is -2 to 9 images.
    An image whose window is outside of its clip leads to the nearest end.

    Args:
        spans: the places of each clip.
        window: images by which the camera moves on, at least and at most.
    """
    count = spans[-1].stop
    first, last = np.empty(count, np.int64), np.empty(count, np.int64)
    for span in spans:
        places = np.arange(span.start, span.stop)
        ends = span.start, span.stop - 1
        first[span] = np.clip(places + window[0], *ends)
        last[span] = np.clip(places + window[1], *ends)
    sizes = last - first + 1
    begin = np.repeat(np.cumsum(sizes) - sizes, sizes)
    columns = np.repeat(first, sizes) + np.arange(sizes.sum()) - begin
    return _matrix(columns, np.repeat(1 / sizes, sizes), sizes)


def by_metres(
    positions: np.ndarray, grids: np.ndarray, deviation_m: float
) -> "scipy.sparse.csr_array":
    """Returns the model by the positions of the images.

    An image without a position leads only to itself.

    Args:
        positions: float64 [N, 2], metres east and north; NaN where unknown.
        grids: object [N], as of `manifest.grids`.
        deviation_m: s, standard deviation of the metres.
    """
    from scipy.spatial import cKDTree

    rows = [np.arange(len(positions))]
    columns, squared = [rows[0]], [np.zeros(len(positions))]
    known = np.isfinite(positions).all(axis=1)
    for grid in np.unique(grids[known].astype(str)):
        of_grid = np.flatnonzero(known & (grids == grid))
        pairs = cKDTree(positions[of_grid]).query_pairs(
            _STANDARD_DEVIATIONS * deviation_m, output_type="ndarray"
        )
        here, there = of_grid[pairs].T
        metres = ((positions[here] - positions[there]) ** 2).sum(axis=1)
        rows += [here, there]
        columns += [there, here]
        squared += [metres, metres]
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    weights = np.exp(-np.concatenate(squared) / (2 * deviation_m**2))
    weights /= np.bincount(rows, weights)[rows]
    order = np.lexsort((columns, rows))
    return _matrix(columns[order], weights[order], np.bincount(rows))


def _matrix(
    columns: np.ndarray, values: np.ndarray, sizes: np.ndarray
) -> "scipy.sparse.csr_array":
    import scipy.sparse

    starts = np.concatenate([[0], np.cumsum(sizes)])
    return scipy.sparse.csr_array(
        (values.astype(np.float32), columns, starts), (len(sizes),) * 2
    )
