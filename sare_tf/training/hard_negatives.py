"""Mining: descriptors -> training tuples of a query, a positive, negatives.

The rule of NetVLAD and SARE (Arandjelovic et al. 2016, section 4; the code of
Liu et al. 2019, trainGaussKernalInd.m:268-302): of the potential positives the
one nearest in descriptor space; of 1,000 random negatives, together with those
that were hardest for this query last time, the 10 nearest. The pool is a
uniform draw of distinct negatives, which is what the original's repeated
drawing comes to. A pool of the whole database is ours: it costs no more, since
all distances are computed either way.

Descriptors are unit length, float32 or float16; distances are squared
Euclidean, float32. Database rows are counted from 0. Axis letters: M queries
that are mined for, N database, D descriptor length.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

# Queries of one matrix product: with NetVLAD's 32,768 numbers 48 MiB.
QUERY_BLOCK = 384
DATABASE_BLOCK = 256
# Queries whose tuples are chosen at a time.
_CHOICE_BLOCK = 128


@dataclasses.dataclass(frozen=True)
class Candidates:
    """Database rows that may be in the tuples of each query.

    Attributes:
        positives: per query, rows that may be its positive.
        same_place: per query, rows that are no negatives, ascending.
    """

    positives: Sequence[np.ndarray]
    same_place: Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Mined:
    """The tuples of one mining pass, by rows of the database.

    Attributes:
        positives: int64 [M], database rows.
        negatives: int64 [M, num_negatives], database rows, hardest first.
        positive_distances: float32 [M], squared.
        negative_distances: float32 [M, num_negatives], squared.
    """

    positives: np.ndarray
    negatives: np.ndarray
    positive_distances: np.ndarray
    negative_distances: np.ndarray

    @property
    def violating(self) -> float:
        """Share of negatives nearer to the query than its positive."""
        nearer = self.negative_distances < self.positive_distances[:, None]
        return float(nearer.mean())


def usable_queries(
    candidates: Candidates,
    *,
    database_size: int,
    num_negatives: int,
    negative_pool: int,
) -> np.ndarray:
    """Returns the queries that can be trained on.

    Args:
        candidates: candidates of all queries.
        database_size: rows of the database.
        num_negatives: negatives of a tuple.
        negative_pool: random negatives looked at per query; 0: all.

    Returns:
        int64 [M], queries with a potential positive.

    Raises:
        ValueError: no query has one, or a query has too few negatives.
    """
    if 0 < negative_pool < num_negatives:
        raise ValueError(
            "Expected a pool of at least the negatives of a tuple, or 0 for "
            f"the whole database. Received: negative_pool={negative_pool}, "
            f"num_negatives={num_negatives}. Raise --negative_pool."
        )
    positives, same_place = candidates.positives, candidates.same_place
    usable = [query for query, rows in enumerate(positives) if len(rows)]
    if not usable:
        raise ValueError(
            "Expected training queries with a potential positive. Received: "
            f"{len(positives)} queries, none with one. Check the "
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
    candidates: Candidates,
    negative_pool: int,
    remembered: np.ndarray,
    seed: int,
) -> Mined:
    """Mines one tuple per query.

    Beside its arguments it holds float32 blocks of both and the distances of
    some hundred queries. Products run on the accelerator where there is one.

    Args:
        query_descriptors: [M, D].
        database_descriptors: [N, D].
        queries: int64 [M], the numbers of the queries, all `usable_queries`.
        candidates: candidates of all queries.
        negative_pool: random negatives looked at per query; all if it is 0 or
            there are no more.
        remembered: int64 [all queries, negatives of a tuple], the hardest
            negatives of earlier passes, -1 where there are none. Updated in
            place.
        seed: seed of the random pools. A query's pool depends only on it and on
            the query's number.

    Returns:
        The tuples, one per entry of `queries`, in that order.

    Raises:
        ValueError: a descriptor that is not finite.
    """
    num_negatives = remembered.shape[1]
    positives = np.empty(len(queries), np.int64)
    negatives = np.empty((len(queries), num_negatives), np.int64)
    positive_distances = np.empty(len(queries), np.float32)
    negative_distances = np.empty((len(queries), num_negatives), np.float32)
    for block, distances in _distances(query_descriptors, database_descriptors):
        numbers = queries[block]
        positives[block], positive_distances[block] = _nearest_of(
            distances, [candidates.positives[number] for number in numbers]
        )
        # Images that are no candidates are set beyond every distance.
        if negative_pool:
            out = np.ones(distances.shape, bool)
            kept = remembered[numbers]
            row, place = np.nonzero(kept >= 0)
            out[row, kept[row, place]] = False
            for row, number in enumerate(numbers):
                pool = _pool(
                    np.random.default_rng((seed, int(number))),
                    len(database_descriptors),
                    candidates.same_place[number],
                    negative_pool,
                )
                out[row, pool] = False
            distances[out] = np.inf
        row, same = _pairs([candidates.same_place[n] for n in numbers])
        distances[row, same] = np.inf
        negatives[block], negative_distances[block] = _nearest(
            distances, num_negatives
        )
        remembered[numbers] = negatives[block]
    return Mined(positives, negatives, positive_distances, negative_distances)


def _distances(
    queries: np.ndarray, database: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
    """Computes squared distances, of a few queries at a time.

    Yields:
        Slice of the M queries, and their distances to the database,
        float32 [., N].
    """
    for start in range(0, len(queries), QUERY_BLOCK):
        block = _as_float32(queries[start : start + QUERY_BLOCK])
        distances = np.empty((len(block), len(database)), np.float32)
        for first in range(0, len(database), DATABASE_BLOCK):
            rows = _as_float32(database[first : first + DATABASE_BLOCK])
            products = tf.matmul(block, rows, transpose_b=True).numpy()
            distances[:, first : first + len(rows)] = products
        bad = np.argwhere(~np.isfinite(distances))
        if len(bad):
            raise ValueError(
                "Expected finite descriptors. Received: a value that is not, "
                f"in row {start + bad[0, 0]} of the queries or row "
                f"{bad[0, 1]} of the database."
            )
        # ||q - d||^2 of unit vectors; rounding must not make it negative.
        distances *= -2.0
        distances += 2.0
        np.maximum(distances, 0.0, out=distances)
        for first in range(0, len(block), _CHOICE_BLOCK):
            few = distances[first : first + _CHOICE_BLOCK]
            yield slice(start + first, start + first + len(few)), few


def _as_float32(descriptors: np.ndarray) -> tf.Tensor:
    """Casts on the device, to which float16 travels as such."""
    return tf.cast(tf.constant(descriptors), tf.float32)


def _pairs(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Lists of database rows as pairs: position of the list, database row."""
    lengths = [len(of_query) for of_query in rows]
    return np.repeat(np.arange(len(rows)), lengths), np.concatenate(rows)


