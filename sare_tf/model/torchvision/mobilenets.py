"""MobileNetV2 and MobileNetV3 as torchvision builds them.

Sources: Sandler et al., CVPR 2018, table 2; Howard et al., ICCV 2019, tables 1
and 2; torchvision/models/mobilenetv2.py and mobilenetv3.py.
"""

import keras
from keras import layers

from sare_tf.model.torchvision.parts import (
    InvertedResidual,
    convolve,
    convolve_and_normalise,
    normalise,
)

# Expansion, channels, number of blocks, stride of the first one.
_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# Kernel, channels inside, channels after, squeeze and excitation, hard swish,
# stride.
_V3 = {
    "large": (
        (3, 16, 16, False, False, 1),
        (3, 64, 24, False, False, 2),
        (3, 72, 24, False, False, 1),
        (5, 72, 40, True, False, 2),
        (5, 120, 40, True, False, 1),
        (5, 120, 40, True, False, 1),
        (3, 240, 80, False, True, 2),
        (3, 200, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 480, 112, True, True, 1),
        (3, 672, 112, True, True, 1),
        (5, 672, 160, True, True, 2),
        (5, 960, 160, True, True, 1),
        (5, 960, 160, True, True, 1),
    ),
    "small": (
        (3, 16, 16, True, False, 2),
        (3, 72, 24, False, False, 2),
        (3, 88, 24, False, False, 1),
        (5, 96, 40, True, True, 2),
        (5, 240, 40, True, True, 1),
        (5, 240, 40, True, True, 1),
        (5, 120, 48, True, True, 1),
        (5, 144, 48, True, True, 1),
        (5, 288, 96, True, True, 2),
        (5, 576, 96, True, True, 1),
        (5, 576, 96, True, True, 1),
    ),
}
# torchvision/models/mobilenetv3.py, norm_layer.
_V3_EPSILON = 1e-3


def build_v2() -> keras.Model:
    """MobileNetV2 without its top, with random weights.

    Returns:
        [B, H, W, 3] -> [B, h, w, 1280], of stride 32.
    """
    images = keras.Input((None, None, 3))
    x = convolve_and_normalise(
        images, 32, size=3, stride=2, activation="relu6", name="features_0"
    )
    index = 0
    for expansion, filters, count, first_stride in _V2:
        for block in range(count):
            index += 1
            x = _v2_block(
                x,
                expansion,
                filters,
                stride=first_stride if block == 0 else 1,
                name=f"features_{index}",
            )
    x = convolve_and_normalise(
        x, 1280, size=1, activation="relu6", name=f"features_{index + 1}"
    )
    return keras.Model(images, x)


def _v2_block(x, expansion: int, filters: int, *, stride: int, name: str):
    y, number = x, 0
    if expansion > 1:
        y = convolve_and_normalise(
            y,
            expansion * x.shape[-1],
            size=1,
            activation="relu6",
            name=f"{name}_conv_0",
        )
        number = 1
    y = convolve_and_normalise(
        y,
        None,
        size=3,
        stride=stride,
        activation="relu6",
        name=f"{name}_conv_{number}",
    )
    y = convolve(y, filters, size=1, name=f"{name}_conv_{number + 1}")
    y = normalise(y, f"{name}_conv_{number + 2}")
    if stride == 1 and x.shape[-1] == filters:
        y = layers.Add(name=name)([x, y])
    return y


def build_v3(size: str) -> keras.Model:
    """MobileNetV3 without its top, with random weights.

    Args:
        size: "large" or "small".

    Returns:
        [B, H, W, 3] -> [B, h, w, 960 or 576], of stride 32.
    """
    images = keras.Input((None, None, 3))
    settings = {"activation": "hard_silu", "epsilon": _V3_EPSILON}
    x = convolve_and_normalise(
        images, 16, size=3, stride=2, name="features_0", **settings
    )
    for index, (kernel, inside, filters, squeezes, hard, stride) in enumerate(
        _V3[size], start=1
    ):
        block = InvertedResidual(
            expanded=inside,
            filters=filters,
            size=kernel,
            stride=stride,
            activation="hard_silu" if hard else "relu",
            squeezed=_multiple_of_8(inside // 4) if squeezes else None,
            epsilon=_V3_EPSILON,
        )
        x = block.apply(x, f"features_{index}")
    x = convolve_and_normalise(
        x,
        6 * x.shape[-1],
        size=1,
        name=f"features_{len(_V3[size]) + 1}",
        **settings,
    )
    return keras.Model(images, x)


def _multiple_of_8(channels: int) -> int:
    """Rounds by at most a tenth down: torchvision's _make_divisible."""
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
