"""MixVPR: ResNet50 up to conv4_x, for images of 320 x 320 pixels.

    backbone.model.<torchvision's names>
    aggregator.mix.{i}.mix.{0,1,3}          normalisation and dense layers
    aggregator.{channel_proj,row_proj}

Images are resized by PIL, bilinear. The size is that of the weights: the side
of a square feature map, times 16.

Source: github.com/amaralibey/MixVPR, models/aggregators/mixvpr.py and
dataloaders/GSVCitiesDataloader.py.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.model.registry import TORCHVISION
from sare_tf.weights import resnets, torch_layers
from sare_tf.weights.imported_network import HeadWeights, ImportedNetwork

_HEAD = "aggregator."
_PARTS = {
    part: f"backbone.model.{part}" for part in ("conv1", "bn1", *resnets.STAGES)
}
# Of a mixer: layers of the head here -> in the file.
_MIXER = {"": "0", "_hidden": "1", "_last": "3"}


def matches(state: Mapping[str, Array]) -> bool:
    """Returns whether a state_dict has MixVPR's names."""
    return f"{_HEAD}mix.0.mix.0.weight" in state


def read(source: Path, state: Mapping[str, Array]) -> ImportedNetwork:
    """Reads a state_dict.

    Args:
        source: the file, for messages.
        state: its tensors.

    Raises:
        ValueError: an array is missing, left over or of another shape, or the
            weights are for no square images.
    """
    arrays = ArrayLedger(source, state)
    prefix = f"{_HEAD}mix."
    mixers = 1 + max(
        int(name.removeprefix(prefix).partition(".")[0])
        for name in state
        if name.startswith(prefix)
    )
    layers = {"channels": "channel_proj", "rows": "row_proj"}
    for mixer in range(mixers):
        for layer, name in _MIXER.items():
            layers[f"mixer{mixer}{layer}"] = f"mix.{mixer}.mix.{name}"
    network = resnets.identify(source, state, _PARTS)
    resnets.drop_counters(arrays)
    arrays.require(
        network.names() | torch_layers.names_of(_HEAD, layers), network="MixVPR"
    )
    weights = torch_layers.named(arrays, _HEAD, layers)
    side = _side(source, len(weights["mixer0_bias"]))
    backbone = network.take(arrays)
    arrays.finish()
    # layer3 has stride 16, layer4 32.
    stride = 16 if network.cut_layer.startswith("layer3") else 32
    return ImportedNetwork(
        source="mixvpr",
        backbone=network.backbone,
        layers=backbone,
        cut_layer=network.cut_layer,
        preprocessing={
            **TORCHVISION,
            "image_size": (stride * side, stride * side),
        },
        aggregation=HeadWeights(
            name="mixvpr",
            settings={
                "channels": len(weights["channels_bias"]),
                "rows": len(weights["rows_bias"]),
                "num_mixers": mixers,
            },
            weights=weights,
        ),
        only_size=True,
    )


def _side(source: Path, locations: int) -> int:
    side = math.isqrt(locations)
    if side * side != locations:
        raise ValueError(
            "Expected weights for square images, such as MixVPR's. Received: "
            f"source={str(source)!r} with layers over {locations} locations. "
            "Other sizes cannot be told from it."
        )
    return side