def _nearest_of(
    distances: np.ndarray, candidates: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of each query's candidates, and its distance."""
    row, candidate = _pairs(candidates)
    # By query, then by distance: the first of each query's run is wanted.
    order = np.lexsort((candidate, distances[row, candidate], row))
    lengths = [len(of_query) for of_query in candidates]
    first = order[np.cumsum(lengths) - lengths]
    return candidate[first], distances[row[first], candidate[first]]


def _nearest(distances: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of each row, nearest first, and their distances."""
    chosen = np.argpartition(distances, k - 1, axis=1)[:, :k]
    near = np.take_along_axis(distances, chosen, axis=1)
    order = np.lexsort((chosen, near))  # by distance, then by row
    return (
        np.take_along_axis(chosen, order, axis=1),
        np.take_along_axis(near, order, axis=1),
    )


def _pool(
    rng: np.random.Generator,
    database_size: int,
    same_place: np.ndarray,
    size: int,
) -> np.ndarray:
    """Up to `size` distinct database rows outside `same_place`."""
    available = database_size - len(same_place)
    if size >= available:
        return np.delete(np.arange(database_size), same_place)
    # Positions among the negatives only, then shifted past the others: row
    # same_place[i] - i is where the i-th excluded row would be inserted.
    chosen = rng.choice(available, size, replace=False, shuffle=False)
    gaps = same_place - np.arange(len(same_place))
    return chosen + np.searchsorted(gaps, chosen, side="right")
