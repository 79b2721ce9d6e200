"""Comparison of an index's own search with exact search, and its speed."""

import time
from typing import Any

import numpy as np

from sare_tf.evaluation import ground_truth, metrics
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.search import exact_search
from sare_tf.search.opened_index import Index

# Ours: neighbours by which approximate search is compared with exact search.
_COMPARED = 10


def compare(
    index: Index, query_vectors: np.ndarray, results: QueryResults
) -> tuple[dict[str, Any], float]:
    """Compares the index's own search with exact search.

    Args:
        index: the index.
        query_vectors: float32 [Q, D].
        results: of exact search of these queries.

    Returns:
        JSON and seconds. JSON: recall_of_exact, the share of exact neighbours
        that the index finds, and recall_curve, the protocol's recall@N of its
        neighbours. Both are None if it searches exactly, or if the protocol
        searches only a part of the database, which the index cannot do.
        Seconds: the time of its search for k neighbours.
    """
    exact = results.exact_distances
    k = min(_COMPARED, exact.shape[1])
    compared = {
        "metrics": "exact",
        "index": index.searches_with,
        "k": k,
        "recall_of_exact": None,
        "recall_curve": None,
    }
    if index.searches_with != "scann":
        return compared, results.search_seconds
    began = time.perf_counter()
    _, distances = index.search(query_vectors, k)
    seconds = time.perf_counter() - began
    truth = results.truth
    if truth.allowed is None or truth.allowed.all():
        compared["recall_of_exact"] = exact_search.recall_of_search(
            distances, exact[:, :k]
        )
        neighbours = index.search(query_vectors, exact.shape[1])
        rows, _ = ground_truth.rank(truth, *neighbours, results.rows.shape[1])
        ranks = metrics.first_rank(metrics.hits(rows, truth.positives))
        every = range(1, rows.shape[1] + 1)
        within = metrics.within(ranks[truth.counted], every)
        compared["recall_curve"] = within.mean(axis=0).tolist()
    return compared, seconds
