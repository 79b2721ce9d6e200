"""DINOv2's vision transformers in the files of networks that are made of them.

Their names are DINOv2's own behind a prefix; `model.vit_weights` reads them.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.model.vit_architectures import DINOV2, Architecture
from sare_tf.model.vit_weights import take as take_backbone
from sare_tf.weights.imported_network import VisionTransformer

# Blocks that networks train: those of SALAD, which others follow.
_TRAINED_BLOCKS = 4


def take(
    source: Path,
    state: Mapping[str, Array],
    arrays: ArrayLedger,
    *,
    prefix: str,
    other_sizes: str = "refuse",
    norm: bool = True,
    aggregating: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """Takes the backbone out of a state_dict.

    Args:
        source: the file, for messages.
        state: its tensors.
        arrays: the same tensors, of which those of the backbone are taken.
        prefix: what precedes the names of the backbone.
        other_sizes: see `model.vit.build`.
        norm: whether the network uses the last normalisation.
        aggregating: number of the learned tokens, and the block before which
            they join.

    Returns:
        Arguments of `ImportedNetwork`: backbone, layers and transformer.

    Raises:
        ValueError: arrays are missing, left over or of another shape.
    """
    architecture, layers = take_backbone(
        source, state, arrays, prefix=prefix, norm=norm
    )
    name = name_of(architecture)
    train_from = f"block{max(architecture.depth - _TRAINED_BLOCKS, 0)}_norm1"
    count, before = aggregating
    if count:
        # ImAge interpolates positions as networks without registers do.
        architecture = dataclasses.replace(
            architecture,
            antialias=False,
            num_aggregating=count,
            aggregate_from=before,
        )
        train_from = "aggregating"
    transformer = VisionTransformer(
        architecture=architecture,
        other_sizes=other_sizes,
        train_from=train_from,
    )
    return {"backbone": name, "layers": layers, "transformer": transformer}


def name_of(architecture: Architecture) -> str:
    """Returns the name in the registry, or a description of the sizes."""
    for name, known in DINOV2.items():
        if known == architecture:
            return name
    registers = architecture.num_registers
    return (
        f"dinov2 of {architecture.depth} blocks of {architecture.dimension} "
        f"channels and {registers} registers"
    )
