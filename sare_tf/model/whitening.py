"""PCA whitening: shorter descriptors whose dimensions have equal variance.

Axis letters: M samples, D descriptor length, d dimensions kept. With X the
centred samples, lambda the d largest eigenvalues of X^T X / (M - 1), largest
first, and U their eigenvectors,

    W = U diag(1 / sqrt(lambda + 1e-9)),    y = W^T x - W^T mean,

and y is brought to unit length, y / sqrt(sum y^2 + 1e-12). Fewer dimensions
are the first of more: cutting y and normalising again gives what a smaller d
gives. W belongs to one order of the descriptor's elements; NetVLAD's here is
cluster-major, while the original MATLAB code's is channel-major.

Source: addPCA.m of the code of NetVLAD with relja_PCA.m, which SARE uses.
"""

import dataclasses

import keras
import numpy as np
from absl import logging
from keras import ops

from sare_tf.model.aggregation import unit_length

# Added to eigenvalues, and their lower bound in the dual form: addPCA.m and
# relja_PCA.m.
_FLOOR = 1e-9
# Rows of a projection that are float64 at a time.
_BIAS_BLOCK = 1024


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What `fit` found.

    Attributes:
        projection: W, float32 [D, d]. Of each column the element of largest
            magnitude is positive.
        mean: float64 [D].
        eigenvalues: float64 [d], the variances before whitening.
        explained_variance: their share of the variance of all D dimensions.
        samples: M.
    """

    projection: np.ndarray
    mean: np.ndarray
    eigenvalues: np.ndarray
    explained_variance: float
    samples: int

    @property
    def bias(self) -> np.ndarray:
        """-W^T mean, float32 [d]."""
        product = sum(
            self.mean[rows] @ self.projection[rows]
            for rows in _blocks(len(self.mean), _BIAS_BLOCK)
        )
        return (-product).astype(np.float32)


def fit(
    descriptors: np.ndarray, dimension: int, *, block_mebibytes: int = 128
) -> Fitted:
    """Fits whitening to descriptors.

    Where samples are fewer than D, the eigenvectors come from the samples'
    M x M products (the dual form), else from the D x D covariance. Sums are
    float64. Memory beside the descriptors: 8 N^2 + 8 N d bytes, N the smaller
    of M and D, then 8 N d + 4 D d; and a few blocks. For 10,000 x 32,768 to
    4,096 that is 1.4 GB (benchmarks/RESULTS.md).

    Args:
        descriptors: [M, D]; may be a memory map, which is read in blocks.
        dimension: d, at most D and less than M.
        block_mebibytes: size of a block of descriptors in float64.

    Returns:
        The projection, the mean and the eigenvalues.

    Raises:
        ValueError: another rank, a dimension that does not fit, too few
            samples, or values that are not finite.
    """
    if np.ndim(descriptors) != 2:
        raise ValueError(
            "Expected descriptors, [M, D]. Received: descriptors.shape="
            f"{np.shape(descriptors)}."
        )
    samples, length = descriptors.shape
    check(samples, length, dimension)
    block = max(1, (block_mebibytes << 20) // (8 * min(samples, length)))
    if samples < length:
        found = _dual(descriptors, dimension, block)
    else:
        found = _primal(descriptors, dimension, block)
    projection, mean, eigenvalues, total = found
    # An eigenvector's sign is arbitrary.
    projection *= np.where(-projection.min(0) > projection.max(0), -1, 1)
    _check_rank(eigenvalues, samples)
    explained = float(eigenvalues.sum() / total)
    return Fitted(projection, mean, eigenvalues, explained, samples)


def check(samples: int, length: int, dimension: int) -> None:
    """Refuses a dimension that samples of that length cannot give.

    Raises:
        ValueError: says how many samples are needed.
    """
    if not 1 <= dimension <= length:
        raise ValueError(
            f"Expected a dimension from 1 to {length}, the length of a "
            f"descriptor. Received: dimension={dimension}."
        )
    if samples <= dimension:
        raise ValueError(
            f"Expected at least {dimension + 1} samples to whiten to "
            f"{dimension} dimensions. Received: {samples} samples. Add "
            f"images, or lower the dimension to at most {samples - 1}."
        )


def fit_whitening(descriptors: np.ndarray, dimension: int) -> "Whitening":
    """Fits a layer of PCA whitening to descriptors.

    The layer shortens descriptors to their `dimension` directions of largest
    variance, divides each by its standard deviation, and brings the result to
    unit length. `export` takes it:

    ```python
    descriptors = embedder.predict(images)
    whitening = sare_tf.fit_whitening(descriptors, 256)
    sare_tf.export(embedder, path, height=480, width=640, whitening=whitening)
    ```

    Source: addPCA.m of the code of NetVLAD (see the module).

    Args:
        descriptors: [M, D], of images that differ from those of an evaluation;
            may be a memory map.
        dimension: d, at most D and less than M.

    Returns:
        The layer, [B, D] -> float32 [B, d].

    Raises:
        ValueError: another rank, a dimension that does not fit, too few
            samples, or values that are not finite.
    """
    layer = Whitening(dimension, name="whitening")
    layer.assign(fit(descriptors, dimension))
    return layer


def whiten(descriptors, projection, bias):
    """Applies whitening.

    Args:
        descriptors: [B, D].
        projection: W, float32 [D, d].
        bias: -W^T mean, float32 [d].

    Returns:
        Rows of unit length, float32 [B, d].
    """
    descriptors = ops.cast(descriptors, "float32")
    return unit_length(ops.matmul(descriptors, projection) + bias)


@keras.saving.register_keras_serializable(package="sare_tf")
class Whitening(keras.layers.Layer):
    """Shortens and whitens descriptors.

    The new layer has random weights; `assign` sets those that `fit` found.

    Source: addPCA.m of the code of NetVLAD (see the module).

    Args:
        dimension: d, length of the result.

    Call arguments:
        descriptors: descriptors.

    Input shape:
        [B, D].

    Output shape:
        [B, d], float32 under every dtype policy.

    Example:

    ```python
    layer = Whitening(4096)
    layer.assign(whitening.fit(descriptors, 4096))
    whitened = layer(descriptors)
    ```
    """

    def __init__(self, dimension, **kwargs):
        super().__init__(**kwargs)
        if dimension < 1:
            raise ValueError(
                f"Expected a positive dimension. Received: "
                f"dimension={dimension}."
            )
        self.dimension = dimension

    def build(self, input_shape):
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise ValueError(
                "Expected descriptors, [B, D], with known D. Received: "
                f"input_shape={tuple(input_shape)}."
            )
        self.projection = self.add_weight(
            shape=(input_shape[-1], self.dimension),
            initializer="glorot_uniform",
            autocast=False,
            name="projection",
        )
        self.bias = self.add_weight(
            shape=(self.dimension,),
            initializer="zeros",
            autocast=False,
            name="bias",
        )

    def call(self, descriptors):
        return whiten(descriptors, self.projection, self.bias)

    def assign(self, fitted: Fitted) -> None:
        """Sets the weights; builds the layer if it is not.

        Raises:
            ValueError: fitted to another dimension or descriptor length.
        """
        length, dimension = fitted.projection.shape
        if not self.built:
            self.build((None, length))
            self.built = True
        expected = tuple(self.projection.shape)
        if expected != (length, dimension):
            raise ValueError(
                f"Expected a projection of shape {expected}. Received: "
                f"fitted.projection.shape={(length, dimension)}."
            )
        self.projection.assign(fitted.projection)
        self.bias.assign(fitted.bias)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.dimension)

    def compute_output_spec(self, descriptors):
        shape = self.compute_output_shape(descriptors.shape)
        return keras.KerasTensor(shape, dtype="float32")

    def get_config(self):
        return {**super().get_config(), "dimension": self.dimension}


def _dual(descriptors, dimension, block):
    """By the samples' products, in blocks of columns."""
    from scipy.linalg.blas import dsyrk

    samples, length = descriptors.shape
    mean = np.empty(length)
    products = np.zeros((samples, samples), order="F")
    for columns in _blocks(length, block):
        part = _finite(descriptors[:, columns])
        mean[columns] = part.mean(axis=0)
        part -= mean[columns]
        # Fills the lower triangle, in place.
        products = dsyrk(
            1 / (samples - 1),
            part.T,
            trans=1,
            beta=1,
            c=products,
            lower=1,
            overwrite_c=1,
        )
    total = float(np.trace(products))
    eigenvalues, vectors = _largest(products, dimension)
    del products
    vectors /= np.sqrt(np.maximum(eigenvalues, _FLOOR) * (samples - 1))
    vectors /= np.sqrt(eigenvalues + _FLOOR)
    projection = np.empty((length, dimension), np.float32)
    for columns in _blocks(length, block):
        part = np.asarray(descriptors[:, columns], np.float64) - mean[columns]
        projection[columns] = part.T @ vectors
    return projection, mean, eigenvalues, total


