"""Labels of places: which images show the same place.

Labels are numbers, [B] or [B, 1], equal for images of one place. Integers of
any size are compared exactly. Floating-point labels are refused from the number
on at which their type no longer holds every integer (2 ** 24 for float32):
neighbouring labels may have become one there, and Keras makes float32 of
float64 arrays before a loss sees them.

In graphs of JAX, integers have 32 bits unless `jax_enable_x64` is set: JAX
drops the other bits of larger labels before a loss sees them. Number such
labels first: numpy.unique(labels, return_inverse=True)[1].
"""

import keras
import numpy as np
from keras import ops

from sare_tf.losses import graph_checks
from sare_tf.runtime import symbolic_tensors

# Floating-point type -> the integers below 2 to this power are exact.
_EXACT_BITS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}
# One digit of a number of a place, which every floating-point type holds.
_DIGIT = 2 ** min(_EXACT_BITS.values())


def checked(labels, descriptors):
    """Refuses labels that do not say which images show the same place.

    Args:
        labels: labels of places, [B] or [B, 1].
        descriptors: [B, D].

    Returns:
        Labels, [B], and descriptors. In a graph, labels that are wrong raise an
        error when it runs, or make the descriptors NaN; see `graph_checks`.

    Raises:
        ValueError: labels of another shape, such as one-hot labels, or of no
            number type; NaN; floating-point labels of which neighbours may
            have become one.
    """
    if not hasattr(labels, "shape"):
        labels = np.asarray(labels)
    _check_shape(tuple(labels.shape), tuple(descriptors.shape))
    dtype = _dtype(labels)
    reshape = np.reshape if isinstance(labels, np.ndarray) else ops.reshape
    labels = reshape(labels, (-1,))
    if dtype not in _EXACT_BITS:
        return labels, descriptors
    limit = 2 ** _EXACT_BITS[dtype]
    return labels, _require_range(
        labels,
        descriptors,
        lower=1 - limit,
        upper=limit - 1,
        advice=f"This is the range in which {dtype} holds every integer. Pass "
        'integers, such as labels.astype("int64")',
    )


def checked_float32(labels, descriptors):
    """Makes float32 of labels from 0, and refuses other labels.

    Args:
        labels: labels of places, [B] or [B, 1].
        descriptors: [B, D].

    Returns:
        Labels, float32 [B], and descriptors, as in `checked`.

    Raises:
        ValueError: as in `checked`; labels below 0, or of 2 ** 24 and more.
    """
    labels, descriptors = checked(labels, descriptors)
    descriptors = _require_range(
        labels,
        descriptors,
        lower=0,
        upper=2 ** _EXACT_BITS["float32"] - 1,
        advice="Number the places from 0, such as "
        "numpy.unique(labels, return_inverse=True)[1]",
    )
    return ops.cast(labels, "float32"), descriptors


def checked_classes(labels, descriptors, *, count):
    """Makes int32 of numbers of places, and refuses other labels.

    Args:
        labels: numbers of places, [B] or [B, 1].
        descriptors: [B, D].
        count: number of all places.

    Returns:
        Labels, int32 [B], and descriptors, as in `checked`.

    Raises:
        ValueError: as in `checked`; labels below 0, or of `count` and more.
    """
    labels, descriptors = checked(labels, descriptors)
    descriptors = _require_range(
        labels,
        descriptors,
        lower=0,
        upper=count - 1,
        advice=f"The loss has {count} places. Number the places from 0, the "
        "same in all batches, and give the loss their number",
    )
    return ops.cast(labels, "int32"), descriptors


def numbers(labels):
    """Numbers the places of a batch, exactly for every type of labels.

    Args:
        labels: checked labels, [B].

    Returns:
        int32 [B], from 0 and below B; equal where labels are equal.
    """
    if isinstance(labels, np.ndarray):
        _, inverse = np.unique(labels, return_inverse=True)
        return ops.convert_to_tensor(inverse.astype(np.int32))
    count = ops.shape(labels)[0]
    order = ops.arange(count, dtype="int32")
    same = labels[:, None] == labels[None, :]  # [B, B]
    # The first image of the place; argmax may return any of them.
    return ops.min(ops.where(same, order[None, :], count), axis=1)


def to_digits(numbers_of_places):
    """Splits numbers of places so that casts of Keras to any type are exact.

    Args:
        numbers_of_places: int32 [B], of `numbers`.

    Returns:
        A dictionary of three digits, int32 [B] each; of numbers below 2 ** 24.
    """
    return {
        "high": numbers_of_places // _DIGIT**2,
        "middle": numbers_of_places // _DIGIT % _DIGIT,
        "low": numbers_of_places % _DIGIT,
    }


def from_digits(y_true):
    """Returns the numbers of `to_digits`, or labels as they are.

    Args:
        y_true: a dictionary of digits, of any type, or labels.
    """
    if not isinstance(y_true, dict):
        return y_true
    high, middle, low = (
        ops.cast(y_true[name], "int32") for name in ("high", "middle", "low")
    )
    return (high * _DIGIT + middle) * _DIGIT + low


def same_place(labels):
    """Finds the pairs of images that show one place, and two places.

    Args:
        labels: checked labels, [B].

    Returns:
        Positives, the pairs of two images of one place, and negatives, the
        pairs of images of two places; both bool [B, B].
    """
    if isinstance(labels, np.ndarray):
        labels = numbers(labels)
    same = labels[:, None] == labels[None, :]  # [B, B]
    order = ops.arange(ops.shape(labels)[0])
    positives = ops.logical_and(same, order[:, None] != order[None, :])
    return positives, ops.logical_not(same)


def _check_shape(shape, descriptors_shape) -> None:
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
        raise ValueError(
            "Expected one label for each image, [B] or [B, 1]: the number of "
            f"its place. Received: labels.shape={shape}. Pass "
            "numpy.argmax(labels, axis=-1) for one-hot labels."
        )
    count, images = shape[0], descriptors_shape[0]
    if None not in (count, images) and count != images:
        raise ValueError(
            "Expected one label for each descriptor. Received: "
            f"labels.shape={shape}, descriptors.shape={descriptors_shape}."
        )


def _dtype(labels) -> str:
    try:
        dtype = keras.backend.standardize_dtype(labels.dtype)
    except ValueError:
        dtype = str(labels.dtype)
    if not (dtype in _EXACT_BITS or dtype == "bool" or "int" in dtype):
        raise ValueError(
            "Expected labels of places to be numbers. Received: labels of type "
            f"{dtype}. Number the places with "
            "numpy.unique(labels, return_inverse=True)[1]."
        )
    return dtype


def _require_range(labels, descriptors, *, lower, upper, advice):
    """Returns descriptors, of labels from `lower` to `upper` or none."""
    expected = f"Expected labels of places from {lower} to {upper}."
    if symbolic_tensors.has_values(labels):
        values = ops.convert_to_numpy(labels)
        is_valid = (values >= lower) & (values <= upper)  # False for NaN
        if not is_valid.all():
            raise ValueError(
                f"{expected} Received: {values[~is_valid][0]}. {advice}."
            )
        return descriptors
    valid = ops.all(ops.logical_and(labels >= lower, labels <= upper))
    return graph_checks.require(
        valid,
        ops.convert_to_tensor(descriptors),
        message=f"{expected} Received: other labels. {advice}.",
    )
