"""Query expansion and database augmentation.

    q' = norm(q + sum over the n nearest images d of max(<q, d>, 0)^alpha d)

With alpha 0 every neighbour has weight 1 (average query expansion, Chum et al.
2007), else it is alpha query expansion (Radenovic et al. 2018, section 5.3).
Database augmentation does the same to every image, with its own nearest images
(Arandjelovic and Zisserman 2012). Axis letters: Q queries, N database, D
descriptor length.
"""

from collections.abc import Iterator

import numpy as np

from sare_tf.search import exact_search

# Images that are augmented at a time. Ours: the database is read once for each.
_BLOCK = 2048


def expand_queries(
    queries: np.ndarray,
    database: np.ndarray,
    *,
    count: int,
    alpha: float,
    allowed: np.ndarray | None = None,
) -> np.ndarray:
    """Adds the nearest images to queries.

    Args:
        queries: [Q, D], unit vectors.
        database: [N, D], unit vectors; may be a memory map.
        count: n.
        alpha: power of the cosine.
        allowed: bool [N], the images that are searched; None: all.

    Returns:
        float32 [Q, D], unit vectors.

    Raises:
        ValueError: fewer than n images are searched.
    """
    searched = len(database) if allowed is None else int(allowed.sum())
    check_count("expand_queries", count, searched)
    rows, squared = exact_search.nearest(
        queries, database, count, allowed=allowed
    )
    return _expanded(queries, database, rows, squared, alpha)


def augment_database(
    database: np.ndarray, *, count: int, alpha: float
) -> Iterator[np.ndarray]:
    """Adds the nearest images to each image of a database.

    Args:
        database: [N, D], unit vectors; may be a memory map.
        count: n.
        alpha: power of the cosine.

    Yields:
        float32 [b, D], unit vectors, block by block.

    Raises:
        ValueError: the database has no more than n images.
    """
    check_count("augment_database", count, len(database) - 1)
    for start in range(0, len(database), _BLOCK):
        own = np.arange(start, min(start + _BLOCK, len(database)))
        vectors = np.asarray(database[own], np.float32)
        rows, squared = others_of(vectors, database, own, count)
        yield _expanded(vectors, database, rows, squared, alpha)


def others_of(
    vectors: np.ndarray, database: np.ndarray, own: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearest images of images of a database, without themselves.

    Args:
        vectors: [b, D], of images of the database.
        database: [N, D].
        own: int [b], their rows.
        count: neighbours of each, less than N.

    Returns:
        int64 [b, count] rows, nearest first, and float32 squared distances.
    """
    rows, squared = exact_search.nearest(vectors, database, count + 1)
    # Of more copies than neighbours, the image itself may not be the first.
    is_own = rows == own[:, None]
    is_own[~is_own.any(axis=1), -1] = True
    shape = (len(own), count)
    return rows[~is_own].reshape(shape), squared[~is_own].reshape(shape)


def check_count(name: str, count: int, most: int) -> None:
    """Refuses more neighbours than there are images.

    Args:
        name: of the option.
        count: its value.
        most: images that may be neighbours.

    Raises:
        ValueError: there are fewer.
    """
    if count > most:
        raise ValueError(
            f"Expected {name} of at most {most}, the images that may be "
            f"neighbours. Received: {name}={count}. Take fewer."
        )


def _expanded(
    vectors: np.ndarray,
    database: np.ndarray,
    rows: np.ndarray,
    squared: np.ndarray,
    alpha: float,
) -> np.ndarray:
    # Of unit vectors, |q - d|^2 = 2 - 2 <q, d>.
    weights = np.maximum(1 - squared.astype(np.float64) / 2, 0) ** alpha
    total = np.asarray(vectors, np.float64).copy()
    for neighbour in range(rows.shape[1]):
        near = np.asarray(database[rows[:, neighbour]], np.float64)
        total += weights[:, neighbour, None] * near
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return (total / length).astype(np.float32)
