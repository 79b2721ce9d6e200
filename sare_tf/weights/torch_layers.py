"""What the PyTorch sources share: names and layouts of their layers.

PyTorch has convolutions as [out, in, rows, columns], and flattens NetVLAD as
[K, C], which is the order here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sare_tf.weights import torch_file
from sare_tf.weights.imported_network import (
    VGG16_LAYERS,
    Found,
    NetVLADWeights,
    Taken,
)

# Of the convolutions in torchvision's vgg16().features.
VGG16_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
# Where a checkpoint of a training holds the network.
_STATE_DICTS = ("state_dict", "model_state_dict")


def tensors(source: Path, saved: Any) -> dict[str, torch_file.Tensor]:
    """The network's tensors by name, without `module.` of data parallelism.

    Args:
        source: the file, for messages.
        saved: what `torch_file.read` returned.

    Raises:
        ValueError: no state_dict is in it.
    """
    for name in _STATE_DICTS:
        if isinstance(saved, Mapping) and isinstance(saved.get(name), Mapping):
            saved = saved[name]
    if (
        not isinstance(saved, Mapping)
        or not saved
        or not all(
            isinstance(name, str) and isinstance(tensor, torch_file.Tensor)
            for name, tensor in saved.items()
        )
    ):
        raise ValueError(
            "Expected a state_dict, or a checkpoint with one under "
            f"{' or '.join(_STATE_DICTS)}. Received: source={str(source)!r} "
            f"with {_describe(saved)}. Save the model's state_dict()."
        )
    found = {}
    for name, tensor in saved.items():
        parts = [part for part in name.split(".") if part != "module"]
        found[".".join(parts)] = tensor
    if len(found) != len(saved):
        raise ValueError(
            "Expected names that differ by more than 'module.'. Received: "
            f"source={str(source)!r} with {len(saved) - len(found)} that do "
            "not. Save the model's state_dict()."
        )
    return found


def _describe(saved: Any) -> str:
    if isinstance(saved, Mapping):
        return f"the keys {', '.join(map(str, list(saved)[:8])) or 'none'}"
    return f"an object of type {type(saved).__name__}"


def taken(source: Path, state: Mapping[str, torch_file.Tensor]) -> Taken:
    """Tensors to be taken by name."""
    return Taken(
        source,
        {name: (tensor.shape, tensor.numpy) for name, tensor in state.items()},
    )


def vgg16(arrays: Taken, prefix: str) -> dict[str, list[np.ndarray]]:
    """The convolutions of VGG16, up to conv5_3."""
    found = {}
    for layer, index in zip(VGG16_LAYERS, VGG16_INDICES, strict=True):
        kernel = arrays.take(f"{prefix}{index}.weight", (None, None, 3, 3))
        bias = arrays.take(f"{prefix}{index}.bias", kernel.shape[:1])
        found[layer] = [kernel.transpose(2, 3, 1, 0), bias]
    return found


def vgg16_state(found: Found, prefix: str) -> dict[str, np.ndarray]:
    """The reverse of `vgg16`, for a network that takes RGB."""
    state = {}
    for layer, index in zip(VGG16_LAYERS, VGG16_INDICES, strict=True):
        kernel, bias = found.layers[layer]
        if index == 0 and found.preprocessing.get("blue_first"):
            kernel = kernel[:, :, ::-1]
        state[f"{prefix}{index}.weight"] = kernel.transpose(3, 2, 0, 1)
        state[f"{prefix}{index}.bias"] = bias
    return state


def netvlad_state(found: Found, prefix: str) -> dict[str, np.ndarray]:
    """The reverse of `netvlad`."""
    weights = found.aggregation
    state = {f"{prefix}centroids": weights.centres}
    state[f"{prefix}conv.weight"] = weights.assignment.T[:, :, None, None]
    if weights.bias is not None:
        state[f"{prefix}conv.bias"] = weights.bias
    return state


def check_preprocessing(
    found: Found, expected: Mapping[str, tuple], what: str
) -> None:
    """Refuses a network whose images are not prepared as expected.

    Raises:
        ValueError: says how they are.
    """
    settings = found.preprocessing
    step = -1 if settings.get("blue_first") else 1
    for name in ("mean", "deviation"):
        if not np.allclose(settings[name][::step], expected[name], atol=1e-3):
            raise ValueError(
                f"Expected a network for images with the {name} "
                f"{expected[name]}, which {what} fixes. Received: "
                f"{tuple(settings[name][::step])}. It would see other images "
                "there than here: choose the other format."
            )


def netvlad(arrays: Taken, prefix: str) -> NetVLADWeights:
    """NetVLAD; with a bias of the assignment it is `vladv2`."""
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
    arrays: Taken, prefix: str, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Whitening that is a convolution of 1 x 1: [D, d] and [d]."""
    kernel = arrays.take(f"{prefix}weight", (None, length, 1, 1))
    bias = arrays.take(f"{prefix}bias", kernel.shape[:1])
    return kernel[:, :, 0, 0].T, bias
