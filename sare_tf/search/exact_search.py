"""Exact neighbours and ranks, in plain numpy.

Descriptors are float [Q, D] and [N, D]; distances are squared Euclidean, the
sum over D of squared differences. Neighbours are rows of the database, nearest
first. Axis letters: Q queries, N database, D descriptor length, k neighbours.
"""

from collections.abc import Sequence

import numpy as np

from sare_tf.search import distance_blocks
from sare_tf.search.descriptor_arrays import GatheredRows

# Where a smaller share of the rows is allowed, only these are read. Ours: a
# copy of rows costs less than products with rows that are not allowed.
_GATHERED_SHARE = 0.9


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
    computed from differences in float64 and rounded to float32. Rows with the
    same rounded distance are ordered by row.

    Args:
        queries: [Q, D].
        database: [N, D]; may be a memory map, which is read once.
        k: neighbours per query.
        allowed: bool [N], rows that may be neighbours; None: all. If they are
            few, the others are not read.
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
    if allowed is not None and count < _GATHERED_SHARE * len(database):
        kept = np.flatnonzero(allowed)
        rows, distances = nearest(
            queries, GatheredRows([database], [kept]), k, block=block
        )
        return kept[rows], distances
    queries = np.asarray(queries, np.float32)
    best = _Best(len(queries), k)
    for (
        start,
        rows,
        batch,
        rough,
        slack,
    ) in distance_blocks.approximate_by_block(queries, database, block):
        if allowed is not None:
            rough[:, ~allowed[start : start + len(rows)]] = np.inf
        bound = best.distances[batch, -1]
        if k <= len(rows):
            in_block = np.partition(rough, k - 1, axis=1)[:, k - 1]
            bound = np.minimum(bound, in_block)
        near = rough <= (bound + slack)[:, None]
        if allowed is not None:
            near &= np.isfinite(rough)
        query, row = np.nonzero(near)
        distances = distance_blocks.exact_of_pairs(
            queries[batch], rows, query, row
        )
        best.merge(batch.start + query, start + row, distances)
    return best.rows, best.distances


