"""SuperVLAD: sums of the locations of each cluster, without centres.

Axis letters: B images, H W positions, L = H * W locations, C channels, K
clusters, G ghost clusters.

Source: Lu et al., "SuperVLAD: Compact and Robust Image Descriptors for Visual
Place Recognition", NeurIPS 2024; github.com/Lu-Feng/SuperVLAD.
"""

import keras
from keras import ops

from sare_tf.model.aggregation import unit_length
from sare_tf.model.heads.head import Head, locations


def supervlad(features, assignment, *, num_clusters):
    """SuperVLAD descriptors.

    Args:
        features: [B, H, W, C], not normalised.
        assignment: weights of the soft assignment, [C, K + G].
        num_clusters: K; the ghosts take part in the assignment only.

    Returns:
        Rows of unit length, float32 [B, K * C], cluster-major.
    """
    x = unit_length(locations(features), clamped=True)
    assignment = ops.convert_to_tensor(assignment)
    shares = ops.softmax(ops.matmul(x, assignment), axis=-1)
    shares = ops.transpose(shares[..., :num_clusters], (0, 2, 1))  # [B, K, L]
    sums = unit_length(ops.matmul(shares, x), clamped=True)
    batch, _, channels = ops.shape(sums)
    flat = ops.reshape(sums, (batch, num_clusters * channels))
    return unit_length(flat, clamped=True)


@keras.saving.register_keras_serializable(package="sare_tf")
class SuperVLAD(Head):
    """Aggregates locations by a soft assignment to a few clusters.

    Source: Lu et al., NeurIPS 2024 (see the module): 4 clusters and 1 ghost.
    Without its encoder across images, by which a descriptor depends on its
    neighbours in the batch.

    Args:
        num_clusters: K.
        num_ghosts: G.

    Call arguments:
        features: feature maps.

    Input shape:
        [B, H, W, C]; B, H and W may be unknown.

    Output shape:
        [B, K * C], float32 under every dtype policy, cluster-major.
    """

    def __init__(self, num_clusters=4, num_ghosts=1, **kwargs):
        super().__init__(**kwargs)
        if num_clusters < 1 or num_ghosts < 0:
            raise ValueError(
                "Expected at least 1 cluster and 0 ghosts. Received: "
                f"num_clusters={num_clusters}, num_ghosts={num_ghosts}."
            )
        self.num_clusters = num_clusters
        self.num_ghosts = num_ghosts

    def weight_shapes(self, input_shape):
        count = self.num_clusters + self.num_ghosts
        return {"assignment_kernel": (input_shape[-1], count)}

    def call(self, features):
        return supervlad(
            features,
            self.tensors["assignment_kernel"],
            num_clusters=self.num_clusters,
        )

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_clusters * input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "num_clusters": self.num_clusters,
            "num_ghosts": self.num_ghosts,
        }
