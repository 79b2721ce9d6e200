"""ImAge: learned tokens that join DINOv2 before a block, and nothing else.

    backbone.<DINOv2's names>               a vision transformer with registers
    learnable_aggregation_tokens            [1, tokens, channels]

Positions are interpolated as in networks without registers. Images are resized
to 322 x 322 as tensors, bilinear.

Source: github.com/Lu-Feng/ImAge, network.py, hubconf.py and datasets_ws.py.
"""

from collections.abc import Mapping
from pathlib import Path

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.model.registry import TORCHVISION
from sare_tf.weights import transformers
from sare_tf.weights.imported_network import HeadWeights, ImportedNetwork

_TOKENS = "learnable_aggregation_tokens"
# Of both published files, and in none of their arrays.
_BEFORE_BLOCK = 8
_SIZE = (322, 322)


def matches(state: Mapping[str, Array]) -> bool:
    """Returns whether a state_dict has ImAge's names."""
    return _TOKENS in state


def read(source: Path, state: Mapping[str, Array]) -> ImportedNetwork:
    """Reads a state_dict.

    Args:
        source: the file, for messages.
        state: its tensors.

    Raises:
        ValueError: an array is missing, left over or of another shape.
    """
    arrays = ArrayLedger(source, state)
    _, count, _ = arrays.shape(_TOKENS)
    backbone = transformers.take(
        source,
        state,
        arrays,
        prefix="backbone.",
        aggregating=(count, _BEFORE_BLOCK),
    )
    arrays.require({_TOKENS}, network="ImAge")
    architecture = backbone["transformer"].architecture
    if architecture.depth <= _BEFORE_BLOCK:
        raise ValueError(
            f"Expected more than {_BEFORE_BLOCK} blocks, before the last of "
            f"which ImAge's tokens join. Received: source={str(source)!r} with "
            f"{architecture.depth}. Only networks like ViT-B are supported."
        )
    tokens = arrays.take(_TOKENS, (1, count, architecture.dimension))
    arrays.finish()
    backbone["layers"]["aggregating"] = [tokens[0]]
    return ImportedNetwork(
        source="implicit_aggregation",
        preprocessing={
            **TORCHVISION,
            "image_size": _SIZE,
            "rounded": False,
        },
        aggregation=HeadWeights(name="class_token", settings={}, weights={}),
        notes=(
            f"Its {count} tokens join before block {_BEFORE_BLOCK}, as in the "
            "published files; the file does not say it.",
        ),
        **backbone,
    )
