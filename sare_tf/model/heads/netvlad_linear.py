"""NetVLAD whose clusters are shortened by one dense layer: NVL.

Source: Liu et al., "SuperPlace: The Renaissance of Classical Feature
Aggregation for Visual Place Recognition in the Era of Foundation Models",
2025; github.com/HqiTao/SuperPlace.
"""

import keras
from keras import ops

from sare_tf.model.aggregation import unit_length
from sare_tf.model.netvlad import NetVLAD, cluster_residuals


@keras.saving.register_keras_serializable(package="sare_tf")
class NetVLADLinear(NetVLAD):
    """NetVLAD, and one dense layer that every cluster passes: a learned PCA.

    Source: NVL of SuperPlace (see the module).

    Args:
        num_clusters: K, at least 2.
        cluster_length: M, to which C channels are shortened.

    Call arguments:
        features: feature maps.

    Input shape:
        [B, H, W, C]; B, H and W may be unknown.

    Output shape:
        [B, K * M], float32 under every dtype policy, cluster-major.
    """

    def __init__(self, num_clusters=64, cluster_length=128, **kwargs):
        super().__init__(num_clusters=num_clusters, clamped=True, **kwargs)
        self.cluster_length = cluster_length

    def build(self, input_shape):
        super().build(input_shape)
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.cluster_length),
            initializer="glorot_uniform",
            autocast=False,
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(self.cluster_length,),
            initializer="zeros",
            autocast=False,
            name="bias",
        )

    def call(self, features):
        clusters = cluster_residuals(
            features, self.assignment, self.centres, clamped=True
        )  # [B, K, C]
        clusters = ops.matmul(clusters, self.kernel) + self.bias
        length = self.num_clusters * self.cluster_length
        flat = ops.reshape(clusters, (ops.shape(features)[0], length))
        return unit_length(flat, clamped=True)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_clusters * self.cluster_length)

    def get_config(self):
        config = {
            **super().get_config(),
            "cluster_length": self.cluster_length,
        }
        del config["use_bias"], config["clamped"]
        return config
