"""CosPlace and EigenPlaces: VGG16 or a ResNet, GeM and a dense layer.

    backbone.{0..28}.{weight,bias}          VGG16 up to conv5_3, or
    backbone.{0,1,4,5,6,7}.*                ResNet 18, 50, 101 or 152
    aggregation.1.p                         GeM's exponent
    aggregation.3.{weight,bias}

Both save the same names. They take images of any size as they are.

Source: github.com/gmberton/CosPlace, cosplace_model;
github.com/gmberton/EigenPlaces, eigenplaces_model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.model.registry import TORCHVISION
from sare_tf.weights import resnets, torch_layers
from sare_tf.weights.imported_network import HeadWeights, ImportedNetwork

_BACKBONE = "backbone."
_EXPONENT = "aggregation.1.p"
_PROJECTION = "aggregation.3"


def matches(state: Mapping[str, Array]) -> bool:
    """Returns whether a state_dict has CosPlace's names."""
    return f"{_PROJECTION}.weight" in state and "backbone.0.weight" in state


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
    head = {_EXPONENT, f"{_PROJECTION}.weight", f"{_PROJECTION}.bias"}
    backbone = _take_backbone(source, state, arrays, head)
    kernel = arrays.take(f"{_PROJECTION}.weight", (None, None))
    bias = arrays.take(f"{_PROJECTION}.bias", kernel.shape[:1])
    exponent = arrays.take(_EXPONENT, (1,))[0]
    arrays.finish()
    return ImportedNetwork(
        source="cosplace",
        preprocessing=TORCHVISION,
        aggregation=HeadWeights(
            name="gem_linear",
            settings={"length": len(bias)},
            weights={"exponent": exponent, "kernel": kernel.T, "bias": bias},
        ),
        notes=("CosPlace and EigenPlaces save the same names.",),
        **backbone,
    )


def _take_backbone(
    source: Path,
    state: Mapping[str, Array],
    arrays: ArrayLedger,
    others: set[str],
) -> dict[str, Any]:
    """Returns arguments of `ImportedNetwork`; requires the others as well."""
    if f"{_BACKBONE}28.weight" in arrays:
        vgg16 = torch_layers.vgg16_names(_BACKBONE)
        arrays.require(others | vgg16, network="CosPlace with VGG16")
        return {
            "backbone": "vgg16",
            "layers": torch_layers.vgg16(arrays, _BACKBONE),
        }
    parts = {
        part: f"{_BACKBONE}{position}"
        for part, position in resnets.SEQUENTIAL.items()
    }
    network = resnets.identify(source, state, parts)
    resnets.drop_counters(arrays)
    arrays.require(
        others | network.names(), network=f"CosPlace with {network.backbone}"
    )
    return {
        "backbone": network.backbone,
        "layers": network.take(arrays),
        "cut_layer": network.cut_layer,
    }
