"""Re-ranking by k-reciprocal neighbours.

Let N(i, k) be the k nearest images of image i, and i itself, and R(i, k) those
of them that have i in theirs. With h = round(k1 / 2),

    R*(i)    R(i, k1), and R(c, h) of each of its members c of which more than
             two thirds are in R(i, k1)
    V_i      exp(-d_ij) at j in R*(i), 0 elsewhere, divided by its sum
    V'_i     the mean of V over N(i, k2 - 1)
    J(q, i)  1 - sum min(V'_q, V'_i) / sum max(V'_q, V'_i)
    d*       (1 - lambda) J(q, i) + lambda d(q, i)

Images are encoded once, without the queries: of a query only the database
counts, and no query changes what images look like. (In the authors' code, all
queries are images of the same set.) d is 1 - cosine; the authors divide by each
image's largest distance. A query has no V at itself.

Source: Zhong et al., Re-ranking Person Re-identification with k-reciprocal
Encoding, CVPR 2017. Axis letters: N images, M images that are ranked anew, D
descriptor length.
"""

from typing import TYPE_CHECKING

import numpy as np

from sare_tf.landmarks.neighbour_graph import Graph

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_MOST_SHARE = 2 / 3


class KReciprocal:
    """Ranks the nearest images of a query by k-reciprocal neighbours.

    Args:
        graph: of the database, with at least k1 neighbours.
        vectors: [N, D], unit vectors of the database.
        k1: reciprocal neighbours.
        k2: neighbours over which encodings are averaged.
        share: lambda, of the distance of descriptors.

    Call arguments:
        query: [D], a unit vector.
        rows: int64 [M], the nearest images, nearest first; at least k1.
        similarities: [M], their cosines with the query.

    Output:
        float64 [M], d*.
    """

    def __init__(
        self,
        graph: Graph,
        vectors: np.ndarray,
        *,
        k1: int,
        k2: int,
        share: float,
    ):
        self._vectors = vectors
        self._k1, self._k2, self._share = k1, k2, share
        # Cosine that a query needs to be among the k1 nearest of an image.
        self._least = np.asarray(graph.similarities[:, k1 - 1])
        near = _neighbours(graph, k1)
        reciprocal = near.multiply(near.T).tocsr()
        half = _neighbours(graph, int(np.around(k1 / 2)))
        self._half = half.multiply(half.T).tocsr()
        self._half_sizes = self._half.sum(axis=1)
        support = (reciprocal + self._members(reciprocal) @ self._half).tocsr()
        support.sort_indices()
        codes = _weighted(support, vectors)
        mean = _neighbours(graph, k2 - 1) / k2 if k2 > 1 else None
        self._codes = codes if mean is None else (mean @ codes).tocsr()
        self._plain = codes

    def _members(self, reciprocal: "csr_array") -> "csr_array":
        """Members whose own neighbours are added, as a matrix of 0 and 1."""
        shared = reciprocal.multiply(reciprocal @ self._half.T).tocoo()
        wanted = _MOST_SHARE * self._half_sizes[shared.col]
        return _ones(shared.row, shared.col, shared.shape, shared.data > wanted)

    def __call__(
        self, query: np.ndarray, rows: np.ndarray, similarities: np.ndarray
    ) -> np.ndarray:
        first = slice(self._k1)
        count = self._half.shape[0]
        mutual = similarities[first] >= self._least[rows[first]]
        members = rows[first][mutual]
        own = _ones(
            np.zeros(len(members), np.int64),
            members,
            (1, count),
            np.ones(len(members), bool),
        )
        support = (own + self._members(own) @ self._half).tocsr()
        code = np.zeros(count)
        reached = support.indices
        if len(reached):
            near = _float(self._vectors[reached]) @ _float(query)
            weights = np.exp(near - 1)
            code[reached] = weights / weights.sum()
        if self._k2 > 1:
            for row in rows[: self._k2 - 1]:
                span = slice(*self._plain.indptr[row : row + 2])
                code[self._plain.indices[span]] += self._plain.data[span]
            code /= self._k2
        ranked = self._codes[rows]
        smaller = np.minimum(ranked.data, code[ranked.indices])
        starts = ranked.indptr[:-1]
        shared = np.add.reduceat(np.append(smaller, 0), starts)
        shared[np.diff(ranked.indptr) == 0] = 0
        total = code.sum() + np.asarray(ranked.sum(axis=1)).reshape(-1)
        jaccard = 1 - shared / (total - shared)
        return (1 - self._share) * jaccard + self._share * (1 - similarities)


def _float(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float64)


def _neighbours(graph: Graph, count: int) -> "csr_array":
    """Each image's nearest ones and itself, as a matrix of 0 and 1."""
    number = len(graph.rows)
    near = np.asarray(graph.rows[:, :count], np.int64)
    columns = np.concatenate([np.arange(number)[:, None], near], axis=1)
    rows = np.repeat(np.arange(number), count + 1)
    return _ones(rows, columns.reshape(-1), (number, number), None)


def _ones(
    rows: np.ndarray,
    columns: np.ndarray,
    shape: tuple[int, int],
    where: np.ndarray | None,
) -> "csr_array":
    import scipy.sparse

    if where is not None:
        rows, columns = rows[where], columns[where]
    return scipy.sparse.coo_array(
        (np.ones(len(rows)), (rows, columns)), shape
    ).tocsr()


def _weighted(support: "csr_array", vectors: np.ndarray) -> "csr_array":
    """Encodings V: exp(-d) on the support, rows that sum to 1."""
    codes = support.copy()
    for row in range(support.shape[0]):
        span = slice(*support.indptr[row : row + 2])
        near = _float(vectors[support.indices[span]]) @ _float(vectors[row])
        weights = np.exp(near - 1)
        codes.data[span] = weights / weights.sum()
    return codes
