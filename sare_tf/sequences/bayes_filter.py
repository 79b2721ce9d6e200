"""A discrete Bayes filter over the images of a database.

The camera is at one image n at each query t. With the motion P (`motion`), the
probability e of a jump to anywhere, and the evidence of a query

    l_tn = exp(-r_t d_tn),    r_t = ln(ratio) / (q.975(d_t) - q.025(d_t)),

where q are quantiles over the database, the filter over a window of queries is

    a_first ~ l_first,    a_t ~ l_t * ((1 - e) P^T a_{t-1} + e / N)

and smoothing multiplies it with what the later queries of the window say:

    b_last = 1,
    b_t ~ (1 - e) P (l_{t+1} * b_{t+1}) + e <l_{t+1}, b_{t+1}> / N

Source: Xu, Suenderhauf and Milford 2020 (see `motion`), with ratio 5; there the
rate r is that of the first query of a drive. Axis letters: T queries, N images.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse

_QUANTILES = (0.025, 0.975)


def evidence_rates(differences: np.ndarray, ratio: float) -> np.ndarray:
    """Returns the rate r of each query, float32 [T, 1].

    It is 0 where all images differ by the same, which says nothing.

    Args:
        differences: [T, N].
        ratio: how much likelier a near image is than a far one.
    """
    low, high = np.quantile(differences, _QUANTILES, axis=1, keepdims=True)
    spread = high - low
    rates = np.divide(
        np.log(ratio), spread, out=np.zeros_like(spread), where=spread > 1e-9
    )
    return rates.astype(np.float32)


def likelihoods(differences: np.ndarray, ratio: float) -> np.ndarray:
    """Returns the evidence of each query, at most 1, float32 [T, N].

    Args:
        differences: [T, N].
        ratio: how much likelier a near image is than a far one.
    """
    least = differences.min(axis=1, keepdims=True)
    return np.exp(evidence_rates(differences, ratio) * (least - differences))


class BayesFilter:
    """The filter, and its smoothing, for windows of queries.

    Args:
        motion: P [N, N].
        jump: e.
    """

    def __init__(self, motion: "scipy.sparse.csr_array", *, jump: float):
        self._motion = motion
        self._transposed = motion.T.tocsr()
        self._jump = jump

    def filter(
        self, evidence: np.ndarray, first: np.ndarray, last: np.ndarray
    ) -> np.ndarray:
        """Filters windows of queries.

        Args:
            evidence: float32 [T, N].
            first: int [W], the first query of each window.
            last: int [W], its last one.

        Returns:
            float32 [W, N], the belief at the last query of each window.
        """
        belief = _normalised(evidence[first])
        for step in range(1, int((last - first).max(initial=0)) + 1):
            ahead = np.flatnonzero(first + step <= last)
            moved = (self._transposed @ belief[ahead].T).T
            moved *= 1 - self._jump
            moved += self._jump / evidence.shape[1]
            moved *= evidence[first[ahead] + step]
            belief[ahead] = _normalised(moved)
        return belief

    def smooth(
        self,
        evidence: np.ndarray,
        *,
        first: np.ndarray,
        centre: np.ndarray,
        last: np.ndarray,
    ) -> np.ndarray:
        """Smooths windows of queries.

        Args:
            evidence: float32 [T, N].
            first: int [W], the first query of each window.
            centre: int [W], the query that is looked up.
            last: int [W], the last query.

        Returns:
            float32 [W, N], the belief at each centre.
        """
        later = np.ones((len(centre), evidence.shape[1]), np.float32)
        for step in range(int((last - centre).max(initial=0)), 0, -1):
            ahead = np.flatnonzero(centre + step <= last)
            seen = later[ahead] * evidence[centre[ahead] + step]
            seen = _normalised(seen)
            moved = (self._motion @ seen.T).T
            moved *= 1 - self._jump
            moved += self._jump / evidence.shape[1]
            later[ahead] = moved
        return _normalised(self.filter(evidence, first, centre) * later)


def _normalised(belief: np.ndarray) -> np.ndarray:
    """Beliefs whose rows sum to 1; uniform where nothing is left."""
    total = belief.sum(axis=1, keepdims=True, dtype=np.float64)
    equal = np.full(belief.shape, 1 / belief.shape[1])
    return np.divide(belief, total, out=equal, where=total > 0).astype(
        np.float32
    )
