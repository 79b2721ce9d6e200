"""ConvNeXt-Tiny as torchvision builds it.

Source: Liu et al., CVPR 2022; torchvision/models/convnext.py.
"""

import keras
from keras import layers, ops

from sare_tf.model.torchvision.parts import activate, convolve

# Channels and number of blocks of each stage.
_STAGES = ((96, 3), (192, 3), (384, 9), (768, 3))
# torchvision/models/convnext.py, norm_layer.
_EPSILON = 1e-6
# torchvision/models/convnext.py, layer_scale.
_INITIAL_SCALE = 1e-6


@keras.saving.register_keras_serializable(package="sare_tf")
class ChannelScale(layers.Layer):
    """Multiplies each channel by a trained number.

    The layer scale of Touvron et al., ICCV 2021, equation 7.

    Args:
        initial_scale: the number of every channel at first.

    Call arguments:
        features: any features.

    Input shape:
        [..., C].

    Output shape:
        As the input.
    """

    def __init__(self, *, initial_scale=_INITIAL_SCALE, **kwargs):
        super().__init__(**kwargs)
        self.initial_scale = initial_scale

    def build(self, input_shape):
        self.scale = self.add_weight(
            name="scale",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_scale),
        )

    def call(self, features):
        return features * ops.cast(self.scale, features.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "initial_scale": self.initial_scale}


def build() -> keras.Model:
    """ConvNeXt-Tiny without its top, with random weights.

    Returns:
        [B, H, W, 3] -> [B, h, w, 768], of stride 32.
    """
    images = keras.Input((None, None, 3))
    x = images
    for stage, (filters, count) in enumerate(_STAGES):
        # Before each stage, torchvision counts one module more.
        name = f"features_{2 * stage}"
        if stage == 0:
            x = _shrink(x, filters, size=4, name=f"{name}_0")
            x = _normalise(x, f"{name}_1")
        else:
            x = _normalise(x, f"{name}_0")
            x = _shrink(x, filters, size=2, name=f"{name}_1")
        for block in range(count):
            x = _block(x, f"features_{2 * stage + 1}_{block}")
    return keras.Model(images, x)


def _block(x, name: str):
    filters = x.shape[-1]
    y = convolve(x, None, size=7, use_bias=True, name=f"{name}_block_0")
    y = _normalise(y, f"{name}_block_2")
    y = layers.Dense(4 * filters, name=f"{name}_block_3")(y)
    y = activate(y, "gelu", f"{name}_block_4")
    y = layers.Dense(filters, name=f"{name}_block_5")(y)
    y = ChannelScale(name=f"{name}_layer_scale")(y)
    return layers.Add(name=name)([x, y])


def _shrink(x, filters: int, *, size: int, name: str):
    """Convolves patches of size x size that do not overlap."""
    return layers.Conv2D(
        filters,
        size,
        strides=size,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def _normalise(x, name: str):
    return layers.LayerNormalization(epsilon=_EPSILON, name=name)(x)
