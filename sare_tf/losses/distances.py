"""Distances between descriptors: within tuples, and of all pairs of a batch.

Axis letters: B tuples, or images, of a batch; T = 2 + N images of a tuple, in
the order query, positive, N negatives; D descriptor length. Distances are
squared Euclidean. Everything is float32.
"""

import numpy as np
from keras import ops

# Largest deviation of a squared length from 1. Rounding to bfloat16, by at most
# 2 ** -8 of a value, stays within it.
_LENGTH_TOLERANCE = 0.01


def split_tuples(descriptors):
    """Splits tuples into queries, positives and negatives.

    Args:
        descriptors: [B, T, D].

    Returns:
        Queries, float32 [B, 1, D]; positives, float32 [B, 1, D]; negatives,
        float32 [B, T - 2, D].

    Raises:
        ValueError: another rank, or fewer than 3 images in a tuple.
    """
    shape = tuple(descriptors.shape)
    if len(shape) != 3:
        raise ValueError(
            "Expected descriptors of tuples, [B, T, D]. Received: "
            f"descriptors.shape={shape}. Wrap the embedder in over_tuples; for "
            "images and labels, use a loss over place batches."
        )
    if shape[1] is not None and shape[1] < 3:
        raise ValueError(
            "Expected tuples of a query, a positive and at least one negative, "
            f"T >= 3. Received: descriptors.shape={shape}."
        )
    descriptors = ops.cast(descriptors, "float32")
    return descriptors[:, :1], descriptors[:, 1:2], descriptors[:, 2:]


def images(descriptors):
    """Returns descriptors of images as float32, and checks their rank.

    Args:
        descriptors: [B, D].

    Returns:
        float32 [B, D].

    Raises:
        ValueError: another rank.
    """
    shape = tuple(descriptors.shape)
    if len(shape) != 2:
        raise ValueError(
            "Expected descriptors of images, [B, D]. Received: "
            f"descriptors.shape={shape}. For tuples, [B, T, D], use a loss "
            "over tuples, such as SARELoss."
        )
    return ops.cast(descriptors, "float32")


def between(queries, others):
    """Squared distances as sums of squared differences.

    Unlike 2 - 2 cos, they are exactly 0 for identical descriptors.

    Args:
        queries: [B, 1, D].
        others: [B, N, D].

    Returns:
        float32 [B, N].
    """
    return ops.sum(ops.square(queries - others), axis=-1)


def tuple_distances(descriptors):
    """Squared distances of each query to the other images of its tuple.

    Args:
        descriptors: [B, T, D].

    Returns:
        Distances of the positive, float32 [B], and of the negatives, float32
        [B, T - 2].

    Raises:
        ValueError: see `split_tuples`.
    """
    query, positive, negatives = split_tuples(descriptors)
    return between(query, positive)[:, 0], between(query, negatives)


def check_tuple_distances(positive, negatives):
    """Refuses distances that do not have the shapes of tuples.

    Raises:
        ValueError: `positive` is not [B], or `negatives` not [B, N], N >= 1.
    """
    shapes = tuple(positive.shape), tuple(negatives.shape)
    if len(shapes[0]) != 1 or len(shapes[1]) != 2 or shapes[1][1] == 0:
        raise ValueError(
            "Expected squared distances of positives, [B], and of at least one "
            f"negative each, [B, N]. Received: positive.shape={shapes[0]}, "
            f"negatives.shape={shapes[1]}."
        )


def pairwise_distances(descriptors):
    """Squared distances of all pairs, from one matrix product.

    Memory: B * B numbers and one copy of the descriptors. The mean of the
    descriptors is subtracted before they are multiplied, so that rounding
    errors are relative to their distances rather than to their length.

    Args:
        descriptors: [B, D].

    Returns:
        float32 [B, B], symmetric, with a diagonal of zeros.
    """
    descriptors = ops.cast(descriptors, "float32")
    # Neither distances nor their gradients depend on the mean.
    mean = ops.stop_gradient(ops.mean(descriptors, axis=0, keepdims=True))
    centred = descriptors - mean
    products = ops.matmul(centred, ops.transpose(centred))  # [B, B]
    squares = ops.diagonal(products)
    distances = squares[:, None] + squares[None, :] - 2.0 * products
    return ops.maximum(distances, 0.0)


def cross_distances(descriptors, others):
    """Squared distances of images to other images, from one matrix product.

    Rounding errors are those of `pairwise_distances`.

    Args:
        descriptors: [B, D].
        others: [M, D].

    Returns:
        float32 [B, M].
    """
    descriptors = ops.cast(descriptors, "float32")
    others = ops.cast(others, "float32")
    mean = ops.stop_gradient(ops.mean(descriptors, axis=0, keepdims=True))
    descriptors, others = descriptors - mean, others - mean
    products = ops.matmul(descriptors, ops.transpose(others))  # [B, M]
    squares = ops.sum(ops.square(descriptors), axis=1)
    others = ops.sum(ops.square(others), axis=1)
    distances = squares[:, None] + others[None, :] - 2.0 * products
    return ops.maximum(distances, 0.0)


def root(squared_distances):
    """Square root, with a gradient of 0 at 0.

    Args:
        squared_distances: float32, any shape.

    Returns:
        float32, the same shape.
    """
    positive = squared_distances > 0.0
    # The inner `where` keeps the infinite derivative out of the gradient.
    roots = ops.sqrt(ops.where(positive, squared_distances, 1.0))
    return ops.where(positive, roots, 0.0)


def check_unit_length(descriptors):
    """Refuses descriptors that do not have unit length.

    Only eager calls are checked. A graph, such as that of `fit`, has no values
    when it is built.

    Args:
        descriptors: [..., D].

    Raises:
        ValueError: a length that is not 1.
    """
    squares = ops.sum(ops.square(ops.cast(descriptors, "float32")), axis=-1)
    try:
        squares = ops.convert_to_numpy(squares)
    except (NotImplementedError, TypeError, ValueError):
        return  # A graph is being built.
    if not (np.abs(squares - 1.0) <= _LENGTH_TOLERANCE).all():
        lengths = np.sqrt(squares)
        raise ValueError(
            "Expected descriptors of unit length. Received: lengths from "
            f"{lengths.min():.4g} to {lengths.max():.4g}. End the network with "
            "keras.layers.UnitNormalization()."
        )
