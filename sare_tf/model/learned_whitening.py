"""Whitening that is learned from images of the same places.

PCA keeps the directions in which descriptors vary most. This keeps those in
which images of one place differ least, compared with images of different
places. Axis letters: M samples, D descriptor length, P pairs of the same place,
r dimensions between, d dimensions kept.

With z the descriptors after PCA whitening to r dimensions, in which all images
together have the covariance I, and S = mean of (z_i - z_j) (z_i - z_j)^T / 2
over the pairs,

    W = W_pca V diag(1 / sqrt(lambda)),

V the eigenvectors of S of the d smallest eigenvalues, smallest first.

Source: Mikolajczyk, Matas, "Improving Descriptors for Fast Tree Matching by
Optimal Linear Projection", ICCV 2007; Radenovic, Tolias, Chum, "Fine-tuning CNN
Image Retrieval with No Human Annotation", TPAMI 2019, section 3.4. The PCA
before it bounds memory, and stands for their non-matching pairs.
"""

import dataclasses

import numpy as np

from sare_tf.model import whitening

# Of the mean eigenvalue, added to all: few pairs have directions in which they
# happen not to differ. Ours.
_SHRINKAGE = 0.1
# Dimensions between, for each one that is kept. Ours.
_BETWEEN = 4


def fit(
    descriptors: np.ndarray, pairs: np.ndarray, dimension: int
) -> whitening.Fitted:
    """Fits whitening to descriptors and to which of them show one place.

    Args:
        descriptors: [M, D]; may be a memory map.
        pairs: int [P, 2], rows of `descriptors` of the same place; each pair
            once, P at least d.
        dimension: d, at most D and less than M.

    Returns:
        As `whitening.fit`; the explained variance is that of the PCA before.

    Raises:
        ValueError: as `whitening.fit`, or fewer pairs than dimensions.
    """
    samples, length = descriptors.shape
    whitening.check(samples, length, dimension)
    if len(pairs) < dimension:
        raise ValueError(
            f"Expected at least {dimension} pairs of images of the same place "
            f"to learn {dimension} dimensions. Received: {len(pairs)} pairs. "
            "Add images, lower the dimension, or whiten by PCA."
        )
    between = min(_BETWEEN * dimension, samples // 4, length, len(pairs))
    first = whitening.fit(descriptors, max(between, dimension))
    projected = _projected(descriptors, first)
    differences = projected[pairs[:, 0]] - projected[pairs[:, 1]]
    within = differences.T @ differences / (2 * len(pairs))
    eigenvalues, vectors = np.linalg.eigh(within)
    eigenvalues = eigenvalues + _SHRINKAGE * eigenvalues.mean()
    rotation = vectors / np.sqrt(eigenvalues)
    projection = first.projection @ np.float32(rotation[:, :dimension])
    projection *= np.where(-projection.min(0) > projection.max(0), -1, 1)
    return dataclasses.replace(
        first, projection=projection, eigenvalues=eigenvalues[:dimension]
    )


def _projected(descriptors, first) -> np.ndarray:
    """Whitened by PCA, not of unit length, float64 [M, r]."""
    rows = np.empty((len(descriptors), first.projection.shape[1]))
    for start in range(0, len(rows), 1024):
        block = np.asarray(descriptors[start : start + 1024], np.float32)
        rows[start : start + 1024] = block @ first.projection + first.bias
    return rows
