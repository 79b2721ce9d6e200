"""Mining: descriptors -> training tuples of a query, a positive, negatives.

The rule of NetVLAD and SARE (Arandjelovic et al. 2016, section 4; the code of
Liu et al. 2019): of the potential positives the one nearest in descriptor
space; of a random pool of negatives, together with those that were hardest for
this query last time, the nearest. Descriptors are unit length, float32 or
float16; distances are squared Euclidean. Query and database rows are counted
from 0 within their own arrays.
"""

import dataclasses

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Mined:
    """What one mining pass found.

    Attributes:
        queries: int64 [M], the query rows with a positive, in the order given.
        positives: int64 [M], database rows.
        negatives: int64 [M, N], database rows, hardest first.
        positive_distances: float32 [M], squared.
        negative_distances: float32 [M, N], squared.
    """

    queries: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    positive_distances: np.ndarray
    negative_distances: np.ndarray

    @property
    def violating(self) -> float:
        """Share of negatives nearer to the query than its positive."""
        nearer = self.negative_distances < self.positive_distances[:, None]
        return float(nearer.mean())


def check_places(
    potential_positives: list[np.ndarray],
    same_place: list[np.ndarray],
    *,
    database_size: int,
    num_negatives: int,
) -> np.ndarray:
    """Finds the queries that can be trained on.

    Args:
        potential_positives: per query, database rows that may be its positive.
        same_place: per query, database rows that are no negatives.
        database_size: rows of the database.
        num_negatives: negatives of a tuple.

    Returns:
        int64 [M], queries with a potential positive.

    Raises:
        ValueError: no query has one, or a query has too few negatives.
    """
    usable = [q for q, rows in enumerate(potential_positives) if len(rows)]
    if not usable:
        raise ValueError(
            "Expected training queries with a potential positive. Received: "
            f"{len(potential_positives)} queries, none with one. Check the "
            "coordinates or place folders, and --train_positive_radius_m."
        )
    fewest = min(usable, key=lambda q: database_size - len(same_place[q]))
    available = database_size - len(same_place[fewest])
    if available < num_negatives:
        raise ValueError(
            f"Expected at least {num_negatives} negatives for every query. "
            f"Received: query {fewest} has {available} of {database_size} "
            "database images. Add images of other places, or lower "
            "--num_negatives."
        )
    return np.asarray(usable, np.int64)


def mine(
    query_descriptors: np.ndarray,
    database_descriptors: np.ndarray,
    *,
    queries: np.ndarray,
    potential_positives: list[np.ndarray],
    same_place: list[np.ndarray],
    num_negatives: int,
    negative_pool: int,
    remembered: np.ndarray,
    seed: int,
    block: int = 256,
) -> Mined:
    """Mines one tuple per query.

    Args:
        query_descriptors: [Q, D].
        database_descriptors: [N, D].
        queries: int64 [M], the query rows to mine for, each with a potential
            positive and enough negatives (`check_places`).
        potential_positives: per query row, database rows, sorted.
        same_place: per query row, database rows that are no negatives, sorted.
        num_negatives: negatives of a tuple.
        negative_pool: random negatives looked at per query; the whole database
            if it is at least that large.
        remembered: int64 [Q, num_negatives], the hardest negatives of earlier
            passes, -1 where there are none. Updated in place.
        seed: of the random pool.
        block: queries of one matrix product, which holds block x N floats.

    Returns:
        The tuples, one per entry of `queries`.
    """
    database = tf.constant(database_descriptors)
    database_size = len(database_descriptors)
    positives = np.empty(len(queries), np.int64)
    negatives = np.empty((len(queries), num_negatives), np.int64)
    positive_distances = np.empty(len(queries), np.float32)
    negative_distances = np.empty((len(queries), num_negatives), np.float32)
    for start in range(0, len(queries), block):
        rows = queries[start : start + block]
        product = tf.matmul(query_descriptors[rows], database, transpose_b=True)
        distances = np.maximum(2.0 - 2.0 * product.numpy(), 0.0)
        distances = distances.astype(np.float32)
        for offset, (query, row) in enumerate(
            zip(rows, distances, strict=True)
        ):
            at = start + offset
            near = potential_positives[query]
            positives[at] = near[np.argmin(row[near])]
            positive_distances[at] = row[positives[at]]
            # Seeded by query, so that the order of queries does not matter.
            rng = np.random.default_rng((seed, int(query)))
            pool = _negative_pool(
                rng, database_size, same_place[query], negative_pool
            )
            kept = remembered[query]
            pool = np.union1d(pool, kept[kept >= 0])
            hardest = pool[np.argsort(row[pool], kind="stable")]
            negatives[at] = hardest[:num_negatives]
            negative_distances[at] = row[negatives[at]]
            remembered[query] = negatives[at]
    return Mined(
        queries, positives, negatives, positive_distances, negative_distances
    )


def _negative_pool(
    rng: np.random.Generator,
    database_size: int,
    same_place: np.ndarray,
    size: int,
) -> np.ndarray:
    """Up to `size` distinct database rows outside `same_place`, sorted."""
    available = database_size - len(same_place)
    if size >= available:
        return np.delete(np.arange(database_size), same_place)
    # Positions among the negatives only, then shifted past the others: row
    # same_place[i] - i is where the i-th excluded row would be inserted.
    chosen = np.sort(rng.choice(available, size, replace=False))
    gaps = same_place - np.arange(len(same_place))
    return chosen + np.searchsorted(gaps, chosen, side="right")
