"""Files of torchvision's weights -> the layers of our networks.

A layer has the name of torchvision's module with `_` for `.`, and PyTorch names
the arrays of a module after it: `features.0.0.weight`. Layouts in PyTorch:
convolutions [out, in, rows, columns], depthwise ones [C, 1, rows, columns],
linear layers [out, in], layer scales [C, 1, 1].
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import keras
import numpy as np
from keras import layers

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger, listed
from sare_tf.model.registry import BACKBONES
from sare_tf.model.torchvision.convnext import ChannelScale

# Classifiers, which follow the pooling.
_TOPS = ("classifier.", "fc.")
# Counts the steps of a training.
_COUNTER = ".num_batches_tracked"
_SCALE = "_layer_scale"


def identify(arrays: Iterable[str]) -> str | None:
    """Returns the backbone whose number of arrays a file has.

    Args:
        arrays: names of the arrays of a file.

    Returns:
        A name in `registry.BACKBONES`; None for other networks.
    """
    names = set(_of_the_backbone(arrays))
    if not names & {"features.0.weight", "features.0.0.weight", "conv1.weight"}:
        return None
    for name, recipe in BACKBONES.items():
        if recipe.published_arrays == len(names):
            return name
    return None


def assign(
    network: keras.Model, path: Path, arrays: Mapping[str, Array], *, name: str
) -> None:
    """Assigns the arrays of a file to a network of this folder.

    Args:
        network: the whole network, without its top.
        path: the file, for messages.
        arrays: its arrays by name. A classifier is ignored.
        name: the network's name in `registry.BACKBONES`.

    Raises:
        ValueError: arrays are missing, left over or of another shape. The
            message lists them.
    """
    names = set(_of_the_backbone(arrays))
    stored = {
        layer: _stored(layer) for layer in network.layers if layer.weights
    }
    expected = {array for parts in stored.values() for array, _ in parts}
    problems = [
        f"{word} {listed(differing)}"
        for word, differing in (
            ("without", expected - names),
            ("with, in no layer of it,", names - expected),
        )
        if differing
    ]
    if problems:
        received = identify(arrays)
        advice = "Get the file again, or save the model's state_dict()."
        if received not in (None, name):
            advice = (
                f"The file is of {received}: give --backbone={received}, or "
                f"the file of {name}."
            )
        raise ValueError(
            f"Expected each array of {name} once. Received: weights="
            f"{str(path)!r} {'; and '.join(problems)}. {advice}"
        )
    ledger = ArrayLedger(path, {array: arrays[array] for array in names})
    for layer, parts in stored.items():
        layer.set_weights(
            [
                _in_keras_layout(layer, ledger.take(array, shape))
                for array, shape in parts
            ]
        )


def _of_the_backbone(arrays: Iterable[str]) -> list[str]:
    return [
        name
        for name in arrays
        if not name.startswith(_TOPS) and not name.endswith(_COUNTER)
    ]


def _stored(layer: layers.Layer) -> list[tuple[str, tuple[int, ...]]]:
    """Returns the name and shape in PyTorch of each weight of a layer."""
    shapes = [tuple(weight.shape) for weight in layer.weights]
    if isinstance(layer, ChannelScale):
        module = layer.name.removesuffix(_SCALE).replace("_", ".")
        return [(f"{module}.layer_scale", (*shapes[0], 1, 1))]
    module = layer.name.replace("_", ".")
    words = ("weight", "bias", "running_mean", "running_var")
    if isinstance(layer, layers.DepthwiseConv2D):
        rows, columns, channels, _ = shapes[0]
        shapes[0] = (channels, 1, rows, columns)
    elif isinstance(layer, layers.Dense):
        shapes[0] = shapes[0][::-1]
    elif isinstance(layer, layers.Conv2D):
        rows, columns, before, after = shapes[0]
        shapes[0] = (after, before, rows, columns)
    return [
        (f"{module}.{word}", shape)
        for word, shape in zip(words, shapes, strict=False)
    ]


def _in_keras_layout(layer: layers.Layer, array: np.ndarray) -> np.ndarray:
    if isinstance(layer, ChannelScale):
        return array.reshape(-1)
    if array.ndim == 4:
        depthwise = isinstance(layer, layers.DepthwiseConv2D)
        return array.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    return array.T
