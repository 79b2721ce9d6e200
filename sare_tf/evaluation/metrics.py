"""Figures of each query: hits, ranks, recall@N and average precision.

Neighbours are rows of the database, nearest first; -1 stands for no neighbour.
Ranks count from 1; rank 0 stands for a query whose positives were not found.
Axis letters: Q queries, N database, D descriptor length, k neighbours, P
positives of one query.
"""

from collections.abc import Sequence

import numpy as np

from sare_tf.search import exact_search

# N of precision@N (mP@N) as Revisited Oxford and Paris report it.
PRECISION_AT = (1, 5, 10)


def hits(neighbours: np.ndarray, positives: Sequence[np.ndarray]) -> np.ndarray:
    """Marks the neighbours that are positives.

    Args:
        neighbours: int [Q, k].
        positives: for each of the Q queries, its positives' database rows.

    Returns:
        bool [Q, k].

    Raises:
        ValueError: not one entry of positives per query.
    """
    if np.ndim(neighbours) != 2 or len(neighbours) != len(positives):
        raise ValueError(
            "Expected neighbours [Q, k] and one array of positives for each "
            f"of the Q queries. Received: neighbours.shape="
            f"{np.shape(neighbours)}, len(positives)={len(positives)}."
        )
    neighbours = np.asarray(neighbours, np.int64)
    counts = [len(rows) for rows in positives]
    flat = np.concatenate([np.zeros(0, np.int64), *positives]).astype(np.int64)
    # Pairs of query and row as one number each.
    width = 1 + max(neighbours.max(initial=-1), flat.max(initial=-1)) + 1
    query = np.arange(len(neighbours))
    pairs = np.repeat(query, counts) * width + flat
    return np.isin(query[:, None] * width + neighbours, pairs) & (
        neighbours >= 0
    )


def first_rank(hits: np.ndarray) -> np.ndarray:
    """Returns the rank of each query's first positive, int64 [Q].

    Args:
        hits: bool [Q, k], nearest first.
    """
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)


def within(ranks: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Marks whether the first positive is among the first N.

    Args:
        ranks: int [Q] of `first_rank`.
        ks: values of N.

    Returns:
        bool [Q, len(ks)].
    """
    ranks = np.asarray(ranks)[:, None]
    return (ranks > 0) & (ranks <= np.asarray(ks))


def recall_at(
    neighbours: np.ndarray,
    positives: Sequence[np.ndarray],
    ks: Sequence[int],
) -> dict[int, float]:
    """Recall@N: share of queries with a positive among the first N neighbours.

    The share is of all Q queries: one without any positive counts as a miss.

    Args:
        neighbours: int [Q, k], nearest first.
        positives: for each of the Q queries, its positives' database rows.
        ks: the values of N, each from 1 to k.

    Returns:
        N -> recall, from 0 to 1, in the order of ks.

    Raises:
        ValueError: no query, or a value of N outside 1 to k.
    """
    is_hit = hits(neighbours, positives)
    if not is_hit.size:
        raise ValueError(
            "Expected at least one query with neighbours. Received: "
            f"neighbours.shape={is_hit.shape}."
        )
    for k in ks:
        if not 1 <= k <= is_hit.shape[1]:
            raise ValueError(
                f"Expected every N of recall@N from 1 to {is_hit.shape[1]}, "
                f"the neighbours given. Received: {k}. Find more neighbours."
            )
    return {int(k): float(is_hit[:, :k].any(axis=1).mean()) for k in ks}


def average_precision(ranks: np.ndarray) -> float:
    """Area below precision over recall, by trapezoids.

    The sum over positives of the rise in recall times the mean of the
    precisions just before and at that positive; before the first rank the
    precision is 1. The Oxford buildings, Revisited Oxford and Paris and INRIA
    Holidays are measured like this; it is not the mean of the precisions at
    the positives. Source: Philbin et al. 2007 and its compute_ap program.

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
    reached = number / ranks
    before = np.where(ranks > 1, (number - 1) / np.maximum(ranks - 1, 1), 1.0)
    return float((before + reached).sum() / (2 * len(ranks)))


def precision_at(ranks: np.ndarray, k: int) -> float:
    """Share of positives among the first k, or up to the last positive.

    As Revisited Oxford and Paris measure mP@k: k is lowered to the rank of the
    last positive if that comes earlier.

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
    """Average precision of the first k, as MSLS and Google Landmarks define it.

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


def ranks_without_junk(
    queries: np.ndarray,
    database: np.ndarray,
    *,
    positives: Sequence[np.ndarray],
    junk: Sequence[np.ndarray],
    first_rows: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Ranks of the positives in the whole database, junk taken out of it.

    `average_precision` of each query's ranks, averaged over the queries, is
    the mAP of the Oxford buildings and of Revisited Oxford and Paris.

    Args:
        queries: [Q, D].
        database: [N, D]; may be a memory map.
        positives: for each query, its positives' database rows.
        junk: for each query, database rows that are left out of the count.
        first_rows: int [Q, M], another order of the first M rows.

    Returns:
        For each query int64 ranks from 1, in the order of its positives.

    Raises:
        ValueError: shapes that do not fit, or a value that is not finite.
    """
    both = [
        np.append(right, ignored)
        for right, ignored in zip(positives, junk, strict=True)
    ]
    all_ranks = exact_search.ranks_of(queries, database, both)
    if first_rows is not None:
        for ranked, rows, first in zip(
            all_ranks, both, first_rows, strict=True
        ):
            order = np.argsort(first)
            is_first = ranked < len(first)
            near = np.searchsorted(first[order], rows[is_first])
            ranked[is_first] = order[near]
    ranks = []
    for ranked, right in zip(all_ranks, positives, strict=True):
        of_positives, of_junk = np.split(ranked, [len(right)])
        ahead = np.searchsorted(np.sort(of_junk), of_positives)
        ranks.append(of_positives + 1 - ahead)
    return ranks


def full_ranking_precisions(
    ranks: Sequence[np.ndarray],
) -> dict[str, np.ndarray]:
    """Average precision and precision@N of each query.

    Args:
        ranks: of `ranks_without_junk`.

    Returns:
        "average_precision" and "precision_at_N" for `PRECISION_AT` -> float64
        [Q], NaN for a query without positives.
    """
    return {
        "average_precision": np.array([average_precision(r) for r in ranks]),
        **{
            f"precision_at_{k}": np.array([precision_at(r, k) for r in ranks])
            for k in PRECISION_AT
        },
    }
