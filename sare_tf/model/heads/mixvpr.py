"""MixVPR: layers that mix the locations of a feature map of one size.

Axis letters: B images, H W positions, L = H * W locations, C channels, D
channels of the descriptor, R its rows.

Source: Ali-bey, Chaib-draa, Giguere, "MixVPR: Feature Mixing for Visual Place
Recognition", WACV 2023; github.com/amaralibey/MixVPR.
"""

import keras
from keras import ops

from sare_tf.model.aggregation import unit_length
from sare_tf.model.heads.head import (
    Head,
    dense,
    dense_shapes,
    locations,
    norm,
    norm_shapes,
)


def mixvpr(features, weights, *, num_mixers):
    """MixVPR descriptors.

    Args:
        features: [B, H, W, C].
        weights: by name, see `MixVPR.weight_shapes`.
        num_mixers: layers over the locations.

    Returns:
        Rows of unit length, float32 [B, D * R], element d * R + r.
    """
    x = ops.transpose(locations(features), (0, 2, 1))  # [B, C, L]
    for mixer in range(num_mixers):
        y = norm(x, weights, f"mixer{mixer}")
        y = ops.relu(dense(y, weights, f"mixer{mixer}_hidden"))
        x = x + dense(y, weights, f"mixer{mixer}_last")
    x = dense(ops.transpose(x, (0, 2, 1)), weights, "channels")  # [B, L, D]
    x = dense(ops.transpose(x, (0, 2, 1)), weights, "rows")  # [B, D, R]
    batch, channels, rows = ops.shape(x)
    return unit_length(ops.reshape(x, (batch, channels * rows)), clamped=True)


@keras.saving.register_keras_serializable(package="sare_tf")
class MixVPR(Head):
    """Aggregates a feature map of one size by layers over its locations.

    Source: Ali-bey et al., WACV 2023 (see the module): ResNet50 up to conv4_x
    and images of 320 x 320 pixels.

    Args:
        channels: D.
        rows: R.
        num_mixers: layers over the locations.

    Call arguments:
        features: feature maps.

    Input shape:
        [B, H, W, C] with known H and W, for which its weights are.

    Output shape:
        [B, D * R], float32 under every dtype policy.
    """

    def __init__(self, channels=1024, rows=4, num_mixers=4, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.rows = rows
        self.num_mixers = num_mixers

    def build(self, input_shape):
        if None in input_shape[1:3]:
            raise ValueError(
                "Expected feature maps of a known size, for which MixVPR has "
                f"weights. Received: input_shape={tuple(input_shape)}. Give "
                "image_size, or --image_height and --image_width."
            )
        super().build(input_shape)
        axes = dict(zip((1, 2, 3), input_shape[1:], strict=True))
        self.input_spec = keras.layers.InputSpec(ndim=4, axes=axes)

    def weight_shapes(self, input_shape):
        _, height, width, channels = input_shape
        count, shapes = height * width, {}
        for mixer in range(self.num_mixers):
            shapes |= norm_shapes(f"mixer{mixer}", count)
            shapes |= dense_shapes(f"mixer{mixer}_hidden", count, count)
            shapes |= dense_shapes(f"mixer{mixer}_last", count, count)
        shapes |= dense_shapes("channels", channels, self.channels)
        return shapes | dense_shapes("rows", count, self.rows)

    def call(self, features):
        return mixvpr(features, self.tensors, num_mixers=self.num_mixers)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.channels * self.rows)

    def get_config(self):
        return {
            **super().get_config(),
            "channels": self.channels,
            "rows": self.rows,
            "num_mixers": self.num_mixers,
        }
