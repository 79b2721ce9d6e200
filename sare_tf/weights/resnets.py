"""torchvision's ResNets in the files of networks that are made of them.

    conv1.weight, bn1.*                     or positions of a Sequential
    layer{1..4}.{i}.{conv,bn}{1..3}.*
    layer{1..4}.0.downsample.{0,1}.*

Source: torchvision/models/resnet.py.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.model.registry import BACKBONES

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
        modules: torchvision's names of all convolutions and normalisations.
    """

    backbone: str
    cut_layer: str
    parts: Mapping[str, str]
    modules: tuple[str, ...]

    def names(self) -> set[str]:
        """Returns the names of its arrays in the file."""
        return {name for module in self.modules for name in self._names(module)}

    def take(self, arrays: ArrayLedger) -> dict[str, list[np.ndarray]]:
        """Takes the weights of each layer, in the order of Keras."""
        layers = {}
        for module in self.modules:
            names = self._names(module)
            if len(names) == 1:
                kernel = arrays.take(names[0], (None,) * 4)
                weights = [kernel.transpose(2, 3, 1, 0)]
            else:
                weights = [arrays.take(name, (None,)) for name in names]
            layers[module.replace(".", "_")] = weights
        return layers

    def _names(self, module: str) -> list[str]:
        part, dot, rest = module.partition(".")
        words = ("weight",)
        if re.search(r"(bn\d|downsample\.1)$", module):
            words = ("weight", "bias", "running_mean", "running_var")
        return [f"{self.parts[part]}{dot}{rest}.{word}" for word in words]


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
    blocks = BACKBONES[backbone].arguments["blocks"][: last + 1]
    return ResNet(
        backbone,
        f"{STAGES[last]}_{blocks[-1] - 1}_out",
        parts,
        tuple(_modules(blocks, bottleneck=bottleneck)),
    )


def _modules(blocks: tuple[int, ...], *, bottleneck: bool) -> Iterator[str]:
    """Names of the convolutions and normalisations of torchvision's ResNet."""
    yield from ("conv1", "bn1")
    for number, (stage, count) in enumerate(zip(STAGES, blocks, strict=False)):
        for block in range(count):
            for index in range(1, 4 if bottleneck else 3):
                yield f"{stage}.{block}.conv{index}"
                yield f"{stage}.{block}.bn{index}"
            if block == 0 and (number > 0 or bottleneck):
                yield f"{stage}.0.downsample.0"
                yield f"{stage}.0.downsample.1"


def drop_counters(arrays: ArrayLedger) -> None:
    """Drops the steps of a training that batch normalisation counts."""
    arrays.drop_ending(_COUNTER)
