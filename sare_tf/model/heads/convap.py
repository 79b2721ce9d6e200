"""Conv-AP: a convolution of 1 x 1, and the means of a few regions.

Axis letters: B images, H W positions, C channels, D channels of the
descriptor, S regions along each side.

Source: Ali-bey, Chaib-draa, Giguere, "GSV-Cities: Toward Appropriate Supervised
Visual Place Recognition", Neurocomputing 2022;
github.com/amaralibey/gsv-cities.
"""

import keras
from keras import ops

from sare_tf.model.aggregation import unit_length
from sare_tf.model.heads.head import Head, dense, dense_shapes


def convap(features, weights, *, regions):
    """Conv-AP descriptors.

    Args:
        features: [B, H, W, C].
        weights: by name, see `ConvAP.weight_shapes`.
        regions: S.

    Returns:
        Rows of unit length, float32 [B, D * S * S], channel after channel.
    """
    batch, height, width, _ = ops.shape(features)
    x = ops.cast(features, "float32")
    # A mean and a convolution of 1 x 1 can change places.
    x = ops.einsum("si,bijc->bsjc", _means(height, regions), x)
    x = ops.einsum("tj,bsjc->bstc", _means(width, regions), x)
    x = ops.transpose(dense(x, weights, "projection"), (0, 3, 1, 2))
    length = x.shape[1] * regions * regions
    return unit_length(ops.reshape(x, (batch, length)), clamped=True)


def _means(size, regions):
    """Weights of the means along a side, [S, size]; regions may overlap.

    Source: torch.nn.AdaptiveAvgPool2d.
    """
    index = ops.arange(regions)[:, None]
    first = index * size // regions
    end = ((index + 1) * size + regions - 1) // regions
    positions = ops.arange(size)[None, :]
    inside = ops.logical_and(positions >= first, positions < end)
    return ops.cast(inside, "float32") / ops.cast(end - first, "float32")


@keras.saving.register_keras_serializable(package="sare_tf")
class ConvAP(Head):
    """Projects locations, and averages them over a grid of regions.

    Source: Ali-bey et al., Neurocomputing 2022 (see the module).

    Args:
        channels: D.
        regions: S.

    Call arguments:
        features: feature maps.

    Input shape:
        [B, H, W, C]; B, H and W may be unknown.

    Output shape:
        [B, D * S * S], float32 under every dtype policy.
    """

    def __init__(self, channels=1024, regions=2, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.regions = regions

    def weight_shapes(self, input_shape):
        return dense_shapes("projection", input_shape[-1], self.channels)

    def call(self, features):
        return convap(features, self.tensors, regions=self.regions)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.channels * self.regions**2)

    def get_config(self):
        return {
            **super().get_config(),
            "channels": self.channels,
            "regions": self.regions,
        }
