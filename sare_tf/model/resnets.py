"""ResNets as torchvision builds them, for weights that were trained there.

Those of keras.applications differ: they have the stride of a stage in its
first convolution instead of the 3 x 3 one, and biases. Layers are named after
torchvision's: `layer3_1_conv2` is its `layer3.1.conv2`, and a block ends in
`layer3_1_out`.

Source: He et al., CVPR 2016; torchvision/models/resnet.py.
"""

import keras
from keras import layers

# Channels of the 3 x 3 convolutions of each stage.
_WIDTHS = (64, 128, 256, 512)
# A bottleneck block ends in so many times as many channels.
_EXPANSION = 4
# torch.nn.BatchNorm2d.
_EPSILON = 1e-5


def build(blocks: tuple[int, ...], *, bottleneck: bool) -> keras.Model:
    """A network without its top, with random weights.

    Args:
        blocks: number of blocks of each of the four stages.
        bottleneck: blocks of three convolutions, else of two.

    Returns:
        [B, H, W, 3] -> [B, h, w, C], of stride 32.
    """
    images = keras.Input((None, None, 3))
    x = _convolve(images, 64, size=7, stride=2, name="conv1")
    x = layers.ReLU(name="relu")(_normalise(x, "bn1"))
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
        y = _convolve(
            y, filters, size=size, stride=step, name=f"{name}_conv{number}"
        )
        y = _normalise(y, f"{name}_bn{number}")
    if stride > 1 or x.shape[-1] != channels:
        x = _convolve(
            x, channels, size=1, stride=stride, name=f"{name}_downsample_0"
        )
        x = _normalise(x, f"{name}_downsample_1")
    return layers.ReLU(name=f"{name}_out")(
        layers.Add(name=f"{name}_add")([x, y])
    )


def _convolve(x, filters, *, size, stride, name):
    # Padded alike on all sides; "same" pads by the parity of the input.
    if size > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    return layers.Conv2D(
        filters,
        size,
        strides=stride,
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def _normalise(x, name):
    return layers.BatchNormalization(epsilon=_EPSILON, name=name)(x)
