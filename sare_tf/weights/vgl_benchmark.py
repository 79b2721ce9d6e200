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

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.model.registry import TORCHVISION
from sare_tf.weights import resnets, torch_layers
from sare_tf.weights.imported_network import (
    GeMWeights,
    ImportedNetwork,
)


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
        network = resnets.identify(
            source,
            state,
            {
                part: f"backbone.{position}"
                for part, position in resnets.SEQUENTIAL.items()
            },
        )
        backbone, cut_layer = network.backbone, network.cut_layer
        layers = network.take(arrays)
        resnets.drop_counters(arrays)
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
