"""Descriptors to test losses on, and gradients by two independent ways."""

import keras
import numpy as np
from keras import ops

# A tuple computed by hand: unit vectors, d_p = .4, d = .8, 2, .08.
QUERY = (1.0, 0.0, 0.0, 0.0)
POSITIVE = (0.8, 0.6, 0.0, 0.0)
NEGATIVES = ((0.6, 0.8, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.96, 0.0, 0.28, 0.0))


def hand_made_tuple():
    return np.array([[QUERY, POSITIVE, *NEGATIVES]], np.float32)


def unit_vectors(*shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def squared(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def value(loss, y_true, y_pred):
    return ops.convert_to_numpy(
        loss.call(y_true, ops.convert_to_tensor(y_pred))
    )


def gradient(loss, y_true, descriptors):
    """Through Keras: a step of SGD with rate 1 on trainable descriptors."""
    descriptors = np.asarray(descriptors, np.float32)
    flat = descriptors.reshape(-1, descriptors.shape[-1])
    table = keras.layers.Embedding(*flat.shape)
    rows = np.arange(len(flat)).reshape(descriptors.shape[:-1])
    model = keras.Sequential(
        [keras.Input(rows.shape[1:], dtype="int32"), table]
    )
    table.embeddings.assign(flat)
    model.compile(keras.optimizers.SGD(1.0), loss, run_eagerly=True)
    model.train_on_batch(rows, y_true)
    after = np.asarray(ops.convert_to_numpy(table.embeddings))
    return (flat - after).reshape(descriptors.shape)


def finite_differences(function, x, *, step=1e-6):
    x = np.array(x, np.float64)
    result = np.zeros_like(x)
    for where in np.ndindex(*x.shape):
        before = x[where]
        x[where] = before + step
        above = function(x)
        x[where] = before - step
        result[where] = (above - function(x)) / (2 * step)
        x[where] = before
    return result
