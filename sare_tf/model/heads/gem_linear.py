"""GeM and a dense layer: CosPlace and EigenPlaces.

Source: Berton, Masone, Caputo, "Rethinking Visual Geo-localization for
Large-Scale Applications", CVPR 2022; Berton et al., "EigenPlaces: Training
Viewpoint Robust Models for Visual Place Recognition", ICCV 2023.
"""

import keras
from keras import ops

from sare_tf.model.aggregation import unit_length
from sare_tf.model.pooling import GeM


@keras.saving.register_keras_serializable(package="sare_tf")
class GeMLinear(GeM):
    """Generalised mean over locations of unit length, and a dense layer.

    Source: CosPlace and EigenPlaces (see the module).

    Args:
        length: D.
        p: exponent to start from.

    Call arguments:
        features: feature maps.

    Input shape:
        [B, H, W, C]; B, H and W may be unknown.

    Output shape:
        [B, D], float32 under every dtype policy.
    """

    def __init__(self, length=512, p=3.0, **kwargs):
        super().__init__(p=p, unit_locations=True, **kwargs)
        self.length = length

    def build(self, input_shape):
        super().build(input_shape)
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.length),
            initializer="glorot_uniform",
            autocast=False,
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(self.length,),
            initializer="zeros",
            autocast=False,
            name="bias",
        )

    def call(self, features):
        x = ops.matmul(self._pool(features), self.kernel) + self.bias
        return unit_length(x, clamped=True)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.length)

    def get_config(self):
        config = {**super().get_config(), "length": self.length}
        del config["unit_locations"], config["epsilon"]
        return config
