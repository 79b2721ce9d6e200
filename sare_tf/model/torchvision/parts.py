"""Layers that several of torchvision's networks are made of.

Tensors are [B, H, W, C], as Keras on a CPU computes them fastest.
"""

import dataclasses
import itertools

from keras import layers

# torch.nn.BatchNorm2d.
EPSILON = 1e-5


def convolve(
    x,
    filters: int | None,
    *,
    size: int,
    name: str,
    stride: int = 1,
    use_bias: bool = False,
):
    """Convolves with PyTorch's padding of size // 2 on all sides.

    Args:
        x: [B, H, W, C].
        filters: channels of the result; None: a depthwise convolution.
        size: rows and columns of the kernel.
        name: name of the layer.
        stride: stride in both directions.
        use_bias: whether to add a bias.

    Returns:
        [B, ceil(H / stride), ceil(W / stride), filters] for an odd size.
    """
    # With a stride, "same" pads by the parity of the input.
    padding = "same"
    if stride > 1:
        padding = "valid"
        if size > 1:
            x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    settings = {
        "strides": stride,
        "padding": padding,
        "use_bias": use_bias,
        "name": name,
    }
    if filters is None:
        return layers.DepthwiseConv2D(
            size, depthwise_initializer="he_normal", **settings
        )(x)
    return layers.Conv2D(
        filters, size, kernel_initializer="he_normal", **settings
    )(x)


def normalise(x, name: str, *, epsilon: float = EPSILON):
    """Normalises with the statistics of the training, [B, H, W, C]."""
    return layers.BatchNormalization(epsilon=epsilon, name=name)(x)


def activate(x, activation: str, name: str):
    """Applies an activation of Keras, of any shape."""
    return layers.Activation(activation, name=name)(x)


def convolve_and_normalise(
    x,
    filters: int | None,
    *,
    size: int,
    name: str,
    stride: int = 1,
    activation: str | None = None,
    epsilon: float = EPSILON,
):
    """torchvision's Conv2dNormActivation; see `convolve`.

    Its layers are `name`_0, `name`_1 and, with an activation, `name`_2.
    """
    x = convolve(x, filters, size=size, stride=stride, name=f"{name}_0")
    x = normalise(x, f"{name}_1", epsilon=epsilon)
    return activate(x, activation, f"{name}_2") if activation else x


def squeeze_and_excite(
    x, squeezed: int, *, activation: str, gate: str, name: str
):
    """Scales channels by their means: torchvision's SqueezeExcitation.

    Args:
        x: [B, H, W, C].
        squeezed: channels between the two convolutions.
        activation: between the convolutions.
        gate: activation that gives the scales.
        name: name of torchvision's module.
    """
    y = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_avgpool")(x)
    y = convolve(y, squeezed, size=1, use_bias=True, name=f"{name}_fc1")
    y = activate(y, activation, f"{name}_activation")
    y = convolve(y, x.shape[-1], size=1, use_bias=True, name=f"{name}_fc2")
    y = activate(y, gate, f"{name}_gate")
    return layers.Multiply(name=name)([x, y])


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvertedResidual:
    """A block that expands, convolves depthwise and projects.

    torchvision's InvertedResidual of MobileNetV3, and its MBConv.

    Attributes:
        expanded: channels of the depthwise convolution.
        filters: channels of the result.
        size: rows and columns of the depthwise kernel.
        stride: stride of the depthwise convolution.
        activation: follows the first two convolutions.
        squeezed: channels of squeeze and excitation; None: there is none.
        squeezed_activation: activation between its two convolutions.
        gate: activation that gives its scales.
        epsilon: of the normalisations.
    """

    expanded: int
    filters: int
    size: int
    stride: int
    activation: str
    squeezed: int | None = None
    squeezed_activation: str = "relu"
    gate: str = "hard_sigmoid"
    epsilon: float = EPSILON

    def apply(self, x, name: str):
        """Applies the block.

        Args:
            x: [B, H, W, C].
            name: name of torchvision's module, and of the last layer if the
                input is added.

        Returns:
            [B, ceil(H / stride), ceil(W / stride), filters].
        """
        names = (f"{name}_block_{number}" for number in itertools.count())
        settings = {"activation": self.activation, "epsilon": self.epsilon}
        y = x
        if self.expanded != x.shape[-1]:
            y = convolve_and_normalise(
                y, self.expanded, size=1, name=next(names), **settings
            )
        y = convolve_and_normalise(
            y,
            None,
            size=self.size,
            stride=self.stride,
            name=next(names),
            **settings,
        )
        if self.squeezed is not None:
            y = squeeze_and_excite(
                y,
                self.squeezed,
                activation=self.squeezed_activation,
                gate=self.gate,
                name=next(names),
            )
        y = convolve_and_normalise(
            y, self.filters, size=1, name=next(names), epsilon=self.epsilon
        )
        if self.stride == 1 and x.shape[-1] == self.filters:
            y = layers.Add(name=name)([x, y])
        return y
