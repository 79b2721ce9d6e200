"""Sizes of DINOv2's vision transformers, and their names.

Source: github.com/facebookresearch/dinov2, models/vision_transformer.py and
hub/backbones.py.
"""

import dataclasses

# Side of a patch, in pixels.
PATCH = 14
# Patches along a side of the images that position embeddings were trained
# for: 518 pixels.
GRID = 37


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """What distinguishes one vision transformer from another.

    Attributes:
        dimension: length of a token.
        depth: number of blocks.
        num_heads: of attention.
        hidden: length of the hidden layer of a block.
        swiglu: the hidden layer is gated by another one, instead of a GELU.
        num_registers: tokens beside the class token and the patches.
        antialias: position embeddings are interpolated as by networks with
            registers; see `position_grid`.
        num_aggregating: learned tokens that join before a block, stand before
            all others and gather the image in place of the class token.
        aggregate_from: index of that block.
    """

    dimension: int
    depth: int
    num_heads: int
    hidden: int
    swiglu: bool = False
    num_registers: int = 0
    antialias: bool = False
    num_aggregating: int = 0
    aggregate_from: int = 0


_SIZES = {
    "s": {"dimension": 384, "depth": 12, "num_heads": 6, "hidden": 1536},
    "b": {"dimension": 768, "depth": 12, "num_heads": 12, "hidden": 3072},
    "l": {"dimension": 1024, "depth": 24, "num_heads": 16, "hidden": 4096},
    "g": {
        "dimension": 1536,
        "depth": 40,
        "num_heads": 24,
        "hidden": 4096,
        "swiglu": True,
    },
}
_REGISTERS = {"": {}, "_reg": {"num_registers": 4, "antialias": True}}

DINOV2: dict[str, Architecture] = {
    f"dinov2_vit{letter}14{suffix}": Architecture(**sizes, **registers)
    for letter, sizes in _SIZES.items()
    for suffix, registers in _REGISTERS.items()
}

# Implicit aggregation in DINOv2. Its network has registers, and yet the
# interpolation of those without.
# Source: Lu et al., "Towards Implicit Aggregation: Robust Image Representation
# for Place Recognition in the Transformer Era", NeurIPS 2025;
# github.com/Lu-Feng/ImAge, network.py.
IMPLICIT: dict[str, Architecture] = {
    "dinov2_vitb14_reg_implicit": dataclasses.replace(
        DINOV2["dinov2_vitb14_reg"],
        antialias=False,
        num_aggregating=8,
        aggregate_from=8,
    ),
}
# The network whose file they start from.
STARTS_FROM = {"dinov2_vitb14_reg_implicit": "dinov2_vitb14_reg"}
