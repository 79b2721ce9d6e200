"""DINOv2's vision transformers: images to maps of patch tokens.

Axis letters: B images, H W pixels, h w patches of 14 pixels, R registers, N =
1 + R + h * w tokens in the order class token, registers, patches row by row,
D length of a token.

Layers are named after the original's: `block3_qkv` is its `blocks.3.attn.qkv`.
Maps of patches, [B, h, w, D], come from any depth: `patches`, of the last
normalisation; of each block `block3_patches`, its output, and `block3_query`,
`block3_key` and `block3_value`, what its attention compares and sums.

Source: Oquab et al., "DINOv2: Learning Robust Visual Features without
Supervision", TMLR 2024; Darcet et al., "Vision Transformers Need Registers",
ICLR 2024; github.com/facebookresearch/dinov2, models/vision_transformer.py and
layers/.
"""

import keras
from keras import layers

from sare_tf.model.vit_architectures import Architecture
from sare_tf.model.vit_layers import (
    DEVIATION,
    PrependedTokens,
    ScaledResidual,
    SelfAttention,
    SwiGLU,
    TokenEmbedding,
)
from sare_tf.model.vit_outputs import PatchMap
from sare_tf.model.vit_sizes import CropToPatches, ResizeToPatches

# models/vision_transformer.py, norm_layer.
_EPSILON = 1e-6
_FACETS = ("query", "key", "value")
# What happens to sides that are no multiples of 14.
_OTHER_SIZES = {
    "refuse": None,
    "resize": ResizeToPatches,
    "crop": CropToPatches,
}


def build(
    architecture: Architecture,
    *,
    other_sizes: str = "refuse",
) -> keras.Model:
    """A network with random weights.

    Args:
        architecture: its sizes.
        other_sizes: what happens to images whose sides are no multiples of
            14: "refuse"; "resize" to the nearest ones; or "crop" the middle.

    Returns:
        [B, H, W, 3] -> all maps of patches, [B, h, w, D]; see the module.

    Raises:
        ValueError: another policy.
    """
    if other_sizes not in _OTHER_SIZES:
        raise ValueError(
            f"Expected other_sizes to be one of {', '.join(_OTHER_SIZES)}. "
            f"Received: other_sizes={other_sizes!r}."
        )
    prefix, leading = 1 + architecture.num_registers, 1
    images = keras.Input((None, None, 3), name="images")
    patched = images
    if fit := _OTHER_SIZES[other_sizes]:
        patched = fit(dtype="float32", name=other_sizes)(images)
    x = TokenEmbedding(
        architecture.dimension,
        num_registers=architecture.num_registers,
        antialias=architecture.antialias,
        name="embedding",
    )(patched)
    maps = []
    for block in range(architecture.depth):
        count = architecture.num_aggregating
        if count and block == architecture.aggregate_from:
            x = PrependedTokens(count, name="aggregating")(x)
            prefix, leading = prefix + count, count
        x, qkv = _block(x, f"block{block}", architecture)
        for part, facet in enumerate(_FACETS):
            maps.append(
                PatchMap(
                    prefix,
                    part=part,
                    num_parts=3,
                    num_leading=leading,
                    name=f"block{block}_{facet}",
                )(qkv, patched)
            )
        maps.append(
            PatchMap(prefix, num_leading=leading, name=f"block{block}_patches")(
                x, patched
            )
        )
    x = layers.LayerNormalization(epsilon=_EPSILON, name="norm")(x)
    maps.append(
        PatchMap(prefix, num_leading=leading, name="patches")(x, patched)
    )
    return keras.Model(images, maps)


def set_drop_path(backbone: keras.Model, rate: float) -> None:
    """Sets stochastic depth in the blocks that are trained.

    In training, the last block's branches are left out of so many images, those
    of earlier blocks of fewer. Frozen blocks keep all branches: their features
    do not depend on chance. Source: Huang et al., "Deep Networks with
    Stochastic Depth", ECCV 2016, with DINOv2's linear rule.

    Args:
        backbone: a model of `build`, or a part of it.
        rate: share of the images for which the last block's branches are left
            out, from 0 to below 1.

    Raises:
        ValueError: a model without such blocks, or another rate.
    """
    residuals = [
        layer for layer in backbone.layers if isinstance(layer, ScaledResidual)
    ]
    if not residuals:
        raise ValueError(
            "Expected drop_path=0 with a backbone other than the vision "
            f"transformers dinov2_*. Received: drop_path={rate} with a "
            "backbone without their blocks."
        )
    last = len(residuals) // 2 - 1
    for column, layer in enumerate(residuals):
        layer.column = column
        block = column // 2
        layer.set_drop_rate(
            rate * block / max(last, 1) if layer.trainable else 0.0
        )


def _block(x, name, architecture):
    """Tokens after a block, and its queries, keys and values, [B, N, 3 * D]."""

    def dense(length, suffix, activation=None):
        return layers.Dense(
            length,
            activation=activation,
            kernel_initializer=keras.initializers.TruncatedNormal(
                stddev=DEVIATION
            ),
            name=f"{name}_{suffix}",
        )

    def normalise(x, number):
        return layers.LayerNormalization(
            epsilon=_EPSILON, name=f"{name}_norm{number}"
        )(x)

    dimension, hidden = architecture.dimension, architecture.hidden
    qkv = dense(3 * dimension, "qkv")(normalise(x, 1))
    y = SelfAttention(architecture.num_heads, name=f"{name}_attention")(qkv)
    y = dense(dimension, "proj")(y)
    x = ScaledResidual(name=f"{name}_ls1")(x, y)
    y = normalise(x, 2)
    if architecture.swiglu:
        y = dense(2 * hidden, "w12")(y)
        y = dense(dimension, "w3")(SwiGLU(name=f"{name}_gate")(y))
    else:
        y = dense(dimension, "fc2")(dense(hidden, "fc1", "gelu")(y))
    return ScaledResidual(name=f"{name}_ls2")(x, y), qkv
