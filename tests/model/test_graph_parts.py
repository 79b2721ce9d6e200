"""Forms of an embedder: the same descriptors, gradients, order of weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy_vit

from sare_tf.model import build_embedder, drop_path, graph_parts, vit
from sare_tf.model.registry import BACKBONES, TORCHVISION, Backbone


def small():
    return build_embedder(
        backbone="small",
        aggregation="netvlad",
        num_clusters=4,
        train_from="stage2",
    )


def residual():
    """Trained in the middle of a residual block: two tensors pass."""
    images = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.Conv2D(4, 3, padding="same", name="first")(x)
    y = keras.layers.Conv2D(6, 3, padding="same", name="a")(x)
    y = keras.layers.BatchNormalization(name="norm")(y)
    y = keras.layers.ReLU()(y)
    y = keras.layers.Conv2D(4, 3, padding="same", name="b")(y)
    x = keras.layers.Add()([x, y])
    x = keras.layers.Conv2D(5, 3, strides=2, name="c")(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(7, 3, name="d")(x)
    return build_embedder(
        backbone=keras.Model(images, x), aggregation="gem", train_from="b"
    )


def transformer(monkeypatch):
    """With a class token, stochastic depth, and images whose shape is read."""
    recipe = Backbone(
        network="sare_tf.model.vit.build",
        arguments={"architecture": toy_vit.architecture(depth=4)},
        preprocessing=TORCHVISION,
        cut_layer="patches",
        train_from="block1",
    )
    monkeypatch.setitem(BACKBONES, "toy_vit", recipe)
    embedder = build_embedder(
        backbone="toy_vit", aggregation="salad", num_clusters=3
    )
    vit.set_drop_path(embedder.get_layer("backbone"), 0.5)
    return embedder


def descriptors_and_gradients(form, inputs):
    """In a graph, as training computes them."""
    draws = tf.random.stateless_uniform((4, 8), (1, 2))

    @tf.function(autograph=False)
    def compute(inputs):
        with tf.GradientTape() as tape, drop_path.given(draws):
            descriptors = form(inputs, training=True)
        length = descriptors.shape[-1]
        weights = tf.sin(tf.range(4.0 * length))
        return descriptors, tape.gradient(
            descriptors,
            form.trainable_variables,
            tf.reshape(weights, (4, length)),
        )

    return compute(inputs)


def assert_same(form, inputs, expected, embedder):
    weights = [id(each) for each in form.trainable_variables]
    assert weights == [id(each) for each in embedder.trainable_variables]
    descriptors, gradients = descriptors_and_gradients(form, inputs)
    np.testing.assert_allclose(descriptors, expected[0], atol=1e-6)
    for one, other in zip(gradients, expected[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["small", "residual", "transformer"])
def test_all_forms_have_the_same_gradients(name, monkeypatch):
    keras.utils.set_random_seed(0)
    embedder = {
        "small": small,
        "residual": residual,
        "transformer": lambda: transformer(monkeypatch),
    }[name]()
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (4, 28, 28, 3)).astype(np.float32)
    expected = descriptors_and_gradients(embedder, images)
    size = {"height": 28, "width": 28}
    form = graph_parts.fast(embedder, **size)
    assert form is not embedder
    assert_same(form, images, expected, embedder)
    form = graph_parts.recomputed(embedder, **size)
    assert any(layer.name == "recomputed0" for layer in form.layers)
    assert_same(form, images, expected, embedder)
    for recompute in (False, True):
        halves = graph_parts.split(embedder, **size, recompute=recompute)
        features = halves.frozen(images)
        assert features.shape == (4, halves.trained.input_shape[1])
        assert_same(halves.trained, features, expected, embedder)


def test_the_order_of_weights_of_published_networks():
    """By which the average of the weights is exchanged."""
    embedder = build_embedder(
        backbone="mobilenet_v3_small",
        aggregation="gem",
        train_from="features_4",
    )
    form = graph_parts.recomputed(embedder, height=64, width=64)
    assert [id(weight) for weight in form.trainable_variables] == [
        id(weight) for weight in embedder.trainable_variables
    ]


def test_layers_of_chance_are_refused():
    backbone = keras.Sequential(
        [
            keras.layers.Conv2D(4, 3, name="first"),
            keras.layers.GaussianNoise(0.1, name="noise"),
            keras.layers.Conv2D(4, 3, name="second"),
        ]
    )
    backbone.build((None, 28, 28, 3))
    embedder = build_embedder(
        backbone=backbone, aggregation="gem", train_from="second"
    )
    with pytest.raises(ValueError, match="'noise', a GaussianNoise. Leave"):
        graph_parts.split(embedder, height=28, width=28, recompute=False)
