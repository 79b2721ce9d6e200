"""One order from distances of descriptors and from inliers.

Axis letters: Q queries, T candidates of a query, nearest descriptor first.

Inliers above a threshold are evidence, below it they are chance: any two images
have some. A candidate is ordered by

    squared distance - weight * log(inliers / threshold)

where inliers below the threshold count as the threshold. So the order without
evidence is that of retrieval, and a candidate needs the more evidence to pass
another, the less its descriptor says for it. Threshold and weight are measured
on queries whose places are known: the evidence differs between local features,
cameras and places, and the distances between networks.
"""

import dataclasses

import numpy as np

# Thresholds that are tried. Ours: two images of different places hardly ever
# have more, and some always have fewer.
THRESHOLDS = (5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 60)
# Weights that are tried, in units of the median difference of the last and the
# first squared distance. With 0 geometry does not count.
WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 100.0)
# Standard errors that a gain must exceed. With 2, gains of 4 points of recall@1
# on a hundred queries were mostly left; with 0, geometry nearly always counted.
# Ours.
_ERRORS = 1
# Where nothing was measured: a threshold above most that were, in our trials
# (docs/after_retrieval.md), and the middle of the weights.
_DEFAULT_THRESHOLD, _DEFAULT_WEIGHT = 15, 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combination:
    """How inliers count beside distances.

    Args:
        threshold: inliers from which on they count.
        weight: squared distance that e times as many are worth.
    """

    threshold: float
    weight: float

    def values(
        self, squared_distances: np.ndarray, inliers: np.ndarray
    ) -> np.ndarray:
        """Returns what orders the candidates, [Q, T], the least first.

        Args:
            squared_distances: [Q, T], infinite for no candidate.
            inliers: int [Q, T].
        """
        evidence = np.log(np.maximum(inliers / self.threshold, 1))
        return squared_distances - self.weight * evidence

    def order(
        self, squared_distances: np.ndarray, inliers: np.ndarray
    ) -> np.ndarray:
        """Returns the new order of the candidates of each query.

        Args:
            squared_distances: [Q, T], infinite for no candidate.
            inliers: int [Q, T].

        Returns:
            int64 [Q, T], from the best to the worst; equal ones stay in their
            order.
        """
        values = self.values(squared_distances, inliers)
        return np.argsort(values, axis=1, kind="stable")


def default(squared_distances: np.ndarray) -> Combination:
    """Returns the combination where nothing was measured.

    Args:
        squared_distances: [Q, T], nearest first, of the queries it is for.
    """
    return Combination(
        threshold=_DEFAULT_THRESHOLD,
        weight=_DEFAULT_WEIGHT * _unit(squared_distances),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A combination, and what it does to the queries it was measured on.

    Args:
        combination: the combination.
        queries: their number.
        recall_before: recall@1 of the retrieval.
        recall_after: recall@1 of the new order.
    """

    combination: Combination
    queries: int
    recall_before: float
    recall_after: float


def calibrate(
    squared_distances: np.ndarray, inliers: np.ndarray, hits: np.ndarray
) -> Calibrated:
    """Measures threshold and weight.

    The mean reciprocal rank among the candidates counts, because recall@1 says
    the same of many settings; and its mean over neighbouring settings, because
    a single one may be the best by chance. Of equal ones, the highest threshold
    and the lowest weight change least. The weight is 0, and the order that of
    retrieval, if the gain is not above its standard error.

    Args:
        squared_distances: [Q, T], nearest first.
        inliers: int [Q, T].
        hits: bool [Q, T], whether a candidate is right.
    """
    unit = _unit(squared_distances)
    tried = [
        [
            Combination(threshold=threshold, weight=weight * unit)
            for weight in WEIGHTS
        ]
        for threshold in reversed(THRESHOLDS)
    ]
    values = np.array(
        [
            [
                _reciprocal_ranks(hits, one.order(squared_distances, inliers))
                for one in of_threshold
            ]
            for of_threshold in tried
        ]
    )
    smooth = _with_neighbours(values.mean(axis=2))
    # The first of those that differ by rounding only.
    row, column = np.argwhere(smooth >= smooth.max() - 1e-9)[0]
    # Without weight, it is the order of retrieval.
    gains = values[row, column] - values[row, 0]
    if gains.mean() <= _ERRORS * gains.std() / len(gains) ** 0.5:
        column = 0
    best = tried[row][column]
    ordered = best.order(squared_distances, inliers)
    return Calibrated(
        combination=best,
        queries=len(hits),
        recall_before=float(hits[:, 0].mean()),
        recall_after=float(
            np.take_along_axis(hits, ordered, axis=1)[:, 0].mean()
        ),
    )


def _unit(squared_distances: np.ndarray) -> float:
    """The median over queries of last less first distance, or else 1."""
    there = np.isfinite(squared_distances)
    last = np.where(there, squared_distances, -np.inf).max(axis=1)
    spread = np.maximum(last - squared_distances[:, 0], 0)
    spread = spread[np.isfinite(spread)]
    return float(np.median(spread) if len(spread) else 0) or 1.0


def _with_neighbours(values: np.ndarray) -> np.ndarray:
    """Means of 3 x 3 values; those at the border stand for those outside."""
    rows, columns = values.shape
    padded = np.pad(values, 1, mode="edge")
    return np.mean(
        [
            padded[down : down + rows, right : right + columns]
            for down in range(3)
            for right in range(3)
        ],
        axis=0,
    )


def _reciprocal_ranks(hits: np.ndarray, order: np.ndarray) -> np.ndarray:
    """1 / rank of the first right candidate, or 0, float64 [Q]."""
    ordered = np.take_along_axis(hits, order, axis=1)
    ranks = ordered.argmax(axis=1) + 1
    return np.where(ordered.any(axis=1), 1 / ranks, 0)
