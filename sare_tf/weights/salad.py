"""DINOv2-SALAD, and SALAD with CliqueMining, which is the same network.

    backbone.model.<DINOv2's names>         a vision transformer
    aggregator.dust_bin
    aggregator.token_features.{0,2}         dense layers
    aggregator.cluster_features.{0,3}       convolutions of 1 x 1
    aggregator.score.{0,3}

CliqueMining's file is a checkpoint of Lightning. The evaluation resizes images
to 322 x 322 by PIL, bilinear.

Source: the names in github.com/gmberton/MegaLoc, megaloc_model.py (MIT), and
the state_dict of the release of github.com/serizba/salad.
"""

from collections.abc import Mapping
from pathlib import Path

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.model.registry import TORCHVISION
from sare_tf.weights import torch_layers, transformers
from sare_tf.weights.imported_network import HeadWeights, ImportedNetwork

_BACKBONE = "backbone.model."
_HEAD = "aggregator."
# Layers of the head here -> in the file.
_LAYERS = {
    "token_hidden": "token_features.0",
    "token": "token_features.2",
    "feature_hidden": "cluster_features.0",
    "feature": "cluster_features.3",
    "score_hidden": "score.0",
    "score": "score.3",
}
_SIZE = (322, 322)


def matches(state: Mapping[str, Array]) -> bool:
    """Returns whether a state_dict has SALAD's names."""
    return f"{_HEAD}dust_bin" in state


def read(source: Path, state: Mapping[str, Array]) -> ImportedNetwork:
    """Reads a state_dict.

    Args:
        source: the file, for messages.
        state: its tensors.

    Raises:
        ValueError: an array is missing, left over or of another shape.
    """
    arrays = ArrayLedger(source, state)
    backbone = transformers.take(source, state, arrays, prefix=_BACKBONE)
    arrays.require(head_names(_HEAD), network="DINOv2-SALAD")
    head = take_head(arrays, _HEAD)
    arrays.finish()
    return ImportedNetwork(
        source="salad",
        preprocessing={**TORCHVISION, "image_size": _SIZE},
        aggregation=head,
        **backbone,
    )


def head_names(prefix: str) -> set[str]:
    """Returns the names of the arrays of the head."""
    return torch_layers.names_of(prefix, _LAYERS) | {f"{prefix}dust_bin"}


def take_head(arrays: ArrayLedger, prefix: str) -> HeadWeights:
    """Takes the head, whose sizes its arrays say."""
    weights = torch_layers.named(arrays, prefix, _LAYERS)
    weights["dustbin"] = arrays.take(f"{prefix}dust_bin", ())
    return HeadWeights(
        name="salad",
        settings={
            "num_clusters": len(weights["score_bias"]),
            "cluster_length": len(weights["feature_bias"]),
            "token_length": len(weights["token_bias"]),
            "hidden": len(weights["token_hidden_bias"]),
        },
        weights=weights,
    )
