"""XFeat: keypoints and vectors of an image, by a small convolutional network.

Images are RGB, 0..255, [B, H, W, 3]; H and W are multiples of 32. The network
sees the mean of the channels, normalised for each image.

Source: Potje et al., "XFeat: accelerated features for lightweight image
matching", CVPR 2024, section 3; github.com/verlab/accelerated_features
(Apache-2.0). Its part for semi-dense matching, `fine_matcher`, is not here.
"""

import keras
from keras import layers, ops

from sare_tf.model.torchvision import parts

# Images are cut to multiples of it.
SIZE_STEP = 32
# Pixels of a cell, to each side: there is a vector and a reliability for each.
CELL = 8
# Length of a vector.
DIMENSION = 64
# torch.nn.InstanceNorm2d.
_EPSILON = 1e-5
# Block -> filters, kernel size and stride of its convolutions. Each but the
# plain ones is followed by normalisation and ReLU.
BLOCKS = {
    "block1": ((4, 3, 1), (8, 3, 2), (8, 3, 1), (24, 3, 2)),
    "block2": ((24, 3, 1), (24, 3, 1)),
    "block3": ((64, 3, 2), (64, 3, 1), (64, 1, 1)),
    "block4": ((64, 3, 2), (64, 3, 1), (64, 3, 1)),
    "block5": ((128, 3, 2), (128, 3, 1), (128, 3, 1), (64, 1, 1)),
    "block_fusion": ((64, 3, 1), (64, 3, 1)),
    "heatmap_head": ((64, 1, 1), (64, 1, 1)),
    "keypoint_head": ((64, 1, 1), (64, 1, 1), (64, 1, 1)),
}
# Convolutions of size 1 with a bias, at the end of a block or of their own.
PLAIN = {
    "skip1": 24,
    "block_fusion": DIMENSION,
    "heatmap_head": 1,
    "keypoint_head": CELL**2 + 1,
}


def build() -> keras.Model:
    """Builds XFeat with random weights.

    Returns:
        A model of images to a dict: `vectors` [B, H/8, W/8, 64] of unit length,
        `logits` [B, H/8, W/8, 65] of the pixels of a cell in row order and of
        no keypoint, and `reliability` [B, H/8, W/8, 1], from 0 to 1.
    """
    images = keras.Input((None, None, 3), name="images")
    grey = _normalised(ops.mean(images, axis=-1, keepdims=True))
    x = _block(grey, "block1")
    skip = layers.AveragePooling2D(4, name="skip1_pool")(grey)
    x = _block(x + _plain(skip, "skip1"), "block2")
    eighth = _block(x, "block3")
    sixteenth = _block(eighth, "block4")
    last = _block(sixteenth, "block5")
    x = eighth + Enlargement(2)(sixteenth) + Enlargement(4)(last)
    x = _plain(_block(x, "block_fusion"), "block_fusion")
    reliability = _plain(_block(x, "heatmap_head"), "heatmap_head")
    pixels = _block(Cells(name="cells")(grey), "keypoint_head")
    outputs = {
        "vectors": layers.UnitNormalization(name="unit_vectors")(x),
        "logits": _plain(pixels, "keypoint_head"),
        "reliability": ops.sigmoid(reliability),
    }
    return keras.Model(images, outputs, name="xfeat")


def _normalised(grey):
    """Normalises each image to a mean of 0 and a variance of 1."""
    mean = ops.mean(grey, axis=(1, 2), keepdims=True)
    centred = grey - mean
    variance = ops.mean(ops.square(centred), axis=(1, 2), keepdims=True)
    return centred * ops.rsqrt(variance + _EPSILON)


def _block(x, name: str):
    for number, (filters, size, stride) in enumerate(BLOCKS[name]):
        layer = f"{name}_{number}"
        x = parts.convolve(
            x, filters, size=size, stride=stride, name=f"{layer}_conv"
        )
        x = layers.BatchNormalization(
            epsilon=parts.EPSILON,
            center=False,
            scale=False,
            name=f"{layer}_norm",
        )(x)
        x = layers.ReLU(name=f"{layer}_relu")(x)
    return x


def _plain(x, name: str):
    return parts.convolve(
        x, PLAIN[name], size=1, use_bias=True, name=f"{name}_plain"
    )


@keras.saving.register_keras_serializable(package="sare_tf")
class Cells(layers.Layer):
    """Makes channels of the pixels of each cell, in row order.

    Input shape:
        [B, H, W, 1]; H and W are multiples of `CELL`.

    Output shape:
        [B, H / 8, W / 8, 64].
    """

    def call(self, images):
        _, height, width, _ = ops.shape(images)
        size = (-1, height // CELL, CELL, width // CELL, CELL)
        x = ops.transpose(ops.reshape(images, size), (0, 1, 3, 2, 4))
        return ops.reshape(x, (-1, height // CELL, width // CELL, CELL**2))

    def compute_output_shape(self, input_shape):
        batch, *size, _ = input_shape
        size = [side and side // CELL for side in size]
        return (batch, *size, CELL**2)


@keras.saving.register_keras_serializable(package="sare_tf")
class Enlargement(layers.Layer):
    """Enlarges maps by a whole factor, bilinearly, between pixel centres.

    `UpSampling2D` does the same, but not for sizes that are known only when
    the graph runs.

    Args:
        factor: times as many rows and columns.

    Input shape:
        [B, h, w, C].

    Output shape:
        [B, factor h, factor w, C].
    """

    def __init__(self, factor: int, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return self._along(self._along(x, 1), 2)

    def _along(self, x, axis: int):
        """Each value gives way to `factor` ones between it and its neighbours.

        The border's values continue outside.
        """
        count = ops.shape(x)[axis]
        last = ops.arange(count)
        before = ops.take(x, ops.maximum(last - 1, 0), axis)
        after = ops.take(x, ops.minimum(last + 1, count - 1), axis)
        values = []
        for phase in range(self.factor):
            t = (phase + 0.5) / self.factor - 0.5
            other = before if t < 0 else after
            values.append((1 - abs(t)) * x + abs(t) * other)
        shape = list(ops.shape(x))
        shape[0], shape[axis] = -1, count * self.factor
        return ops.reshape(ops.stack(values, axis + 1), shape)

    def compute_output_shape(self, input_shape):
        batch, *size, channels = input_shape
        return (
            batch,
            *(side and side * self.factor for side in size),
            channels,
        )

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}
