"""Exact neighbours and ranks, in plain numpy.

Descriptors are float [Q, D] and [N, D]; distances are squared Euclidean, the
sum over D of squared differences. Neighbours are rows of the database, nearest
first. Axis letters: Q queries, N database, D descriptor length, k neighbours.
"""

from collections.abc import Iterator, Sequence

import numpy as np

# Queries of one matrix product, so that Q is unlimited.
_QUERY_BLOCK = 1024
# Candidates whose distance is computed again at a time, in numbers of float64.
_EXACT_BLOCK = 1 << 23


def nearest(
    queries: np.ndarray,
    database: np.ndarray,
    k: int,
    *,
    allowed: np.ndarray | None = None,
    block: int = 8192,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k nearest database rows of every query, exactly.

    Matrix products choose candidates; the distance of each candidate is then
    computed from differences in float64 and rounded to float32. Rows equally
    far at that precision are ordered by row.

    Args:
        queries: [Q, D].
        database: [N, D]; may be a memory map, which is read once.
        k: neighbours per query.
        allowed: bool [N], rows that may be found; None: all.
        block: database rows held in memory at a time.

    Returns:
        int64 [Q, k] rows of the database, nearest first, and float32 [Q, k]
        squared distances.

    Raises:
        ValueError: shapes that do not fit, k out of range, or a value that is
            not finite.
    """
    _check_pair(queries, database)
    if allowed is not None and np.shape(allowed) != (len(database),):
        raise ValueError(
            f"Expected allowed of shape ({len(database)},), one value for each "
            f"row of the database. Received: allowed.shape={allowed.shape}."
        )
    count = len(database) if allowed is None else int(np.sum(allowed))
    if not 1 <= k <= count:
        raise ValueError(
            f"Expected k from 1 to the {count} rows of the database. "
            f"Received: k={k}. Ask for fewer neighbours, or add images."
        )
    queries = np.asarray(queries, np.float32)
    best = _Best(len(queries), k)
    for start, rows, some, rough, slack in _products(queries, database, block):
        if allowed is not None:
            rough[:, ~allowed[start : start + len(rows)]] = np.inf
        bound = best.distances[some, -1]
        if k <= len(rows):
            in_block = np.partition(rough, k - 1, axis=1)[:, k - 1]
            bound = np.minimum(bound, in_block)
        near = rough <= (bound + slack)[:, None]
        if allowed is not None:
            near &= np.isfinite(rough)
        query, row = np.nonzero(near)
        distances = _exact(queries[some], rows, query, row)
        best.merge(some.start + query, start + row, distances)
    return best.rows, best.distances


def merge(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Merges the neighbours that several parts of a database gave.

    Equally far rows are ordered by row, so that parts searched by `nearest`
    give what it gives for the whole.

    Args:
        parts: of each part, int64 [Q, n] rows of the whole database and
            float32 [Q, n] squared distances; n may differ.
        k: neighbours to keep, at most the sum of n.

    Returns:
        int64 [Q, k] rows, nearest first, and float32 [Q, k] distances.
    """
    rows = np.concatenate([rows for rows, _ in parts], axis=1)
    distances = np.concatenate([far for _, far in parts], axis=1)
    order = np.lexsort((rows, distances))[:, :k]
    return (
        np.take_along_axis(rows, order, axis=1),
        np.take_along_axis(distances, order, axis=1),
    )


def ranks_of(
    queries: np.ndarray,
    database: np.ndarray,
    rows: Sequence[np.ndarray],
    *,
    block: int = 8192,
) -> list[np.ndarray]:
    """Ranks of some rows in the ranking that `nearest` would give in full.

    No ranking is held, so that a million rows are no more than a thousand.

    Args:
        queries: [Q, D].
        database: [N, D]; may be a memory map.
        rows: for each query, the database rows whose rank is wanted.
        block: database rows held in memory at a time.

    Returns:
        For each query int64 ranks from 0, in the order of its rows.

    Raises:
        ValueError: shapes that do not fit, or a value that is not finite.
    """
    _check_pair(queries, database)
    _check_one_each(queries, rows, "rows")
    queries = np.asarray(queries, np.float32)
    rows = [np.asarray(some, np.int64) for some in rows]
    wanted = distances_to(queries, database, rows)
    ranks = [np.zeros(len(some), np.int64) for some in rows]
    for start, held, some, rough, slack in _products(queries, database, block):
        for at, query in enumerate(range(some.start, some.stop)):
            if not len(rows[query]):
                continue
            order = np.argsort(rough[at])
            ordered = rough[at, order]
            first = np.searchsorted(ordered, wanted[query] - slack[at])
            last = np.searchsorted(ordered, wanted[query] + slack[at], "right")
            # What is surely nearer counts; what may be is computed exactly.
            ranks[query] += first
            unsure = np.unique(
                np.concatenate(
                    [order[a:b] for a, b in zip(first, last, strict=True)]
                )
            )
            exact = np.full(len(held), np.inf, np.float32)
            exact[unsure] = _exact(
                queries[query : query + 1], held, np.zeros_like(unsure), unsure
            )
            for number, (a, b) in enumerate(zip(first, last, strict=True)):
                near, goal = order[a:b], wanted[query][number]
                ahead = exact[near] < goal
                ahead |= (exact[near] == goal) & (
                    start + near < rows[query][number]
                )
                ranks[query][number] += ahead.sum()
    return ranks


def distances_to(
    queries: np.ndarray, database: np.ndarray, rows: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Squared distances of each query to some rows, as `nearest` has them.

    Args:
        queries: [Q, D].
        database: [N, D]; may be a memory map.
        rows: for each query, database rows.

    Returns:
        For each query float32 distances, in the order of its rows.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check_pair(queries, database)
    _check_one_each(queries, rows, "rows")
    counts = [len(some) for some in rows]
    query = np.repeat(np.arange(len(queries)), counts)
    flat = np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int64)
    distances = _exact(np.asarray(queries, np.float32), database, query, flat)
    return np.split(distances, np.cumsum(counts)[:-1]) if counts else []


def recall_of_search(
    found: np.ndarray, exact: np.ndarray, *, tolerance: float = 1e-5
) -> float:
    """Recall of approximate search against exact search, by distance.

    A neighbour counts as found where it is no farther than the farthest one
    of exact search: rows equally far may stand for each other.

    Args:
        found: [Q, k] squared distances of approximate search; NaN or infinite
            where it found nothing.
        exact: [Q, k] squared distances of exact search, nearest first.
        tolerance: rounding to overlook, in squared distance.

    Returns:
        From 0 to 1.

    Raises:
        ValueError: shapes differ, or are empty.
    """
    if np.shape(found) != np.shape(exact) or not np.size(exact):
        raise ValueError(
            "Expected distances of the same shape [Q, k]. Received: "
            f"found.shape={np.shape(found)}, exact.shape={np.shape(exact)}."
        )
    return float((found <= exact[:, -1:] + tolerance).mean())


class _Best:
    """The k nearest rows so far, of every query."""

    def __init__(self, num_queries: int, k: int):
        self.rows = np.full((num_queries, k), -1, np.int64)
        self.distances = np.full((num_queries, k), np.inf, np.float32)

    def merge(
        self, query: np.ndarray, row: np.ndarray, distance: np.ndarray
    ) -> None:
        """Takes in candidates [C]; their queries are in ascending order."""
        touched, counts = np.unique(query, return_counts=True)
        k = self.rows.shape[1]
        query = np.concatenate([np.repeat(touched, k), query])
        row = np.concatenate([self.rows[touched].reshape(-1), row])
        distance = np.concatenate(
            [self.distances[touched].reshape(-1), distance]
        )
        order = np.lexsort((row, distance, query))
        # The first k of each query's run, which has its k old rows and new.
        starts = np.cumsum(counts + k) - (counts + k)
        kept = order[(starts[:, None] + np.arange(k)).reshape(-1)]
        self.rows[touched] = row[kept].reshape(-1, k)
        self.distances[touched] = distance[kept].reshape(-1, k)


def _exact(
    queries: np.ndarray, rows: np.ndarray, query: np.ndarray, row: np.ndarray
) -> np.ndarray:
    """Squared distances of pairs, float32 [C], computed in float64."""
    distances = np.empty(len(query), np.float32)
    step = max(1, _EXACT_BLOCK // queries.shape[1])
    for start in range(0, len(query), step):
        some = slice(start, start + step)
        difference = queries[query[some]].astype(np.float64)
        difference -= rows[row[some]]
        distances[some] = np.einsum("cd,cd->c", difference, difference)
    return distances


def _products(
    queries: np.ndarray, database: np.ndarray, block: int
) -> Iterator[tuple[int, np.ndarray, slice, np.ndarray, np.ndarray]]:
    """Approximate distances, block by block.

    Yields:
        The first row of a block, its float32 rows [n, D], a slice of q
        queries, squared distances [q, n] by a matrix product, and by how much
        they may be off, [q].
    """
    query_norms = _squared_norms(queries, "queries", 0)
    for start in range(0, len(database), block):
        rows = np.asarray(database[start : start + block], np.float32)
        norms = _squared_norms(rows, "database", start)
        for first in range(0, len(queries), _QUERY_BLOCK):
            some = slice(first, min(first + _QUERY_BLOCK, len(queries)))
            rough = queries[some] @ rows.T
            rough *= -2
            rough += query_norms[some, None]
            rough += norms
            # Generous: float32 products are off by less than this.
            slack = 1e-5 * (query_norms[some] + norms.max())
            yield start, rows, some, rough, slack


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


def _check_one_each(
    queries: np.ndarray, arrays: Sequence[np.ndarray], name: str
) -> None:
    if len(queries) != len(arrays):
        raise ValueError(
            f"Expected one array of {name} for each of the {len(queries)} "
            f"queries. Received: len({name})={len(arrays)}."
        )


def _check_pair(queries: np.ndarray, database: np.ndarray) -> None:
    shapes = np.shape(queries), np.shape(database)
    if [len(shape) for shape in shapes] != [2, 2] or (
        shapes[0][1] != shapes[1][1]
    ):
        raise ValueError(
            "Expected queries [Q, D] and database [N, D] of one descriptor "
            f"length D. Received: queries.shape={shapes[0]}, "
            f"database.shape={shapes[1]}. Embed both with the same model."
        )
