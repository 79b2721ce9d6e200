"""Results of an evaluation with other images than search found."""

import dataclasses

import numpy as np

from sare_tf.evaluation import ground_truth, metrics
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.search import exact_search
from sare_tf.search.descriptor_arrays import GatheredRows


def with_rows(
    results: QueryResults,
    rows: np.ndarray,
    *,
    query_vectors: np.ndarray,
    database_vectors: np.ndarray | GatheredRows,
    confidence: np.ndarray,
) -> QueryResults:
    """Returns results with other rows.

    Distances are those of the descriptors. Precisions of the full ranking are
    left out.

    Args:
        results: of search.
        rows: int64 [Q, k], best first; -1 for none.
        query_vectors: float32 [Q, D].
        database_vectors: [N, D].
        confidence: float64 [Q] in the first row.
    """
    distances = exact_search.distances_to(
        query_vectors, database_vectors, list(np.maximum(rows, 0))
    )
    hits = metrics.hits(rows, results.truth.positives)
    return dataclasses.replace(
        results,
        rows=rows,
        squared_distances=np.where(rows >= 0, np.stack(distances), np.inf),
        hits=hits,
        ranks=metrics.first_rank(hits),
        metres=ground_truth.metres(results.queries, results.database, rows),
        confidence=confidence,
        precisions={
            f"average_precision_at_{k}": metrics.average_precision_at(
                hits, results.positive_counts, k
            )
            for k in results.protocol.mean_average_precision_at
        },
    )
