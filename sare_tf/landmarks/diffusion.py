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

import numpy as np

from sare_tf.landmarks.neighbour_graph import Graph

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
        self._affinity = matrix.minimum(matrix.T).tocsr()
        self._gamma, self._alpha, self._start = gamma, alpha, start

    def __call__(
        self, rows: np.ndarray, similarities: np.ndarray
    ) -> np.ndarray:
        import scipy.sparse
        from scipy.sparse.linalg import cg

        affinity = self._affinity[rows][:, rows]
        sums = np.asarray(affinity.sum(axis=1)).reshape(-1)
        roots = np.divide(
            1, np.sqrt(sums), out=np.zeros_like(sums), where=sums > 0
        )
        scaled = affinity.multiply(roots[:, None]).multiply(roots)
        laplacian = scipy.sparse.eye_array(len(rows)) - self._alpha * scaled
        first = np.zeros(len(rows))
        near = np.maximum(similarities[: self._start].astype(np.float64), 0)
        first[: self._start] = near**self._gamma
        scores, _ = cg(
            laplacian.tocsr(), first, rtol=_TOLERANCE, maxiter=_STEPS
        )
        return -scores