def merge(
    neighbours: Sequence[tuple[np.ndarray, np.ndarray]], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Merges the neighbours that were found in several parts of a database.

    Rows with the same distance are ordered by row, so the result is that of
    `nearest` over the whole if `nearest` searched the parts.

    Args:
        neighbours: for each part, int64 [Q, n] rows of the whole database and
            float32 [Q, n] squared distances; n may differ.
        k: neighbours to keep, at most the sum of n.

    Returns:
        int64 [Q, k] rows, nearest first, and float32 [Q, k] distances.
    """
    rows = np.concatenate([rows for rows, _ in neighbours], axis=1)
    distances = np.concatenate([far for _, far in neighbours], axis=1)
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
    """Returns the ranks of given rows among all rows, as `nearest` ranks them.

    No full ranking is held, so memory does not grow with the database.

    Args:
        queries: [Q, D].
        database: [N, D]; may be a memory map.
        rows: for each query, the database rows whose rank is wanted.
        block: database rows held in memory at a time.

    Returns:
        For each query its ranks, int64 from 0, in the order of its rows.

    Raises:
        ValueError: shapes that do not fit, or a value that is not finite.
    """
    _check_pair(queries, database)
    _check_one_each(queries, rows, "rows")
    queries = np.asarray(queries, np.float32)
    rows = [np.asarray(of_query, np.int64) for of_query in rows]
    wanted = distances_to(queries, database, rows)
    ranks = [np.zeros(len(of_query), np.int64) for of_query in rows]
    for (
        start,
        held,
        batch,
        rough,
        slack,
    ) in distance_blocks.approximate_by_block(queries, database, block):
        for query in range(batch.start, batch.stop):
            if len(rows[query]):
                ranks[query] += _rows_ahead(
                    queries[query : query + 1],
                    held,
                    rough[query - batch.start],
                    slack[query - batch.start],
                    rows[query] - start,
                    wanted[query],
                )
    return ranks


def _rows_ahead(
    query: np.ndarray,
    held: np.ndarray,
    rough: np.ndarray,
    slack: float,
    rows: np.ndarray,
    wanted: np.ndarray,
) -> np.ndarray:
    """Counts the rows of a block that rank ahead of given rows.

    Args:
        query: float32 [1, D].
        held: the block, float32 [n, D].
        rough: its squared distances to the query by a matrix product, [n].
        slack: by how much `rough` may be off.
        rows: int64 [m], the given rows, counted from the start of the block;
            they may lie outside of it.
        wanted: float32 [m], their exact squared distances.

    Returns:
        int64 [m].
    """
    order = np.argsort(rough)
    ordered = rough[order]
    first = np.searchsorted(ordered, wanted - slack)
    last = np.searchsorted(ordered, wanted + slack, "right")
    # Rows before `first` are surely ahead; up to `last` the exact distance
    # decides.
    unsure = np.unique(
        np.concatenate([order[a:b] for a, b in zip(first, last, strict=True)])
    )
    exact = np.full(len(held), np.inf, np.float32)
    exact[unsure] = distance_blocks.exact_of_pairs(
        query, held, np.zeros_like(unsure), unsure
    )
    ahead = first.astype(np.int64)
    for number, (a, b) in enumerate(zip(first, last, strict=True)):
        near, distance = order[a:b], wanted[number]
        nearer = exact[near] < distance
        nearer |= (exact[near] == distance) & (near < rows[number])
        ahead[number] += nearer.sum()
    return ahead


def distances_to(
    queries: np.ndarray, database: np.ndarray, rows: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Returns squared distances of each query to given rows.

    They are computed as those of `nearest`.

    Args:
        queries: [Q, D].
        database: [N, D]; may be a memory map.
        rows: for each query, database rows.

    Returns:
        For each query its distances, float32, in the order of its rows.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check_pair(queries, database)
    _check_one_each(queries, rows, "rows")
    counts = [len(of_query) for of_query in rows]
    query = np.repeat(np.arange(len(queries)), counts)
    flat = np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int64)
    distances = distance_blocks.exact_of_pairs(
        np.asarray(queries, np.float32), database, query, flat
    )
    return np.split(distances, np.cumsum(counts)[:-1]) if counts else []


def recall_of_search(
    approximate: np.ndarray, exact: np.ndarray, *, tolerance: float = 1e-5
) -> float:
    """Returns the recall of approximate search against exact search.

    It is counted by distance: a neighbour counts if it is no farther than the
    farthest one of exact search, so rows with the same distance may stand for
    each other.

    Args:
        approximate: [Q, k] squared distances of approximate search; NaN or
            infinite for no neighbour.
        exact: [Q, k] squared distances of exact search, nearest first.
        tolerance: rounding to overlook, in squared distance.

    Returns:
        The recall, from 0 to 1.

    Raises:
        ValueError: shapes differ, or are empty.
    """
    if np.shape(approximate) != np.shape(exact) or not np.size(exact):
        raise ValueError(
            "Expected distances of the same shape [Q, k]. Received: "
            f"approximate.shape={np.shape(approximate)}, "
            f"exact.shape={np.shape(exact)}."
        )
    return float((approximate <= exact[:, -1:] + tolerance).mean())


class _Best:
    """The k nearest rows of every query so far."""

    def __init__(self, num_queries: int, k: int):
        self.rows = np.full((num_queries, k), -1, np.int64)
        self.distances = np.full((num_queries, k), np.inf, np.float32)

    def merge(
        self, query: np.ndarray, row: np.ndarray, distance: np.ndarray
    ) -> None:
        """Merges candidates [C], whose queries are in ascending order."""
        touched, counts = np.unique(query, return_counts=True)
        k = self.rows.shape[1]
        query = np.concatenate([np.repeat(touched, k), query])
        row = np.concatenate([self.rows[touched].reshape(-1), row])
        distance = np.concatenate(
            [self.distances[touched].reshape(-1), distance]
        )
        order = np.lexsort((row, distance, query))
        # The first k of each query's run of its k old rows and its candidates.
        starts = np.cumsum(counts + k) - (counts + k)
        kept = order[(starts[:, None] + np.arange(k)).reshape(-1)]
        self.rows[touched] = row[kept].reshape(-1, k)
        self.distances[touched] = distance[kept].reshape(-1, k)


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
