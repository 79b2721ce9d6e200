"""One position, and its uncertainty, from several weighted points.

Points are metres east and north in one plane, float64 [Q, k, 2], NaN where
unknown; weights are [Q, k] and 0 there. Axis letters: Q photographs, k images.
"""

import numpy as np

# A point farther than this from the mean counts as this far, per axis (SUE,
# Zaffar et al., CVPR 2024).
_FAR_M = 500.0
# Ours: steps of the search for a peak.
_STEPS = 50


def weights_of(
    values: np.ndarray, known: np.ndarray, temperature: float | None
) -> np.ndarray:
    """Returns the weights of images, which sum to 1.

    Args:
        values: [Q, k], what orders them, the least first; infinite for none.
        known: bool [Q, k], whether an image has a position.
        temperature: difference of values that divides a weight by e. None: for
            each photograph a quarter of the mean difference of the other
            images to the first, which needs no measurement. Ours.

    Returns:
        float64 [Q, k], 0 for images without a position.
    """
    known = known & np.isfinite(values)
    values = np.where(known, np.asarray(values, np.float64), np.inf)
    least = values.min(axis=1, keepdims=True)
    least[~np.isfinite(least)] = 0
    above = values - least
    if temperature is None:
        temperature = mean_gap(above, known)[:, None] / 4
    scaled = np.divide(
        above, temperature, out=np.where(above > 0, np.inf, 0.0),
        where=np.asarray(temperature) > 0,
    )  # fmt: skip
    weights = np.where(known, np.exp(-np.where(known, scaled, 0)), 0)
    total = weights.sum(axis=1, keepdims=True)
    return np.divide(weights, total, out=weights, where=total > 0)


def mean(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns weighted means, float64 [Q, 2]; NaN without any weight.

    Args:
        points: [Q, k, 2].
        weights: [Q, k] of `weights_of`.
    """
    counted = np.where(weights[..., None] > 0, points, 0)
    means = np.einsum("qk,qki->qi", weights, counted)
    return np.where(weights.any(axis=1)[:, None], means, np.nan)


def peak(
    points: np.ndarray, weights: np.ndarray, bandwidth_m: float
) -> np.ndarray:
    """Returns where the density of weighted points is highest, [Q, 2].

    The density is a sum of normal distributions around the points. The search
    begins at the densest point and follows the mean shift (Comaniciu and Meer,
    PAMI 24, 2002).

    Args:
        points: [Q, k, 2].
        weights: [Q, k] of `weights_of`.
        bandwidth_m: their standard deviation, metres.
    """
    counted = np.where(weights[..., None] > 0, points, 0)

    def shares(at: np.ndarray) -> np.ndarray:
        squared = ((counted - at[:, None]) ** 2).sum(axis=2)
        return weights * np.exp(-squared / (2 * bandwidth_m**2))

    densities = [
        np.where(weights[:, number] > 0, shares(counted[:, number]).sum(1), -1)
        for number in range(points.shape[1])
    ]
    start = np.argmax(densities, axis=0)
    at = counted[np.arange(len(points)), start]
    for _ in range(_STEPS):
        near = shares(at)
        total = near.sum(axis=1, keepdims=True)
        moved = np.einsum("qk,qki->qi", near, counted)
        at = np.divide(moved, total, out=at.copy(), where=total > 0)
    return np.where(weights.any(axis=1)[:, None], at, np.nan)


def spread(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the standard deviation per axis of points around their mean.

    Its square is the uncertainty SUE: the mean of the weighted variances along
    both axes, in which no point counts as more than 500 m away.

    Args:
        points: [Q, k, 2].
        weights: [Q, k] of `weights_of`.

    Returns:
        float64 [Q] metres, NaN without any position.
    """
    away = points - mean(points, weights)[:, None]
    away = np.where(weights[..., None] > 0, np.clip(away, -_FAR_M, _FAR_M), 0)
    squared = np.einsum("qk,qki->q", weights, away**2) / 2
    return np.where(weights.any(axis=1), np.sqrt(squared), np.nan)


def circular_mean(degrees: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns weighted means of directions, float64 [Q], from 0 to 360.

    Args:
        degrees: [Q, k], NaN where unknown.
        weights: [Q, k].

    Returns:
        NaN where nothing is known, or directions cancel out.
    """
    known = np.isfinite(degrees)
    turns = np.exp(1j * np.radians(np.where(known, degrees, 0)))
    total = (np.where(known, weights, 0) * turns).sum(axis=1)
    angle = np.degrees(np.angle(total)) % 360
    return np.where(np.abs(total) > 1e-9, angle, np.nan)


def mean_gap(above: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns the mean of all values above the least one but this, [Q].

    Args:
        above: [Q, k], values less the least one.
        known: bool [Q, k].
    """
    others = np.maximum(known.sum(axis=1) - 1, 1)
    return np.where(known, above, 0).sum(axis=1) / others
