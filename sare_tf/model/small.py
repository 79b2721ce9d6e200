"""A small network that trains from scratch on a CPU."""

import keras
from keras import layers


def build() -> keras.Model:
    """Stride 8, 96 channels, 59 MFLOP for an image of 160 x 120 pixels."""
    images = keras.Input((None, None, 3))
    x = images
    for stage, filters in enumerate((16, 32, 64), start=1):
        x = layers.Conv2D(
            filters,
            3,
            strides=2,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"stage{stage}_conv",
        )(x)
        # Each image has its own statistics.
        x = layers.GroupNormalization(groups=8, name=f"stage{stage}_norm")(x)
        x = layers.ReLU(name=f"stage{stage}_relu")(x)
    x = layers.Conv2D(
        96,
        3,
        padding="same",
        kernel_initializer="he_normal",
        name="stage4_conv",
    )(x)
    return keras.Model(images, x)
