"""Diffusion on the neighbour graph of an index.

With s the cosine, A_ij = max(s_ij, 0)^gamma where i and j are neighbours of
each other, and D the row sums of A, the scores f of a query solve

    (I - alpha D^-1/2 A D^-1/2) f = y,    y_i = max(<q, d_i>, 0)^gamma

for the first images of its search, and 0 for the others, by at most 20 steps of
conjugate gradients. The graph is cut down to the images that are ranked anew,
the nearest ones of the query.

Source: Iscen et al., Efficient Diffusion on Region Manifolds, CVPR 2017, and
its code for global descriptors (50 neighbours, 10 to start from). Axis letters:
N images, k neighbours, M images that are ranked anew.
"""

from typing import TYPE_CHECKING

import numpy as np

from sare_tf.landmarks.neighbour_graph import Graph

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_STEPS, _TOLERANCE = 20, 1e-6


class Diffusion:
    """Ranks the nearest images of a query by diffusion.

    Args:
        graph: of the database.
        gamma: power of the cosine.
        alpha: share of a score that comes from neighbours.
        start: images from which it starts.

    Call arguments:
        rows: int64 [M], the nearest images, nearest first.
        similarities: [M], their cosines with the query.

    Output:
        float64 [M], small for images that come first.
    """

    def __init__(self, graph: Graph, *, gamma: float, alpha: float, start: int):
        self._affinity = affinity(graph, gamma)
        self._gamma, self._alpha, self._start = gamma, alpha, start

    def __call__(
        self, rows: np.ndarray, similarities: np.ndarray
    ) -> np.ndarray:
        first = np.zeros(len(rows))
        near = np.maximum(similarities[: self._start].astype(np.float64), 0)
        first[: self._start] = near**self._gamma
        return -solved(
            scaled(self._affinity[rows][:, rows]), first, self._alpha
        )


def affinity(graph: Graph, gamma: float) -> "csr_array":
    """Returns A, [N, N].

    Args:
        graph: of the database.
        gamma: power of the cosine.
    """
    import scipy.sparse

    count, neighbours = graph.rows.shape
    weights = np.maximum(np.asarray(graph.similarities, np.float64), 0)
    matrix = scipy.sparse.csr_array(
        (
            (weights**gamma).reshape(-1),
            np.asarray(graph.rows, np.int64).reshape(-1),
            np.arange(count + 1) * neighbours,
        ),
        (count, count),
    )
    # Both weights are the same up to rounding; 0 if one is absent.
    return matrix.minimum(matrix.T).tocsr()


def scaled(weights: "csr_array") -> "csr_array":
    """Returns D^-1/2 A D^-1/2.

    Args:
        weights: A, [M, M].
    """
    sums = np.asarray(weights.sum(axis=1)).reshape(-1)
    roots = np.divide(1, np.sqrt(sums), out=np.zeros_like(sums), where=sums > 0)
    return weights.multiply(roots[:, None]).multiply(roots).tocsr()


def solved(matrix: "csr_array", first: np.ndarray, alpha: float) -> np.ndarray:
    """Solves (I - alpha S) f = y by conjugate gradients.

    Args:
        matrix: S, [M, M], scaled.
        first: y, [M].
        alpha: below 1.

    Returns:
        float64 [M].
    """
    import scipy.sparse
    from scipy.sparse.linalg import cg

    laplacian = scipy.sparse.eye_array(len(first)) - alpha * matrix
    scores, _ = cg(laplacian.tocsr(), first, rtol=_TOLERANCE, maxiter=_STEPS)
    return scores
