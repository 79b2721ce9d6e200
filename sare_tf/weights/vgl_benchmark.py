"""The deep-visual-geo-localization-benchmark: VGG16 or ResNet, NetVLAD or GeM.

    backbone.{0..28}.{weight,bias}          VGG16 up to conv5_3, or
    backbone.{0,1,4,5,6,7}...               ResNet 18, 50 or 101, to conv4_x or
                                            conv5_x, a Sequential of the parts
                                            of torchvision's
    aggregation.{conv.weight,centroids}     NetVLAD, or
    aggregation.{0,1}.p                     GeM

GeM follows a normalisation of each location (aggregation.1.p, its default), or
precedes one of the descriptor (aggregation.0.p). In the former case the
benchmark does not normalise descriptors; here they have length 1.

Source: github.com/gmberton/deep-visual-geo-localization-benchmark,
model/network.py and model/aggregation.py.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.model.registry import TORCHVISION
from sare_tf.weights import torch_layers
from sare_tf.weights.imported_network import (
    GeMWeights,
    ImportedNetwork,
)

# Position in the Sequential -> name in torchvision's ResNet.
_STAGES = {"4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
# Blocks of layer3, and convolutions of a block -> name of the backbone.
_DEPTHS = {
    (2, 2): "torchvision_resnet18",
    (6, 3): "torchvision_resnet50",
    (23, 3): "torchvision_resnet101",
}
_NORMALISATION = ("weight", "bias", "running_mean", "running_var")


def matches(state: Mapping[str, Array]) -> bool:
    """Returns whether a state_dict has the benchmark's names."""
    return "backbone.0.weight" in state and any(
        name.startswith("aggregation.") for name in state
    )


def read(source: Path, state: Mapping[str, Array]) -> ImportedNetwork:
    """Reads a state_dict.

    Args:
        source: the file, for messages.
        state: its tensors.

    Raises:
        ValueError: an array is missing, left over or of another shape, or the
            backbone is none of the above.
    """
    arrays = ArrayLedger(source, state)
    cut_layer = None
    if "backbone.28.weight" in arrays:
        backbone = "vgg16"
        layers = torch_layers.vgg16(arrays, "backbone.")
    else:
        backbone, cut_layer, layers = _resnet(source, arrays, state)
    notes = ()
    if "aggregation.centroids" in arrays:
        aggregation = torch_layers.netvlad(arrays, "aggregation.")
    else:
        unit_locations = "aggregation.1.p" in arrays
        name = f"aggregation.{int(unit_locations)}.p"
        aggregation = GeMWeights(
            exponent=float(arrays.take(name, (1,))[0]),
            unit_locations=unit_locations,
        )
        if unit_locations:
            notes = (
                "The benchmark leaves these descriptors unnormalised; here "
                "they have length 1, so that rankings may differ slightly.",
            )
    arrays.finish()
    return ImportedNetwork(
        source="benchmark",
        backbone=backbone,
        layers=layers,
        cut_layer=cut_layer,
        preprocessing=TORCHVISION,
        aggregation=aggregation,
        notes=notes,
    )


def _resnet(
    source: Path, arrays: ArrayLedger, state: Mapping[str, Array]
) -> tuple[str, str, dict[str, list[np.ndarray]]]:
    """Returns the backbone, its last layer, and the weights of all layers."""
    blocks = {
        tuple(name.split(".")[1:3])
        for name in state
        if name.startswith("backbone.") and name.count(".") == 4
    }
    sizes = {
        stage: sum(first == stage for first, _ in blocks) for stage in _STAGES
    }
    bottleneck = "backbone.4.0.conv3.weight" in arrays
    depth = (sizes["6"], 3 if bottleneck else 2)
    if depth not in _DEPTHS:
        raise ValueError(
            "Expected VGG16 or ResNet 18, 50 or 101 up to conv4_x or conv5_x. "
            f"Received: source={str(source)!r} with blocks per stage of "
            f"{list(sizes.values())}. Other backbones are not supported."
        )
    last = max(stage for stage, count in sizes.items() if count)
    layers = {
        "conv1": [_kernel(arrays, "backbone.0")],
        "bn1": _normalisation(arrays, "backbone.1"),
    }
    for stage, number in sorted(blocks):
        if stage not in _STAGES:
            continue  # `finish` refuses it
        ours = f"{_STAGES[stage]}_{number}"
        theirs = f"backbone.{stage}.{number}"
        for index in range(1, depth[1] + 1):
            layers[f"{ours}_conv{index}"] = [
                _kernel(arrays, f"{theirs}.conv{index}")
            ]
            layers[f"{ours}_bn{index}"] = _normalisation(
                arrays, f"{theirs}.bn{index}"
            )
        if f"{theirs}.downsample.0.weight" in arrays:
            layers[f"{ours}_downsample_0"] = [
                _kernel(arrays, f"{theirs}.downsample.0")
            ]
            layers[f"{ours}_downsample_1"] = _normalisation(
                arrays, f"{theirs}.downsample.1"
            )
    return (
        _DEPTHS[depth],
        f"{_STAGES[last]}_{sizes[last] - 1}_out",
        layers,
    )


def _kernel(arrays: ArrayLedger, name: str) -> np.ndarray:
    kernel = arrays.take(f"{name}.weight", (None, None, None, None))
    return kernel.transpose(2, 3, 1, 0)


def _normalisation(arrays: ArrayLedger, name: str) -> list[np.ndarray]:
    """Returns gamma, beta, mean and variance, the order of Keras."""
    arrays.drop(f"{name}.num_batches_tracked")
    return [arrays.take(f"{name}.{part}", (None,)) for part in _NORMALISATION]
