"""From what was found to figures: precision, intervals, errors in metres.

Ranks count from 1; 0 stands for a query whose positives were not found. Axis
letters: Q queries, k neighbours, M figures of a query. A query's figures are
its own; means over queries come with intervals by bootstrap, which draws
queries with replacement and so takes them as independent: where many queries
show one spot, the truth is somewhat wider.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

CONFIDENCE = 0.95
RESAMPLES = 1000
SEED = 0
# Localisation: shares within these, and how far the curve goes.
WITHIN_M = (5, 10, 25, 50)
CURVE_M = 100
# Parts of the queries, by confidence, and queries of one at least.
_PARTS, _SMALLEST_PART = 5, 10
_COMPASS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
# Numbers drawn at a time by the bootstrap.
_DRAWN = 1 << 22


def first_rank(hits: np.ndarray) -> np.ndarray:
    """Rank of the first positive, int64 [Q]; 0 where none was found.

    Args:
        hits: bool [Q, k], nearest first.
    """
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)


def within(ranks: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Whether the first positive is among the first N, bool [Q, len(ks)].

    Args:
        ranks: int [Q] of `first_rank`.
        ks: values of N.
    """
    ranks = np.asarray(ranks)[:, None]
    return (ranks > 0) & (ranks <= np.asarray(ks))


def average_precision(ranks: np.ndarray) -> float:
    """Area below precision over recall, by trapezoids.

    The sum over positives of the rise in recall times the mean of the
    precisions just before and at that positive; before the first rank the
    precision is 1. So the Oxford buildings, Revisited Oxford and Paris and
    INRIA Holidays are measured; it is not the mean of the precisions at the
    positives. Source: Philbin et al. 2007 and its compute_ap program.

    Args:
        ranks: int [P], the rank of every positive from 1, ignored images left
            out of the count.

    Returns:
        From 0 to 1; NaN without positives.
    """
    if not len(ranks):
        return float("nan")
    ranks = np.sort(np.asarray(ranks, np.float64))
    number = np.arange(1, len(ranks) + 1)
    at = number / ranks
    before = np.where(ranks > 1, (number - 1) / np.maximum(ranks - 1, 1), 1.0)
    return float((before + at).sum() / (2 * len(ranks)))


def precision_at(ranks: np.ndarray, k: int) -> float:
    """Share of positives among the first k, or up to the last positive.

    As Revisited Oxford and Paris measure mP@k: k is lowered to the rank of the
    last positive where that comes earlier.

    Args:
        ranks: int [P], the rank of every positive from 1.
        k: how many.

    Returns:
        From 0 to 1; NaN without positives.
    """
    if not len(ranks):
        return float("nan")
    last = min(int(np.max(ranks)), k)
    return float((np.asarray(ranks) <= last).sum() / last)


def average_precision_at(
    hits: np.ndarray, counts: np.ndarray, k: int
) -> np.ndarray:
    """Average precision of the first k, as MSLS and Google Landmarks have it.

    The sum of the precisions at the positives among the first k, divided by
    the number of positives or by k, whichever is smaller.

    Args:
        hits: bool [Q, at least k].
        counts: int [Q], positives of each query.
        k: how many.

    Returns:
        float64 [Q], from 0 to 1; NaN for a query without positives.
    """
    hits = hits[:, :k]
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    most = np.minimum(counts, k).astype(np.float64)
    total = (precision * hits).sum(axis=1)
    return np.divide(
        total, most, out=np.full(len(hits), np.nan), where=most > 0
    )


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
        seed: of the draws.
        resamples: how often Q queries are drawn with replacement.
        confidence: share of the resampled means inside.

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

    Under the null hypothesis, a query that one run finds and the other does
    not is as likely to be found by either.

    Args:
        first: bool [Q], queries found by one run.
        second: bool [Q], queries found by the other.

    Returns:
        only_first, only_second: queries found by one alone; p_value: two-sided,
        1 where there are none.
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
    """How far from the query the images found were taken.

    Args:
        metres: float [Q, k], NaN where unknown, infinite where there is no
            image or it lies in another UTM zone.
        ks: recall over distance is given for these N.

    Returns:
        JSON: median_m of the first image, None where it is infinite; within_m,
        share of queries whose first image is at most so far; and
        recall_over_distance, for each N the share with at least one of the
        first N images at most 0, 1, 2, ... metres away. None where no
        coordinates are known.
    """
    metres = metres[~np.isnan(metres).any(axis=1)]
    if not len(metres):
        return None
    median = float(np.median(metres[:, 0]))
    thresholds = np.arange(CURVE_M + 1)
    curves = {}
    for k in ks:
        nearest = np.sort(metres[:, :k].min(axis=1))
        found = np.searchsorted(nearest, thresholds, side="right")
        curves[str(k)] = (found / len(metres)).tolist()
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
    """How often the first image is right, by the confidence in it.

    Queries are ordered by confidence and cut into up to five equal parts of ten
    or more. Equal confidences may fall on both sides of a cut.

    Args:
        confidence: float [Q], NaN where there is none.
        right: bool [Q].

    Returns:
        JSON: for each part, least confident first, from and to, the least and
        the largest confidence in it; queries; right, their share.
    """
    known = np.isfinite(confidence)
    confidence, right = confidence[known], right[known]
    order = np.argsort(confidence, kind="stable")
    parts = min(_PARTS, len(order) // _SMALLEST_PART)
    return [
        {
            "from": float(confidence[part[0]]),
            "to": float(confidence[part[-1]]),
            "queries": len(part),
            "right": float(right[part].mean()),
        }
        for part in np.array_split(order, max(parts, 1))
        if len(part)
    ]


def breakdown(
    groups: dict[str, np.ndarray], ranks: np.ndarray, ks: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Recall of every group of queries, of several ways to group them.

    Args:
        groups: kind -> object [Q], each query's group; "" where unknown.
        ranks: int [Q] of `first_rank`.
        ks: values of N.

    Returns:
        JSON: kind -> group -> queries, recall_at and its intervals. Kinds that
        make fewer than two groups are left out.
    """
    found = within(ranks, ks)
    result = {}
    for kind, names in groups.items():
        distinct = [name for name in pd.unique(names) if name]
        if len(distinct) < 2:
            continue
        if kind == "heading":
            distinct = [name for name in _COMPASS if name in distinct]
        else:
            distinct.sort()
        result[kind] = {
            name: {
                "queries": int((names == name).sum()),
                **summary(found[names == name], ks, name="recall_at"),
            }
            for name in distinct
        }
    return result


def summary(
    values: np.ndarray, ks: Sequence[int], *, name: str
) -> dict[str, dict[str, Any]]:
    """Means over queries and their intervals, by N.

    Args:
        values: [Q, len(ks)].
        ks: values of N.
        name: of the figure.

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
    """Names of the eighths of the compass, object [Q]; "" for NaN.

    Args:
        heading_deg: degrees from north, clockwise.
    """
    known = np.isfinite(heading_deg)
    eighth = np.round(np.where(known, heading_deg, 0) / 45).astype(int) % 8
    return np.where(known, np.array(_COMPASS, object)[eighth], "")
