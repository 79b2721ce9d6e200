"""BoQ: over ResNet50 up to conv4_x, or over DINOv2.

    backbone.dino.<DINOv2's names>          a vision transformer, or
    backbone.net.{0,1,4,5,6}.*              torchvision's ResNet, or the same as
    backbone.frozen_layers.0.{0,1}.*        github.com/gmberton/
    backbone.{,un}frozen_layers.{i}.*       VPR-methods-evaluation names it
    aggregator.proj_c, norm_input, fc
    aggregator.boqs.{b}.queries
    aggregator.boqs.{b}.encoder.*           torch.nn.TransformerEncoderLayer
    aggregator.boqs.{b}.{self_attn,norm_q,cross_attn,norm_out}.*

Tokens of DINOv2 are taken before its last normalisation. Images are resized as
tensors, bicubic: to 322 x 322 for DINOv2 and 384 x 384 for ResNet50.

Source: github.com/amaralibey/Bag-of-Queries, src/boq.py and src/backbones.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.model.registry import TORCHVISION
from sare_tf.weights import resnets, torch_layers, transformers
from sare_tf.weights.imported_network import HeadWeights, ImportedNetwork

_TRANSFORMER = "backbone.dino."
_HEAD = "aggregator."
_LAYERS = {"projection": "proj_c", "input": "norm_input", "rows": "fc"}
# Of a block: layers of the head here -> in the file.
_BLOCK = {
    "encoder_first": "encoder.norm1",
    "encoder_hidden": "encoder.linear1",
    "encoder_last": "encoder.linear2",
    "encoder_second": "encoder.norm2",
    "query": "norm_q",
    "answer": "norm_out",
}
_ATTENTION = {
    "encoder": "encoder.self_attn.",
    "self": "self_attn.",
    "cross": "cross_attn.",
}


def matches(state: Mapping[str, Array]) -> bool:
    """Returns whether a state_dict has BoQ's names."""
    return f"{_HEAD}proj_c.weight" in state


def read(source: Path, state: Mapping[str, Array]) -> ImportedNetwork:
    """Reads a state_dict.

    Args:
        source: the file, for messages.
        state: its tensors.

    Raises:
        ValueError: an array is missing, left over or of another shape.
    """
    arrays = ArrayLedger(source, state)
    blocks = _blocks(state)
    if any(name.startswith(_TRANSFORMER) for name in state):
        size = 322
        backbone = transformers.take(
            source, state, arrays, prefix=_TRANSFORMER, norm=False
        )
        depth = backbone["transformer"].architecture.depth
        backbone["cut_layer"] = f"block{depth - 1}_patches"
        arrays.require(_names(blocks), network="BoQ")
    else:
        size = 384
        network = resnets.identify(source, state, _parts(state))
        resnets.drop_counters(arrays)
        arrays.require(_names(blocks) | network.names(), network="BoQ")
        backbone = {
            "backbone": network.backbone,
            "cut_layer": network.cut_layer,
            "layers": network.take(arrays),
        }
    head = _take_head(arrays, blocks)
    arrays.finish()
    return ImportedNetwork(
        source="boq",
        preprocessing={
            **TORCHVISION,
            "image_size": (size, size),
            "interpolation": "bicubic",
            "rounded": False,
        },
        aggregation=head,
        **backbone,
    )


def _parts(state: Mapping[str, Array]) -> dict[str, str]:
    """Returns torchvision's modules by their names in the file."""
    frozen = {
        int(name.split(".")[2])
        for name in state
        if name.startswith("backbone.frozen_layers.")
    }
    if not frozen:
        return {
            part: f"backbone.net.{position}"
            for part, position in resnets.SEQUENTIAL.items()
        }
    stem = "backbone.frozen_layers.0"
    parts = {"conv1": f"{stem}.0", "bn1": f"{stem}.1"}
    for number, stage in enumerate(resnets.STAGES, start=1):
        trained = number - max(frozen) - 1
        parts[stage] = (
            f"backbone.frozen_layers.{number}"
            if trained < 0
            else f"backbone.unfrozen_layers.{trained}"
        )
    return parts


def _blocks(state: Mapping[str, Array]) -> int:
    prefix = f"{_HEAD}boqs."
    return 1 + max(
        (
            int(name.removeprefix(prefix).partition(".")[0])
            for name in state
            if name.startswith(prefix)
        ),
        default=-1,
    )


def _names(blocks: int) -> set[str]:
    names = torch_layers.names_of(_HEAD, _LAYERS)
    for block in range(blocks):
        prefix = f"{_HEAD}boqs.{block}."
        names.add(f"{prefix}queries")
        names |= torch_layers.names_of(prefix, _BLOCK)
        for name in _ATTENTION.values():
            names |= torch_layers.attention_names(prefix + name)
    return names


def _take_head(arrays: ArrayLedger, blocks: int) -> HeadWeights:
    weights: dict[str, Any] = torch_layers.named(arrays, _HEAD, _LAYERS)
    length = len(weights["input_bias"])
    queries = 0
    for block in range(blocks):
        prefix = f"{_HEAD}boqs.{block}."
        layers = {f"block{block}_{k}": name for k, name in _BLOCK.items()}
        weights |= torch_layers.named(arrays, prefix, layers)
        for layer, name in _ATTENTION.items():
            weights |= torch_layers.attention(
                arrays, prefix + name, f"block{block}_{layer}"
            )
        array = arrays.take(f"{prefix}queries", (1, None, length))
        weights[f"block{block}_queries"] = array[0]
        queries = array.shape[1]
    return HeadWeights(
        name="boq",
        settings={
            "length": length,
            "num_queries": queries,
            "num_blocks": blocks,
            "rows": len(weights["rows_bias"]),
        },
        weights=weights,
    )
