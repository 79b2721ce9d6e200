"""Losses of TensorFlow Similarity under Keras 3; its package is an extra."""

import importlib.util
import json
import math
import sys

import keras
import numpy as np
import pytest
from toy_descriptors import finite_differences, gradient, unit_vectors, value

from sare_tf import losses
from sare_tf.losses import similarity

installed = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_similarity") is None,
    reason='without TensorFlow Similarity, pip install ".[similarity]"',
)
NAMES = sorted(similarity.LOSSES)
LABELS = np.array([4, 4, 7, 7, 7, 4, 9, 9])


def cosine_distances(x):
    return [[1 - a @ b for b in x] for a in x]


def others(a, same):
    return [
        i
        for i in range(len(LABELS))
        if i != a and (LABELS[i] == LABELS[a]) == same
    ]


def multi_similarity(x, a):
    d = cosine_distances(x)[a]
    nearest = min(d[i] for i in others(a, False))
    farthest = max(d[i] for i in others(a, True))
    near = [d[i] for i in others(a, True) if d[i] > nearest - 0.1]
    far = [d[i] for i in others(a, False) if d[i] < farthest + 0.1]
    if not near or not far:
        return 0.0
    return (
        math.log(1 + sum(math.exp(2 * (e - 0.5)) for e in near)) / 2
        + math.log(1 + sum(math.exp(-40 * (e - 0.5)) for e in far)) / 40
    )


def circle(x, a):
    d = cosine_distances(x)[a]
    pull = sum(
        math.exp(80 * (0.4 + d[i]) * (d[i] - 0.4)) for i in others(a, True)
    )
    push = sum(
        math.exp(80 * max(1.4 - d[i], 0) * (0.6 - d[i]))
        for i in others(a, False)
    )
    return math.log(1 + pull) + math.log(1 + push)


def soft_nearest_neighbor(x, a):
    close = [math.exp(-np.sum((x[a] - y) ** 2)) for y in x]
    same = sum(close[i] for i in others(a, True))
    everything = same + sum(close[i] for i in others(a, False))
    return -math.log(same / everything)


def mined(x, a):
    """The farthest positive, and the nearest negative farther than it."""
    d = cosine_distances(x)[a]
    positive = max(others(a, True), key=lambda i: d[i])
    farther = [i for i in others(a, False) if d[i] > d[positive]]
    if farther:
        return positive, min(farther, key=lambda i: d[i])
    return positive, max(others(a, False), key=lambda i: d[i])


def triplet(x, a):
    d = cosine_distances(x)[a]
    positive, negative = mined(x, a)
    return math.log(1 + math.exp(d[positive] - d[negative]))


def pn(x, a):
    d = cosine_distances(x)
    positive, negative = mined(x, a)
    push = min(d[a][negative], d[positive][negative])
    return math.log(1 + math.exp(d[a][positive] - push))


DEFINITIONS = {
    "multi_similarity": multi_similarity,
    "circle": circle,
    "soft_nearest_neighbor": soft_nearest_neighbor,
    "triplet": triplet,
    "pn": pn,
}


def defined(name, x):
    return np.array([DEFINITIONS[name](x, a) for a in range(len(x))])


@installed
@pytest.mark.parametrize("name", NAMES)
def test_each_anchor_follows_the_definition(name):
    x = unit_vectors(len(LABELS), 5, seed=1)
    loss = losses.SimilarityLoss(loss=name)
    found = value(loss, LABELS.astype(np.float32)[:, None], x.astype("float32"))
    np.testing.assert_allclose(found, defined(name, x), rtol=1e-5, atol=1e-6)


@installed
@pytest.mark.parametrize("name", NAMES)
def test_gradient_equals_finite_differences(name):
    x = unit_vectors(len(LABELS), 5, seed=1)

    def of_unit_length(y):
        y = y / np.linalg.norm(y, axis=1, keepdims=True)
        return defined(name, y).mean()

    # Theirs normalise for the cosine; soft nearest neighbours do not.
    found = gradient(losses.SimilarityLoss(loss=name), LABELS, x)
    found -= np.sum(found * x, axis=1, keepdims=True) * x
    np.testing.assert_allclose(
        found, finite_differences(of_unit_length, x), atol=1e-4, rtol=1e-4
    )


@installed
@pytest.mark.parametrize("name", NAMES)
def test_a_graph_trains(name):
    x = np.concatenate(
        [unit_vectors(10, 3)[LABELS], 3 * unit_vectors(len(LABELS), 3, seed=6)],
        axis=1,
    ).astype(np.float32)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.layers.Dense(4), keras.layers.UnitNormalization()]
    )
    model.compile(keras.optimizers.Adam(0.02), losses.SimilarityLoss(loss=name))
    before = model.evaluate(x, LABELS, verbose=0)
    model.fit(x, LABELS, epochs=20, verbose=0)
    assert model.evaluate(x, LABELS, verbose=0) < before


@installed
def test_configuration_comes_back():
    loss = losses.SimilarityLoss(
        loss="triplet", margin=0.2, distance="squared_euclidean"
    )
    config = json.loads(json.dumps(keras.losses.serialize(loss)))
    again = keras.losses.deserialize(config)
    assert again.get_config() == loss.get_config()
    x = unit_vectors(len(LABELS), 5).astype(np.float32)
    labels = LABELS.astype(np.float32)
    np.testing.assert_array_equal(
        value(again, labels, x), value(loss, labels, x)
    )
    assert (
        value(loss, labels, x)
        != value(losses.SimilarityLoss(loss="triplet"), labels, x)
    ).any()


@installed
def test_margin_by_the_registry():
    built = losses.build("similarity_circle", margin=0.2)
    assert built.settings == {"margin": 0.2}


@installed
def test_settings_that_it_does_not_have_are_refused():
    with pytest.raises(ValueError, match=r"gamma, margin.*\['width'\]"):
        losses.SimilarityLoss(loss="circle", width=2)


@installed
def test_descriptors_of_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"\[B, D\].*such as SARELoss"):
        losses.SimilarityLoss(loss="pn").call(np.ones(4), unit_vectors(4, 3, 8))


def test_unknown_losses_are_refused():
    with pytest.raises(ValueError, match="'pn'.*Received: loss='arcface'"):
        losses.SimilarityLoss(loss="arcface")


def test_says_how_to_install_what_is_missing(monkeypatch):
    for name in ("tensorflow_similarity", "tensorflow_similarity.losses"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "sare_tf\[similarity'):
        losses.build("similarity_circle")
