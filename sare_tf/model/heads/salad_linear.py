"""SALAD and a dense layer: MegaLoc.

Source: Berton, Masone, "MegaLoc: One Retrieval to Place Them All", 2025;
github.com/gmberton/MegaLoc, megaloc_model.py.
"""

import keras

from sare_tf.model.aggregation import unit_length
from sare_tf.model.heads.head import dense, dense_shapes
from sare_tf.model.heads.salad import SALAD


@keras.saving.register_keras_serializable(package="sare_tf")
class SALADLinear(SALAD):
    """SALAD's descriptor, and a dense layer that shortens it.

    Source: MegaLoc (see the module).

    Args:
        length: D.
        num_clusters: K; images must have more locations.
        cluster_length: M.
        token_length: G.
        hidden: length of the hidden layers.

    Call arguments:
        features: feature maps.
        class_token: of the whole image; None: the mean of the locations.

    Input shape:
        [B, H, W, C], and [B, C].

    Output shape:
        [B, D], float32 under every dtype policy.
    """

    def __init__(self, length=8448, cluster_length=256, **kwargs):
        super().__init__(cluster_length=cluster_length, **kwargs)
        self.length = length

    def weight_shapes(self, input_shape):
        salad = self.token_length + self.num_clusters * self.cluster_length
        shapes = super().weight_shapes(input_shape)
        return shapes | dense_shapes("output", salad, self.length)

    def call(self, features, class_token=None):
        descriptors = super().call(features, class_token)
        x = dense(descriptors, self.tensors, "output")
        return unit_length(x, clamped=True)

    def compute_output_shape(self, input_shape, class_token_shape=None):
        del class_token_shape
        return (input_shape[0], self.length)

    def get_config(self):
        return {**super().get_config(), "length": self.length}
