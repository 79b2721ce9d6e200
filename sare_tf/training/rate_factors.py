"""Factors on the learning rate of the weights of an embedder.

Layer-wise decay counts as BEiT's code does: the last normalisation has 1, the
last block the decay, each earlier block the decay of the one after it, and the
embedding of patches that of the first block, once more decayed. Source:
github.com/microsoft/unilm, beit/optim_factory.py; DINOv2 has the same rule.
"""

import re

import keras

from sare_tf.model.netvlad import NetVLAD

_BLOCK = re.compile(r"block(\d+)_")
_EMBEDDING = "embedding"


def of_embedder(
    embedder: keras.Model,
    *,
    backbone_rate: float,
    head_rate: float,
    netvlad_rate: float,
    layer_decay: float,
) -> list[float]:
    """Returns the factor of each trained weight, in their order.

    Args:
        embedder: a model of `build_embedder`.
        backbone_rate: factor of the backbone.
        head_rate: factor of the aggregation, other than NetVLAD's clusters.
        netvlad_rate: factor of NetVLAD's clusters.
        layer_decay: factor of a block relative to the one after it.

    Raises:
        ValueError: layer-wise decay of a backbone that has no blocks of a
            vision transformer.
    """
    backbone = embedder.get_layer("backbone")
    factors = {}
    for layer in backbone.layers:
        decay = 1.0
        if layer_decay != 1:
            decay = layer_decay ** _decays(layer.name, _depth(backbone))
        for weight in layer.trainable_weights:
            factors[id(weight)] = backbone_rate * decay
    aggregation = embedder.layers[-1]
    for weight in aggregation.trainable_weights:
        factors[id(weight)] = head_rate
    if isinstance(aggregation, NetVLAD):
        clusters = [
            aggregation.assignment,
            aggregation.centres,
            aggregation.assignment_bias,
        ]
        for weight in clusters:
            if id(weight) in factors:
                factors[id(weight)] = netvlad_rate
    return [factors[id(weight)] for weight in embedder.trainable_weights]


def _depth(backbone: keras.Model) -> int:
    """Counts the blocks of a vision transformer."""
    blocks = [
        int(match[1])
        for layer in backbone.layers
        if (match := re.fullmatch(r"block(\d+)_qkv", layer.name))
    ]
    if not blocks:
        raise ValueError(
            "Expected layer_decay=1 with a backbone other than the vision "
            "transformers dinov2_*. Received: a backbone without their blocks. "
            "Set --backbone_rate."
        )
    return 1 + max(blocks)


def _decays(name: str, depth: int) -> int:
    """Returns how many times a layer's rate is decayed."""
    if name == _EMBEDDING:
        return depth + 1
    match = _BLOCK.match(name)
    return depth - int(match[1]) if match else 0
