"""torchvision's ResNets in the files of networks that are made of them.

    conv1.weight, bn1.*                     or positions of a Sequential
    layer{1..4}.{i}.{conv,bn}{1..3}.*
    layer{1..4}.0.downsample.{0,1}.*

Source: torchvision/models/resnet.py.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from sare_tf.model import backbones
from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.model.registry import BACKBONES
from sare_tf.model.torchvision import published_weights

STAGES = ("layer1", "layer2", "layer3", "layer4")
# torchvision's modules -> positions in a Sequential of the ResNet's children.
SEQUENTIAL = {"conv1": "0", "bn1": "1"} | {
    stage: str(position) for position, stage in enumerate(STAGES, start=4)
}
# Blocks of layer3, and convolutions of a block -> name of the backbone.
_DEPTHS = {
    (2, 2): "torchvision_resnet18",
    (6, 2): "torchvision_resnet34",
    (6, 3): "torchvision_resnet50",
    (23, 3): "torchvision_resnet101",
    (36, 3): "torchvision_resnet152",
}
_COUNTER = ".num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class ResNet:
    """Which ResNet a file has, and where.

    Attributes:
        backbone: name in `registry.BACKBONES`.
        cut_layer: last layer of its last stage.
        parts: torchvision's modules -> their names in the file.
        network: the network up to the cut, with random weights.
    """

    backbone: str
    cut_layer: str
    parts: Mapping[str, str]
    network: keras.Model

    def names(self) -> set[str]:
        """Returns the names of its arrays in the file."""
        return {
            self._in_file(name)
            for layer in self.network.layers
            if layer.weights
            for name, _ in published_weights.stored(layer)
        }

    def take(self, arrays: ArrayLedger) -> dict[str, list[np.ndarray]]:
        """Takes the weights of each layer."""
        return {
            layer.name: [
                published_weights.in_keras_layout(
                    layer, arrays.take(self._in_file(name), shape)
                )
                for name, shape in published_weights.stored(layer)
            ]
            for layer in self.network.layers
            if layer.weights
        }

    def _in_file(self, name: str) -> str:
        part, _, rest = name.partition(".")
        return f"{self.parts[part]}.{rest}"


def identify(
    source: Path, state: Mapping[str, Array], parts: Mapping[str, str]
) -> ResNet:
    """Returns the ResNet of a file.

    Args:
        source: the file, for messages.
        state: its arrays.
        parts: torchvision's modules, conv1, bn1 and layer1 to layer4 -> their
            names in the file.

    Raises:
        ValueError: it is none of torchvision's.
    """
    counts = {}
    for stage in STAGES:
        prefix = f"{parts.get(stage, stage)}."
        counts[stage] = len(
            {
                name.removeprefix(prefix).partition(".")[0]
                for name in state
                if name.startswith(prefix)
            }
        )
    bottleneck = f"{parts['layer1']}.0.conv3.weight" in state
    backbone = _DEPTHS.get((counts["layer3"], 3 if bottleneck else 2))
    if backbone is None:
        raise ValueError(
            "Expected ResNet 18, 34, 50, 101 or 152 of torchvision, up to "
            f"layer3 or layer4. Received: source={str(source)!r} with blocks "
            f"per stage of {list(counts.values())}. Other backbones are not "
            "supported."
        )
    last = max(index for index, stage in enumerate(STAGES) if counts[stage])
    blocks = BACKBONES[backbone].arguments["blocks"]
    cut_layer = f"{STAGES[last]}_{blocks[last] - 1}_out"
    _, network = backbones.build(
        backbone, cut_layer=cut_layer, train_from="aggregation"
    )
    return ResNet(backbone, cut_layer, parts, network)


def drop_counters(arrays: ArrayLedger) -> None:
    """Drops the steps of a training that batch normalisation counts."""
    arrays.drop_ending(_COUNTER)
