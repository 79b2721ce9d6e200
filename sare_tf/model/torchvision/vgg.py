"""VGG16 as torchvision builds it.

Source: Simonyan, Zisserman, ICLR 2015, configuration D;
torchvision/models/vgg.py.
"""

import keras
from keras import layers

from sare_tf.model.torchvision.parts import activate, convolve

# Channels of the convolutions of each block.
_BLOCKS = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)


def build() -> keras.Model:
    """VGG16 without its top, with random weights.

    Returns:
        [B, H, W, 3] -> [B, h, w, 512], of stride 32.
    """
    images = keras.Input((None, None, 3))
    x, index = images, 0
    for block in _BLOCKS:
        for filters in block:
            x = convolve(
                x, filters, size=3, use_bias=True, name=f"features_{index}"
            )
            x = activate(x, "relu", f"features_{index + 1}")
            index += 2
        x = layers.MaxPooling2D(2, name=f"features_{index}")(x)
        index += 1
    return keras.Model(images, x)
