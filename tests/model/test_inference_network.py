"""Exported networks: folded, in fused forms, in half precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy_vit
from keras import layers

import sare_tf
from sare_tf import model
from sare_tf.model import (
    folding,
    inference_layers,
    inference_network,
    precision,
    vit,
)
from sare_tf.model.exported_graph import ExportedGraph

RNG = np.random.default_rng(0)
IMAGES = np.float32(RNG.integers(0, 256, (2, 42, 56, 3)))


def drawn(network):
    """Gives every weight a value that no layer starts with."""
    rng = np.random.default_rng(1)
    for weight in network.weights:
        values = rng.normal(size=weight.shape)
        if len(weight.shape) > 1:
            values *= 2 * np.prod(weight.shape[:-1]) ** -0.5
        elif "variance" in weight.name or weight.name == "gamma":
            values = rng.uniform(0.5, 2.0, weight.shape)
        weight.assign(np.float32(values))
    return network


def convolutional():
    """Every layer that has a form, and connections that cannot be folded."""
    images = keras.Input((None, None, 3))

    def normalised(x, name, **settings):
        return layers.BatchNormalization(name=name, **settings)(x)

    x = layers.Rescaling(1 / 128, offset=-1.0)(images)
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="plain")(x)
    x = layers.ReLU()(normalised(x, "folded", epsilon=0.1))
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    y = layers.Activation("relu6")(normalised(y, "folded_depthwise"))
    y = layers.Conv2D(8, 1)(y)
    y = normalised(y, "without_scale", scale=False, center=False)
    x = layers.Add()([x, y])
    x = layers.Conv2D(8, 3, activation="gelu", padding="same")(x)
    x = normalised(x, "after_an_activation")
    x = layers.Conv2D(8, 3, dilation_rate=2, name="used_twice")(x)
    x = layers.Add()([x, normalised(x, "of_a_sum")])
    x = layers.LayerNormalization(epsilon=1e-3)(x)
    x = layers.Dense(12, use_bias=False)(x)
    x = normalised(x, "folded_dense")
    x = layers.Conv2D(12, 1, groups=3)(x)
    return drawn(keras.Model(images, x))


def transformer(**options):
    network = vit.build(toy_vit.architecture(**options))
    return keras.Model(network.input, network.get_layer("patches").output)


def embedder(backbone=None):
    return drawn(
        model.build_embedder(
            backbone=backbone or convolutional(), aggregation="spoc"
        )
    )


def names_of(network, kind):
    return {layer.name for layer in network.layers if type(layer) is kind}


def test_a_folded_network_computes_the_same():
    network = convolutional()
    before = [weight.numpy() for weight in network.weights]
    expected = network.predict(IMAGES, verbose=0)
    folded = folding.fold(network)
    assert names_of(folded, layers.BatchNormalization) == {
        "after_an_activation",
        "of_a_sum",
    }
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        folded.predict(IMAGES, verbose=0) / scale, expected / scale, atol=2e-6
    )
    # Layers that did not change are shared, the others are not.
    assert folded.get_layer("used_twice") is network.get_layer("used_twice")
    for weight, values in zip(network.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), values)
    assert network.predict(IMAGES, verbose=0) == pytest.approx(expected)


def test_folding_is_the_formula():
    """One pixel, one channel: (3 x 2 + 5 - 1) / sqrt(3 + 1) x 7 + 11 = 46."""
    pixel = keras.Input((1, 1, 1))
    convolved = layers.Conv2D(1, 1)(pixel)
    outputs = layers.BatchNormalization(epsilon=1.0)(convolved)
    network = keras.Model(pixel, outputs)
    for weight, value in zip(
        network.weights, ([[[[2.0]]]], [5.0], [7.0], [11.0]), strict=False
    ):
        weight.assign(value)
    network.layers[-1].moving_mean.assign([1.0])
    network.layers[-1].moving_variance.assign([3.0])
    folded = folding.fold(network)
    kernel, bias = folded.get_weights()
    assert (kernel.item(), bias.item()) == (7.0, 5 * 3.5 - 3.5 + 11)
    assert folded(3 * np.ones((1, 1, 1, 1))).numpy().item() == 46.0


def test_networks_without_a_normalisation_are_left_alone():
    network = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    assert folding.fold(network) is network


@pytest.mark.parametrize(
    "backbone",
    [
        convolutional,
        transformer,
        lambda: transformer(registers=4, swiglu=True),
    ],
)
def test_the_exported_form_gives_the_same_descriptors(backbone):
    network = embedder(backbone())
    form = inference_network.of(network)
    expected = network.predict(IMAGES, verbose=0)
    spec = [tf.TensorSpec((None, None, None, 3))]
    found = tf.function(form, input_signature=spec)(IMAGES)
    np.testing.assert_allclose(found, expected, atol=3e-6)
    np.testing.assert_allclose(form(IMAGES), expected, atol=3e-6)
    kinds = {type(layer) for layer in form.get_layer("backbone").layers}
    assert inference_layers.FusedDense in kinds
    assert not kinds & {layers.Dense, layers.DepthwiseConv2D}
    # All images at once or one by one.
    alone = np.concatenate([form(image[None]) for image in IMAGES])
    np.testing.assert_allclose(alone, expected, atol=3e-6)


def test_a_graph_folds_weights_also_while_it_is_traced():
    network = embedder()
    graph = ExportedGraph(embedder=network, height=42, width=56)
    found = tf.function(graph.embed)(IMAGES)["descriptor"]
    expected = network.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(found, expected, atol=3e-6)


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("backbone", [convolutional, transformer])
def test_half_precision(backbone, name):
    network = embedder(backbone())
    before = network.get_weights()
    expected = network.predict(IMAGES, verbose=0)
    half = sare_tf.with_precision(network, name)
    assert precision.precision_of(network) == "float32"
    assert precision.precision_of(half) == name
    for form in (half, inference_network.of(half)):
        found = form(IMAGES).numpy()
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        # bfloat16 has 8 bits, float16 has 11.
        most = 0.1 if name == "mixed_bfloat16" else 0.01
        distances = np.linalg.norm(found - expected, axis=1)
        assert 1e-5 < distances.max() < most
    short = name.removeprefix("mixed_")
    for layer in half.get_layer("backbone").layers:
        if isinstance(layer, precision._STORED):
            assert {weight.dtype for weight in layer.weights} == {short}
        else:
            types = {weight.dtype for weight in layer.weights}
            assert types <= {"float32"}
    for weight, values in zip(network.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), values)


def test_precisions_and_networks_that_are_refused():
    network = embedder()
    with pytest.raises(ValueError, match="mixed_bfloat16, .*='float16'"):
        sare_tf.with_precision(network, "float16")
    pooled = keras.Sequential([keras.Input((None, None, 3)), layers.Flatten()])
    with pytest.raises(ValueError, match="with a layer 'backbone' .*flatten"):
        sare_tf.with_precision(pooled, "mixed_bfloat16")
