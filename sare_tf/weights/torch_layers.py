"""Names and layouts of layers that several PyTorch sources share.

PyTorch has convolutions as [out, in, rows, columns], and flattens NetVLAD as
[K, C], which is the order here.
"""

from collections.abc import Mapping

import numpy as np

from sare_tf.model.pretrained.array_ledger import ArrayLedger
from sare_tf.weights.imported_network import (
    VGG16_LAYERS,
    ImportedNetwork,
    NetVLADWeights,
)

# Of the convolutions in torchvision's vgg16().features.
VGG16_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def vgg16(arrays: ArrayLedger, prefix: str) -> dict[str, list[np.ndarray]]:
    """Takes the convolutions of VGG16, up to conv5_3."""
    layers = {}
    for layer, index in zip(VGG16_LAYERS, VGG16_INDICES, strict=True):
        kernel = arrays.take(f"{prefix}{index}.weight", (None, None, 3, 3))
        bias = arrays.take(f"{prefix}{index}.bias", kernel.shape[:1])
        layers[layer] = [kernel.transpose(2, 3, 1, 0), bias]
    return layers


def vgg16_names(prefix: str) -> set[str]:
    """Returns the names of the arrays that `vgg16` takes."""
    return {
        f"{prefix}{index}.{part}"
        for index in VGG16_INDICES
        for part in ("weight", "bias")
    }


def vgg16_state(network: ImportedNetwork, prefix: str) -> dict[str, np.ndarray]:
    """Returns the reverse of `vgg16`, for a network that takes RGB."""
    state = {}
    for layer, index in zip(VGG16_LAYERS, VGG16_INDICES, strict=True):
        kernel, bias = network.layers[layer]
        if index == 0 and network.preprocessing.get("blue_first"):
            kernel = kernel[:, :, ::-1]
        state[f"{prefix}{index}.weight"] = kernel.transpose(3, 2, 0, 1)
        state[f"{prefix}{index}.bias"] = bias
    return state


def netvlad_state(
    network: ImportedNetwork, prefix: str
) -> dict[str, np.ndarray]:
    """Returns the reverse of `netvlad`."""
    weights = network.aggregation
    state = {f"{prefix}centroids": weights.centres}
    state[f"{prefix}conv.weight"] = weights.assignment.T[:, :, None, None]
    if weights.bias is not None:
        state[f"{prefix}conv.bias"] = weights.bias
    return state


def check_preprocessing(
    network: ImportedNetwork, expected: Mapping[str, tuple], what: str
) -> None:
    """Refuses a network that preprocesses images differently.

    Raises:
        ValueError: says how it does.
    """
    settings = network.preprocessing
    step = -1 if settings.get("blue_first") else 1
    for name in ("mean", "deviation"):
        if not np.allclose(settings[name][::step], expected[name], atol=1e-3):
            raise ValueError(
                f"Expected a network for images with the {name} "
                f"{expected[name]}, which {what} fixes. Received: "
                f"{tuple(settings[name][::step])}. It would see other images "
                "there than here: choose the other format."
            )


def netvlad(arrays: ArrayLedger, prefix: str) -> NetVLADWeights:
    """Takes NetVLAD; with a bias of the assignment it is `vladv2`."""
    centres = arrays.take(f"{prefix}centroids", (None, None))
    clusters, channels = centres.shape
    kernel = arrays.take(f"{prefix}conv.weight", (clusters, channels, 1, 1))
    bias = None
    if f"{prefix}conv.bias" in arrays:
        bias = arrays.take(f"{prefix}conv.bias", (clusters,))
    return NetVLADWeights(
        assignment=kernel[:, :, 0, 0].T,
        centres=centres,
        bias=bias,
        clamped=True,
    )


def convolved_projection(
    arrays: ArrayLedger, prefix: str, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Takes whitening that is a convolution of 1 x 1: [D, d] and [d]."""
    kernel = arrays.take(f"{prefix}weight", (None, length, 1, 1))
    bias = arrays.take(f"{prefix}bias", kernel.shape[:1])
    return kernel[:, :, 0, 0].T, bias


def named(
    arrays: ArrayLedger, prefix: str, layers: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Takes dense layers, convolutions and normalisations with their biases.

    Args:
        arrays: the arrays.
        prefix: of all names in the file.
        layers: name of a layer in `model.heads` -> in the file.

    Returns:
        Weights by name as `model.heads` has them: of a layer `x` with a matrix
        or a convolution of 1 x 1, `x_kernel`, [inputs, outputs]; with a larger
        convolution, `x_kernel`, [rows, columns, inputs, outputs]; of a
        normalisation, `x_scale`; and always `x_bias`.
    """
    weights = {}
    for layer, name in layers.items():
        shape = arrays.shape(f"{prefix}{name}.weight")
        array = arrays.take(f"{prefix}{name}.weight", (None,) * len(shape))
        kind = "scale" if len(shape) == 1 else "kernel"
        if len(shape) == 4 and shape[2:] != (1, 1):
            array = array.transpose(2, 3, 1, 0)
        elif len(shape) > 1:
            array = array.reshape(shape[0], -1).T
        weights[f"{layer}_{kind}"] = array
        weights[f"{layer}_bias"] = arrays.take(
            f"{prefix}{name}.bias", (shape[0],)
        )
    return weights


def names_of(prefix: str, layers: Mapping[str, str]) -> set[str]:
    """Returns the names of the arrays that `named` takes."""
    return {
        f"{prefix}{name}.{part}"
        for name in layers.values()
        for part in ("weight", "bias")
    }


def attention(
    arrays: ArrayLedger, prefix: str, layer: str
) -> dict[str, np.ndarray]:
    """Takes a torch.nn.MultiheadAttention, with queries, keys, values in one.

    Args:
        arrays: the arrays.
        prefix: of its names.
        layer: its name in `model.heads`.
    """
    weights = named(arrays, prefix, {f"{layer}_out": "out_proj"})
    length = len(weights[f"{layer}_out_bias"])
    kernel = arrays.take(f"{prefix}in_proj_weight", (3 * length, length))
    bias = arrays.take(f"{prefix}in_proj_bias", (3 * length,))
    for index, part in enumerate(("query", "key", "value")):
        rows = slice(index * length, (index + 1) * length)
        weights[f"{layer}_{part}_kernel"] = kernel[rows].T
        weights[f"{layer}_{part}_bias"] = bias[rows]
    return weights


def attention_names(prefix: str) -> set[str]:
    """Returns the names of the arrays that `attention` takes."""
    return {
        f"{prefix}{name}"
        for name in (
            *("in_proj_weight", "in_proj_bias"),
            *("out_proj.weight", "out_proj.bias"),
        )
    }
