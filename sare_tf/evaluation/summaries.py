"""Figures over queries: means with intervals, tests, groups and metres.

Intervals are by bootstrap, which draws queries with replacement and treats them
as independent: if many queries show the same spot, the true interval is
somewhat wider. Axis letters: Q queries, k neighbours, M figures of a query.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from sare_tf.evaluation import metrics

# Ours: the interval, its draws and its seed.
CONFIDENCE = 0.95
RESAMPLES = 1000
SEED = 0
# Ours: distances for shares of queries, and the end of the curve.
WITHIN_M = (5, 10, 25, 50)
CURVE_M = 100
# Ours: the most groups of queries by confidence, and the fewest queries of one.
_CONFIDENCE_GROUPS, _SMALLEST_GROUP = 5, 10
_COMPASS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
# Numbers that the bootstrap draws at a time, so that memory is bounded.
_DRAWN = 1 << 22


def interval(
    values: np.ndarray,
    *,
    seed: int = SEED,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> np.ndarray:
    """Bootstrap interval of means over queries, by percentiles.

    Args:
        values: [Q, M].
        seed: seed of the draws.
        resamples: how often Q queries are drawn with replacement.
        confidence: share of the resampled means inside the interval.

    Returns:
        float64 [2, M], lower and upper ends.

    Raises:
        ValueError: no query.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(
            "Expected values [Q, M] of at least one query. Received: "
            f"values.shape={values.shape}."
        )
    rng = np.random.default_rng(seed)
    count = len(values)
    means = []
    step = max(1, _DRAWN // count)
    for start in range(0, resamples, step):
        draws = min(step, resamples - start)
        drawn = rng.integers(count, size=(draws, count))
        # How often each query was drawn, [draws, Q].
        drawn += np.arange(draws)[:, None] * count
        times = np.bincount(drawn.reshape(-1), minlength=draws * count)
        means.append(times.reshape(draws, count) @ values / count)
    outside = (1 - confidence) / 2
    return np.quantile(np.concatenate(means), [outside, 1 - outside], axis=0)


def mcnemar(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """McNemar's exact test of two runs on the same queries.

    Under the null hypothesis, a query that only one run finds is as likely to
    be found by the one as by the other.

    Args:
        first: bool [Q], queries found by one run.
        second: bool [Q], queries found by the other.

    Returns:
        only_first, only_second: queries that only one run found; p_value:
        two-sided, 1 if there are no such queries.
    """
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    total = only_first + only_second
    p_value = 1.0
    if total:
        p_value = float(scipy.stats.binomtest(only_first, total).pvalue)
    return {
        "only_first": only_first,
        "only_second": only_second,
        "p_value": p_value,
    }


def localisation(
    metres: np.ndarray, ks: Sequence[int]
) -> dict[str, Any] | None:
    """Distances between the queries and the images retrieved for them.

    Args:
        metres: float [Q, k] of `ground_truth.metres`.
        ks: N of recall over distance.

    Returns:
        JSON: median_m of the first image, None if it is infinite; within_m,
        the share of queries whose first image is within each distance; and
        recall_over_distance, for each N the share with at least one of the
        first N images at most 0, 1, 2, ... metres away. None if no query has
        coordinates.
    """
    metres = metres[~np.isnan(metres).any(axis=1)]
    if not len(metres):
        return None
    median = float(np.median(metres[:, 0]))
    thresholds = np.arange(CURVE_M + 1)
    curves = {}
    for k in ks:
        nearest = np.sort(metres[:, :k].min(axis=1))
        counts = np.searchsorted(nearest, thresholds, side="right")
        curves[str(k)] = (counts / len(metres)).tolist()
    return {
        "queries": len(metres),
        "median_m": median if np.isfinite(median) else None,
        "within_m": {
            str(limit): float((metres[:, 0] <= limit).mean())
            for limit in WITHIN_M
        },
        "recall_over_distance": {"metres": thresholds.tolist(), **curves},
    }


def reliability(
    confidence: np.ndarray, right: np.ndarray
) -> list[dict[str, Any]]:
    """Share of queries whose first image is right, by confidence.

    Queries are ordered by confidence and cut into up to five equal groups of
    ten or more. Equal confidences may fall on both sides of a cut.

    Args:
        confidence: float [Q], NaN where there is none.
        right: bool [Q], whether the first image is right.

    Returns:
        JSON: for each group, least confident first: from and to, its smallest
        and largest confidence; queries, their number; right, the share.
    """
    known = np.isfinite(confidence)
    confidence, right = confidence[known], right[known]
    order = np.argsort(confidence, kind="stable")
    count = min(_CONFIDENCE_GROUPS, len(order) // _SMALLEST_GROUP)
    return [
        {
            "from": float(confidence[group[0]]),
            "to": float(confidence[group[-1]]),
            "queries": len(group),
            "right": float(right[group].mean()),
        }
        for group in np.array_split(order, max(count, 1))
        if len(group)
    ]


def breakdown(
    groups: dict[str, np.ndarray], ranks: np.ndarray, ks: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Recall of groups of queries.

    Args:
        groups: kind of group -> object [Q], each query's group; "" if unknown.
        ranks: int [Q] of `metrics.first_rank`.
        ks: values of N.

    Returns:
        JSON: kind -> group -> queries, recall_at and its intervals. A kind
        with fewer than two groups is left out.
    """
    is_within = metrics.within(ranks, ks)
    result = {}
    for kind, of_query in groups.items():
        distinct = [name for name in pd.unique(of_query) if name]
        if len(distinct) < 2:
            continue
        if kind == "heading":
            distinct = [name for name in _COMPASS if name in distinct]
        else:
            distinct.sort()
        result[kind] = {
            name: {
                "queries": int((of_query == name).sum()),
                **summary(is_within[of_query == name], ks, name="recall_at"),
            }
            for name in distinct
        }
    return result


def summary(
    values: np.ndarray, ks: Sequence[int], *, name: str
) -> dict[str, dict[str, Any]]:
    """Means over queries and their intervals.

    Args:
        values: [Q, len(ks)].
        ks: values of N, or names of figures.
        name: key of the means.

    Returns:
        JSON: `name`: N -> mean; `name`_interval: N -> [lower, upper].
    """
    means = np.asarray(values, np.float64).mean(axis=0)
    ends = interval(values).T
    return {
        name: {str(k): float(m) for k, m in zip(ks, means, strict=True)},
        f"{name}_interval": {
            str(k): pair.tolist() for k, pair in zip(ks, ends, strict=True)
        },
    }


def compass(heading_deg: np.ndarray) -> np.ndarray:
    """Returns the eighths of the compass, object [Q]; "" for NaN.

    Args:
        heading_deg: degrees from north, clockwise.
    """
    known = np.isfinite(heading_deg)
    eighth = np.round(np.where(known, heading_deg, 0) / 45).astype(int) % 8
    return np.where(known, np.array(_COMPASS, object)[eighth], "")
