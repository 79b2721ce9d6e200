"""Squared distances in bounded memory: approximate by block, exact by pair.

Descriptors are float [Q, D] and [N, D]. Axis letters: Q queries, N database, D
descriptor length, q and n those of a block, C pairs.
"""

from collections.abc import Iterator

import numpy as np

# Queries of one matrix product, so that Q is unlimited. Ours.
_QUERY_BLOCK = 1024
# Numbers of float64 of candidates whose distance is computed again at a time.
# Ours: 64 MiB.
_EXACT_BLOCK = 1 << 23


def exact_of_pairs(
    queries: np.ndarray, rows: np.ndarray, query: np.ndarray, row: np.ndarray
) -> np.ndarray:
    """Returns squared distances of pairs of rows, computed in float64.

    Args:
        queries: [Q, D].
        rows: [N, D]; may be a memory map.
        query: int [C], the row of `queries` of each pair.
        row: int [C], the row of `rows` of each pair.

    Returns:
        float32 [C].
    """
    distances = np.empty(len(query), np.float32)
    step = max(1, _EXACT_BLOCK // queries.shape[1])
    for start in range(0, len(query), step):
        pairs = slice(start, start + step)
        difference = queries[query[pairs]].astype(np.float64)
        difference -= rows[row[pairs]]
        distances[pairs] = np.einsum("cd,cd->c", difference, difference)
    return distances


def approximate_by_block(
    queries: np.ndarray, database: np.ndarray, block: int
) -> Iterator[tuple[int, np.ndarray, slice, np.ndarray, np.ndarray]]:
    """Computes approximate distances, block by block.

    Args:
        queries: float32 [Q, D].
        database: [N, D]; may be a memory map, which is read once.
        block: database rows held in memory at a time.

    Yields:
        The number of the first row of a block, its float32 rows [n, D], a slice
        of q queries, squared distances [q, n] by a matrix product, and by how
        much they may be off, [q].

    Raises:
        ValueError: a value is not finite.
    """
    query_norms = _squared_norms(queries, "queries", 0)
    for start in range(0, len(database), block):
        rows = np.asarray(database[start : start + block], np.float32)
        norms = _squared_norms(rows, "database", start)
        for first in range(0, len(queries), _QUERY_BLOCK):
            batch = slice(first, min(first + _QUERY_BLOCK, len(queries)))
            rough = queries[batch] @ rows.T
            rough *= -2
            rough += query_norms[batch, None]
            rough += norms
            # Ours, generous: float32 products are off by less than this.
            slack = 1e-5 * (query_norms[batch] + norms.max())
            yield start, rows, batch, rough, slack


def _squared_norms(rows: np.ndarray, name: str, start: int) -> np.ndarray:
    norms = np.einsum("nd,nd->n", rows, rows)
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        raise ValueError(
            f"Expected finite descriptors. Received: {name} with a NaN or "
            f"infinite value in row {start + bad[0]}. Embed that image again, "
            "or check the model."
        )
    return norms