def _primal(descriptors, dimension, block):
    """By the covariance, in blocks of rows."""
    from scipy.linalg.blas import dsyrk

    samples, length = descriptors.shape
    mean = np.zeros(length)
    for rows in _blocks(samples, block):
        mean += _finite(descriptors[rows]).sum(axis=0)
    mean /= samples
    covariance = np.zeros((length, length), order="F")
    for rows in _blocks(samples, block):
        part = np.asarray(descriptors[rows], np.float64) - mean
        covariance = dsyrk(
            1 / (samples - 1),
            part.T,
            beta=1,
            c=covariance,
            lower=1,
            overwrite_c=1,
        )
    total = float(np.trace(covariance))
    eigenvalues, vectors = _largest(covariance, dimension)
    vectors /= np.sqrt(eigenvalues + _FLOOR)
    return vectors.astype(np.float32), mean, eigenvalues, total


def _check_rank(eigenvalues, samples):
    """Tells of dimensions in which the samples do not vary."""
    dimension = len(eigenvalues)
    varying = int((eigenvalues > _FLOOR).sum())
    if not varying:
        raise ValueError(
            f"Expected descriptors that differ. Received: {samples} samples "
            f"with a largest variance of {eigenvalues[0]:.3g}. Add other "
            "images, or train longer."
        )
    if varying < dimension:
        logging.warning(
            "%d of %d eigenvalues are at most %g: the %d samples vary in %d "
            "dimensions, the others hold noise. Whiten to at most %d, or add "
            "other images.",
            dimension - varying,
            dimension,
            _FLOOR,
            samples,
            varying,
            varying,
        )


def _blocks(size, block):
    for start in range(0, size, block):
        yield slice(start, min(start + block, size))


def _finite(part):
    part = np.array(part, np.float64)
    if not np.isfinite(part).all():
        raise ValueError(
            "Expected finite descriptors. Received: NaN or infinity in "
            f"{(~np.isfinite(part)).any(axis=1).sum()} of the {len(part)} "
            "samples looked at. The model diverged: train again."
        )
    return part


def _largest(matrix, count):
    """Largest eigenvalues, in order, and their vectors in columns.

    Args:
        matrix: float64 [N, N], its lower triangle, column-major; overwritten.
        count: how many.
    """
    # Slow to import, and only needed here.
    from scipy.linalg import eigh

    size = len(matrix)
    eigenvalues, vectors = eigh(
        matrix,
        lower=True,
        subset_by_index=(size - count, size - 1),
        overwrite_a=True,
        check_finite=False,
    )
    # Below zero by rounding alone.
    return np.maximum(eigenvalues[::-1], 0.0), vectors[:, ::-1]
