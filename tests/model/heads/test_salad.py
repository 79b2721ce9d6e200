"""SALAD against loops, and against the original's values."""

import functools

import golden_foundation
import keras
import layer_contract
import numpy as np
import pytest
import toy_heads
from keras import ops
from layer_contract import numpy
from toy_heads import dense, unit

from sare_tf.model.heads.salad import SALAD
from sare_tf.model.heads.salad_linear import SALADLinear

OPTIONS = {
    "num_clusters": 3,
    "cluster_length": 4,
    "token_length": 6,
    "hidden": 7,
}


def transported(scores, dustbin):
    """Shares [K, L], by Sinkhorn's algorithm on the masses themselves."""
    clusters, count = scores.shape
    kernel = np.exp(np.concatenate([scores, np.full((1, count), dustbin)]))
    rows = np.array([1.0] * clusters + [count - clusters])
    columns = np.ones(count)
    u, v = np.ones(clusters + 1), np.ones(count)
    for _ in range(3):
        u = rows / (kernel @ v)
        v = columns / (kernel.T @ u)
    return (u[:, None] * kernel * v)[:clusters]


def salad(image, weights, token=None):
    def two_layers(x, name):
        return dense(
            np.maximum(dense(x, weights, f"{name}_hidden"), 0), weights, name
        )

    x = np.float64(image).reshape(-1, image.shape[-1])
    token = x.mean(axis=0) if token is None else np.float64(token)
    vectors, scores = two_layers(x, "feature"), two_layers(x, "score")
    shares = transported(scores.T, float(weights["dustbin"]))
    clusters = np.stack([unit(share @ vectors) for share in shares])
    flat = [
        clusters[k, d]
        for d in range(clusters.shape[1])
        for k in range(clusters.shape[0])
    ]
    return unit(np.concatenate([unit(two_layers(token, "token")), flat]))


@pytest.fixture(scope="module")
def example():
    make = functools.partial(SALAD, **OPTIONS)
    return toy_heads.drawn(make, (None, None, None, 5))


@pytest.mark.parametrize("check", layer_contract.CHECKS)
def test_contract(check, example, tmp_path):
    make, weights = example
    check(make, lambda image: salad(image, weights), tmp_path)


@pytest.fixture(scope="module")
def shortened():
    make = functools.partial(SALADLinear, length=5, **OPTIONS)
    return toy_heads.drawn(make, (None, None, None, 5))


def linear(image, weights):
    return unit(dense(salad(image, weights), weights, "output"))


@pytest.mark.parametrize("check", layer_contract.CHECKS)
def test_contract_of_the_shortened(check, shortened, tmp_path):
    make, weights = shortened
    check(make, lambda image: linear(image, weights), tmp_path)


def test_the_class_token_is_the_global_part(example):
    make, weights = example
    features = layer_contract.feature_maps()
    tokens = np.random.default_rng(5).normal(size=(2, 5)).astype(np.float32)
    found = numpy(make()(features, tokens))
    for index in range(2):
        expected = salad(features[index], weights, tokens[index])
        np.testing.assert_allclose(found[index], expected, atol=1e-6)


def test_equals_the_original():
    values, state = golden_foundation.read("salad")
    weights = {"dustbin": state["dust_bin"]}
    for ours, theirs, last in (
        ("token", "token_features", 2),
        ("feature", "cluster_features", 3),
        ("score", "score", 3),
    ):
        for name, index in ((f"{ours}_hidden", 0), (ours, last)):
            kernel = state[f"{theirs}.{index}.weight"]
            kernel = kernel.reshape(kernel.shape[:2])
            weights[f"{name}_kernel"] = kernel.T
            weights[f"{name}_bias"] = state[f"{theirs}.{index}.bias"]
    layer = toy_heads.filled(
        SALAD(num_clusters=6, cluster_length=5, token_length=7, hidden=16),
        (None, None, None, 24),
        weights,
    )
    features = values["feat"].transpose(0, 2, 3, 1)
    found = numpy(layer(features, values["token"]))
    np.testing.assert_allclose(found, values["out"], atol=1e-5, rtol=0)


def test_large_scores_do_not_overflow(example):
    make, _ = example
    features = 1e4 * layer_contract.feature_maps()
    assert np.isfinite(numpy(make()(features))).all()


def test_as_many_clusters_as_locations_are_refused(example):
    make, _ = example
    message = (
        "more locations than the 3 clusters of SALAD. Received: feature maps "
        "of 1 x 3 = 3. Give larger images by --image_height"
    )
    with pytest.raises(ValueError, match=message):
        make()(keras.Input((1, 3, 5)))
    with pytest.raises(ValueError, match=message):
        make()(np.ones((2, 1, 3, 5), np.float32))
    assert make()(np.ones((2, 1, 4, 5), np.float32)).shape == (2, 18)
    with pytest.raises(ValueError, match="num_clusters=0"):
        SALAD(num_clusters=0)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="has a graph of unknown sizes",
)
def test_too_few_locations_fail_in_a_graph(example):
    import tensorflow as tf

    make, _ = example
    layer = make()
    traced = tf.function(
        layer, input_signature=[tf.TensorSpec((None, None, None, 5))]
    )
    assert np.isfinite(numpy(traced(ops.ones((2, 2, 2, 5))))).all()
    with pytest.raises(tf.errors.InvalidArgumentError, match="-1"):
        traced(ops.ones((2, 1, 3, 5)))
