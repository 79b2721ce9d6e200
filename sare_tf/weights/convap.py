"""Conv-AP: torchvision's ResNet50, a convolution and means of 2 x 2 regions.

    backbone.model.<torchvision's names>
    aggregator.channel_pool.{weight,bias}

Images are resized to 320 x 320 by PIL, bilinear. Any other size is possible.

Source: github.com/amaralibey/gsv-cities, models/aggregators/convap.py and
dataloaders/GSVCitiesDataloader.py.
"""

from collections.abc import Mapping
from pathlib import Path

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.model.registry import TORCHVISION
from sare_tf.weights import resnets, torch_layers
from sare_tf.weights.imported_network import HeadWeights, ImportedNetwork

_HEAD = "aggregator."
_LAYERS = {"projection": "channel_pool"}
_PARTS = {
    part: f"backbone.model.{part}" for part in ("conv1", "bn1", *resnets.STAGES)
}
_SIZE = (320, 320)
# Of all published files, and in none of their arrays.
_REGIONS = 2


def matches(state: Mapping[str, Array]) -> bool:
    """Returns whether a state_dict has Conv-AP's names."""
    return f"{_HEAD}channel_pool.weight" in state


def read(source: Path, state: Mapping[str, Array]) -> ImportedNetwork:
    """Reads a state_dict.

    Args:
        source: the file, for messages.
        state: its tensors.

    Raises:
        ValueError: an array is missing, left over or of another shape.
    """
    arrays = ArrayLedger(source, state)
    network = resnets.identify(source, state, _PARTS)
    resnets.drop_counters(arrays)
    arrays.require(
        network.names() | torch_layers.names_of(_HEAD, _LAYERS),
        network="Conv-AP",
    )
    weights = torch_layers.named(arrays, _HEAD, _LAYERS)
    backbone = network.take(arrays)
    arrays.finish()
    return ImportedNetwork(
        source="convap",
        backbone=network.backbone,
        layers=backbone,
        cut_layer=network.cut_layer,
        preprocessing={**TORCHVISION, "image_size": _SIZE},
        aggregation=HeadWeights(
            name="convap",
            settings={
                "channels": len(weights["projection_bias"]),
                "regions": _REGIONS,
            },
            weights=weights,
        ),
        notes=(
            f"The means are over {_REGIONS} x {_REGIONS} regions, as in all "
            "published files; the file does not say it.",
        ),
    )
