"""EfficientNet-B0 as torchvision builds it.

Source: Tan, Le, ICML 2019, table 1; torchvision/models/efficientnet.py.
"""

import keras

from sare_tf.model.torchvision.parts import (
    InvertedResidual,
    convolve_and_normalise,
)

# Expansion, kernel, stride of the first block, channels, number of blocks.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def build() -> keras.Model:
    """EfficientNet-B0 without its top, with random weights.

    Returns:
        [B, H, W, 3] -> [B, h, w, 1280], of stride 32.
    """
    images = keras.Input((None, None, 3))
    x = convolve_and_normalise(
        images, 32, size=3, stride=2, activation="silu", name="features_0"
    )
    for stage, (expansion, size, first_stride, filters, count) in enumerate(
        _STAGES, start=1
    ):
        for number in range(count):
            channels = x.shape[-1]
            block = InvertedResidual(
                expanded=expansion * channels,
                filters=filters,
                size=size,
                stride=first_stride if number == 0 else 1,
                activation="silu",
                # A quarter of the channels before the expansion.
                squeezed=channels // 4,
                squeezed_activation="silu",
                gate="sigmoid",
            )
            x = block.apply(x, f"features_{stage}_{number}")
    x = convolve_and_normalise(
        x, 1280, size=1, activation="silu", name=f"features_{len(_STAGES) + 1}"
    )
    return keras.Model(images, x)
