"""Layers of heads in plain numpy, and heads with weights that are drawn."""

import numpy as np


def unit(x):
    return x / max(np.sqrt(np.sum(np.square(x))), 1e-12)


def dense(x, weights, name):
    return x @ np.float64(weights[f"{name}_kernel"]) + weights[f"{name}_bias"]


def norm(x, weights, name):
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-5)
    return x * weights[f"{name}_scale"] + weights[f"{name}_bias"]


def attention(query, key, weights, name):
    """Of one image, in heads of 64 channels."""
    q = dense(query, weights, f"{name}_query")
    k = dense(key, weights, f"{name}_key")
    v = dense(key, weights, f"{name}_value")
    parts = []
    for start in range(0, q.shape[1], 64):
        columns = slice(start, start + 64)
        scores = np.exp(q[:, columns] @ k[:, columns].T / 8)
        shares = scores / scores.sum(axis=1, keepdims=True)
        parts.append(shares @ v[:, columns])
    return dense(np.concatenate(parts, axis=1), weights, f"{name}_out")


def drawn(make, shape, *, seed=0):
    """A layer with drawn weights, a function that makes more; the weights."""
    layer = make()
    layer.build(shape)
    rng = np.random.default_rng(seed)
    weights = {}
    for variable in layer.weights:
        values = rng.normal(size=variable.shape)
        if len(variable.shape) > 1:
            values *= np.prod(variable.shape[:-1]) ** -0.5
        else:
            values += 0.2
        weights[variable.name] = np.float32(values)

    def make_again(**options):
        again = make(**options)
        again.build(shape)
        again.set_weights(list(weights.values()))
        return again

    return make_again, weights


def filled(layer, shape, weights):
    """A layer with weights by name, each once."""
    layer.build(shape)
    assert {variable.name for variable in layer.weights} == set(weights)
    layer.set_weights([weights[variable.name] for variable in layer.weights])
    return layer
