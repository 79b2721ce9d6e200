"""DINOv2's published backbones; `model.vit_weights` reads their names."""

from collections.abc import Mapping
from pathlib import Path

from sare_tf.model.pretrained.array_ledger import Array
from sare_tf.model.registry import TORCHVISION
from sare_tf.model.vit_weights import matches as matches
from sare_tf.model.vit_weights import read_backbone
from sare_tf.model.vit_weights import take as take
from sare_tf.weights.imported_network import ImportedNetwork


def read(
    source: Path, state: Mapping[str, Array], *, backbone: str | None = None
) -> ImportedNetwork:
    """Reads a state_dict that holds only a backbone.

    Args:
        source: the file, for messages.
        state: its tensors.
        backbone: the name that it must have in the registry; None: any.

    Raises:
        ValueError: arrays are missing, left over or of another shape; or it is
            another network.
    """
    name, layers = read_backbone(source, state, backbone=backbone)
    return ImportedNetwork(
        source="dinov2",
        backbone=name,
        layers=layers,
        preprocessing=TORCHVISION,
    )
