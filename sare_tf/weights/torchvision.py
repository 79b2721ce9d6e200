"""torchvision's published networks: only a backbone, without its classifier."""

from collections.abc import Mapping
from pathlib import Path

from sare_tf.model import backbones, registry
from sare_tf.model.pretrained.array_ledger import Array
from sare_tf.model.torchvision import published_weights
from sare_tf.weights.imported_network import ImportedNetwork


def matches(state: Mapping[str, Array]) -> bool:
    """Returns whether the names are those of a network of torchvision."""
    return published_weights.identify(state) is not None


def read(source: Path, state: Mapping[str, Array]) -> ImportedNetwork:
    """Reads a state_dict.

    Args:
        source: the file.
        state: its tensors.

    Raises:
        ValueError: an array is missing, left over or of another shape.
    """
    name = published_weights.identify(state)
    if name is None:
        raise ValueError(
            "Expected the arrays of a network of torchvision. Received: "
            f"source={str(source)!r} with {len(state)} arrays, the number of "
            "none that is supported. Leave --format out."
        )
    _, network = backbones.build(name, weights=source)
    return ImportedNetwork(
        source="torchvision",
        backbone=name,
        layers={
            layer.name: layer.get_weights()
            for layer in network.layers
            if layer.weights
        },
        preprocessing=registry.BACKBONES[name].preprocessing,
    )
