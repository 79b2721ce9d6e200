"""Batch normalisation as part of the convolution before it.

A normalisation that uses its stored statistics scales and shifts each channel,
y = (x - mean) / sqrt(variance + epsilon) * gamma + beta. After a convolution
without an activation this is a convolution with other weights, which needs no
pass over the features.
"""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers

# Layers whose outputs are linear in a kernel with output channels last.
_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


@keras.saving.register_keras_serializable(package="sare_tf")
class Folded(layers.Layer):
    """Passes features on, where a batch normalisation was.

    Call arguments:
        features: any features.
        mask: as a batch normalisation takes it; not used.

    Input shape:
        Any.

    Output shape:
        As the input.
    """

    def call(self, features, mask=None):
        return features

    def compute_output_shape(self, input_shape):
        return input_shape


def fold(network: keras.Model) -> keras.Model:
    """Folds batch normalisations into convolutions.

    Args:
        network: a functional model; other models are returned as they are. Its
            layers are shared, except those that change.

    Returns:
        A network that computes the same in inference, up to rounding. Where a
        normalisation was, it has a `Folded`.
    """
    if not isinstance(network, keras.Model) or not is_functional(network):
        return network
    pairs = _pairs(network)
    nested = any(is_functional(layer) for layer in network.layers)
    if not pairs and not nested:
        return network
    convolutions = set(pairs.values())

    def replace(layer):
        if layer.name in pairs and layer in network.layers:
            return Folded(name=layer.name, dtype=layer.dtype_policy.name)
        if layer.name in convolutions:
            config = {**layer.get_config(), "use_bias": True}
            for name in ("kernel_initializer", "depthwise_initializer"):
                if name in config:
                    config[name] = "zeros"
            return type(layer).from_config(config)
        return fold(layer) if is_functional(layer) else layer

    folded = cloned(network, replace)
    for name, convolution in pairs.items():
        folded.get_layer(convolution).set_weights(
            _weights(network.get_layer(convolution), network.get_layer(name))
        )
    return folded


def cloned(
    network: keras.Model, replace: Callable[[layers.Layer], layers.Layer]
) -> keras.Model:
    """Returns a functional model of other layers.

    Args:
        network: the model, which is not changed.
        replace: returns the layer to take in place of one; that itself, to
            share it.
    """
    return keras.models.clone_model(network, clone_function=replace)


def is_functional(layer) -> bool:
    """Whether it is a model of layers whose connections are known."""
    return isinstance(layer, keras.Model) and hasattr(layer, "operations")


def _pairs(network: keras.Model) -> dict[str, str]:
    """Normalisations that can be folded, and the convolutions before them."""
    inputs, outputs = _connections(network)
    users = [name for names in inputs.values() for name in names] + outputs
    known = {layer.name: layer for layer in network.layers}
    pairs = {}
    for name, layer in known.items():
        before = inputs.get(name, [])
        if type(layer) is not layers.BatchNormalization or len(before) != 1:
            continue
        convolution = known.get(before[0])
        if (
            type(convolution) in _CONVOLUTIONS
            and users.count(convolution.name) == 1
            and _is_linear_channels_last(convolution)
            and not getattr(layer, "renorm", False)
            and layer.axis in (-1, len(layer.input.shape) - 1)
        ):
            pairs[name] = convolution.name
    return pairs


def _is_linear_channels_last(layer) -> bool:
    return (
        layer.activation in (None, keras.activations.linear)
        and getattr(layer, "data_format", "channels_last") == "channels_last"
    )


def _connections(network) -> tuple[dict[str, list[str]], list[str]]:
    """Names of the layers before each layer, and of the last layers."""
    config = network.get_config()
    inputs = {
        layer["name"]: list(_histories(layer["inbound_nodes"]))
        for layer in config["layers"]
    }
    flat = [name for name in _flat(config["output_layers"])]
    return inputs, [name for name in flat if isinstance(name, str)]


def _histories(value):
    """Names of the layers whose outputs are in the arguments of calls."""
    if isinstance(value, dict):
        if "keras_history" in value:
            yield value["keras_history"][0]
        else:
            for inner in value.values():
                yield from _histories(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _histories(inner)


def _flat(value):
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _flat(inner)
    else:
        yield value


def _weights(convolution, normalisation) -> list[np.ndarray]:
    """Kernel and bias of both layers together."""
    kernel, *bias = map(np.float64, convolution.get_weights())
    ones = np.ones(np.shape(normalisation.moving_mean))

    def value(weight, default):
        if weight is None:
            return default
        return np.float64(keras.ops.convert_to_numpy(weight))

    mean = value(normalisation.moving_mean, None)
    variance = value(normalisation.moving_variance, None)
    scale = value(normalisation.gamma, ones)
    scale = scale / np.sqrt(variance + normalisation.epsilon)
    shift = value(normalisation.beta, 0 * ones) - mean * scale
    if bias:
        shift = shift + bias[0] * scale
    if isinstance(convolution, layers.DepthwiseConv2D):
        scale = scale.reshape(kernel.shape[-2:])
    return [np.float32(kernel * scale), np.float32(shift)]
