"""ResNets as torchvision builds them.

Those of keras.applications differ: they have the stride of a stage in its
first convolution instead of the 3 x 3 one, and biases. A block ends in
`layer3_1_out`.

Source: He et al., CVPR 2016; torchvision/models/resnet.py.
"""

import keras
from keras import layers

from sare_tf.model.torchvision.parts import convolve, normalise

# Channels of the 3 x 3 convolutions of each stage.
_WIDTHS = (64, 128, 256, 512)
# A bottleneck block ends in so many times as many channels.
_EXPANSION = 4


def build(blocks: tuple[int, ...], *, bottleneck: bool) -> keras.Model:
    """A network without its top, with random weights.

    Args:
        blocks: number of blocks of each of the four stages.
        bottleneck: blocks of three convolutions, else of two.

    Returns:
        [B, H, W, 3] -> [B, h, w, C], of stride 32.
    """
    images = keras.Input((None, None, 3))
    x = convolve(images, 64, size=7, stride=2, name="conv1")
    x = layers.ReLU(name="relu")(normalise(x, "bn1"))
    # Zeros are the lowest values after a ReLU, as PyTorch's padding is.
    x = layers.ZeroPadding2D(1, name="maxpool_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="maxpool")(x)
    for stage, (count, width) in enumerate(
        zip(blocks, _WIDTHS, strict=True), start=1
    ):
        for block in range(count):
            stride = 2 if stage > 1 and block == 0 else 1
            x = _block(
                x, width, stride, bottleneck, name=f"layer{stage}_{block}"
            )
    return keras.Model(images, x)


def _block(x, width, stride, bottleneck, *, name):
    # Kernel size, channels and stride of each convolution.
    if bottleneck:
        plan = [(1, width, 1), (3, width, stride), (1, _EXPANSION * width, 1)]
    else:
        plan = [(3, width, stride), (3, width, 1)]
    channels = plan[-1][1]
    y = x
    for number, (size, filters, step) in enumerate(plan, start=1):
        if number > 1:
            y = layers.ReLU(name=f"{name}_relu{number - 1}")(y)
        y = convolve(
            y, filters, size=size, stride=step, name=f"{name}_conv{number}"
        )
        y = normalise(y, f"{name}_bn{number}")
    if stride > 1 or x.shape[-1] != channels:
        x = convolve(
            x, channels, size=1, stride=stride, name=f"{name}_downsample_0"
        )
        x = normalise(x, f"{name}_downsample_1")
    return layers.ReLU(name=f"{name}_out")(
        layers.Add(name=f"{name}_add")([x, y])
    )
