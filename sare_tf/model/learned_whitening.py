"""Whitening that is learned from pairs of images which show the same.

With x the descriptors, m the mean of those of the first images of P pairs,

    S = sum over pairs (x_a - x_b)(x_a - x_b)^T / P = L L^T     (Cholesky)
    y = L^-1 (x - m)

makes differences of right pairs vary equally in all directions. Y Y^T over all
M samples has eigenvectors U, of largest eigenvalue first, and W = L^-T U. The
result is applied as that of `whitening`. Where S is singular, its diagonal
grows from 1e-10 by powers of ten until it is not.

Source: Radenovic et al., Fine-tuning CNN Image Retrieval with No Human
Annotation, 2018, section 4.3, and `whitenlearn` of its code, which is after
Mikolajczyk and Matas 2007. Axis letters: M samples, D descriptor length, d
dimensions kept, P pairs.
"""

import numpy as np

from sare_tf.model import whitening
from sare_tf.model.whitening import Fitted

# Pairs whose differences are float64 at a time.
_BLOCK = 1024
_FLOOR = 1e-10


def fit_pairs(
    descriptors: np.ndarray, pairs: np.ndarray, dimension: int
) -> Fitted:
    """Fits whitening to pairs of descriptors.

    Args:
        descriptors: [M, D], of all images of the pairs.
        pairs: int [P, 2], rows of the two images of each pair.
        dimension: d, at most D and less than M.

    Returns:
        The projection, the mean and the eigenvalues, divided by M.

    Raises:
        ValueError: no pair, rows that do not exist, a dimension that does not
            fit, or descriptors that are not finite or all the same.
    """
    pairs = np.asarray(pairs)
    samples, length = np.shape(descriptors)
    whitening.check(samples, length, dimension)
    if (
        pairs.ndim != 2
        or pairs.shape[1:] != (2,)
        or not len(pairs)
        or pairs.min() < 0
        or pairs.max() >= samples
    ):
        raise ValueError(
            f"Expected pairs [P, 2], at least one, of rows below {samples}. "
            f"Received: pairs of shape {pairs.shape}. Add images that show the "
            "same."
        )
    descriptors = np.asarray(descriptors, np.float64)
    if not np.isfinite(descriptors).all():
        raise ValueError(
            "Expected finite descriptors. Received: NaN or infinity. The model "
            "diverged: train again."
        )
    mean = descriptors[pairs[:, 0]].mean(axis=0)
    inverse = np.linalg.inv(_cholesky(_scatter(descriptors, pairs)))
    centred = (descriptors - mean) @ inverse.T
    values, vectors = np.linalg.eigh(centred.T @ centred / samples)
    order = np.argsort(-values)[:dimension]
    projection = inverse.T @ vectors[:, order]
    # An eigenvector's sign is arbitrary.
    projection *= np.where(-projection.min(0) > projection.max(0), -1, 1)
    values = np.maximum(values, 0)
    return Fitted(
        projection.astype(np.float32),
        mean,
        values[order],
        float(values[order].sum() / values.sum()),
        samples,
    )


def _scatter(descriptors: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """S, the mean product of the differences of pairs, [D, D]."""
    length = descriptors.shape[1]
    scatter = np.zeros((length, length))
    for start in range(0, len(pairs), _BLOCK):
        first, second = pairs[start : start + _BLOCK].T
        difference = descriptors[first] - descriptors[second]
        scatter += difference.T @ difference
    return scatter / len(pairs)


def _cholesky(scatter: np.ndarray) -> np.ndarray:
    """L; of a singular matrix, that of one with a larger diagonal."""
    added = 0.0
    while True:
        try:
            return np.linalg.cholesky(scatter + added * np.eye(len(scatter)))
        except np.linalg.LinAlgError:
            if added > 1:
                raise ValueError(
                    "Expected pairs of descriptors that differ. Received: "
                    f"differences of at most {np.abs(scatter).max():.3g}. Take "
                    "other images."
                ) from None
            added = max(10 * added, _FLOOR)
