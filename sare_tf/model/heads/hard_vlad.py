"""VLAD with hard assignment: AnyLoc, which trains nothing.

Axis letters: B images, H W positions, L = H * W locations, C channels, K
clusters.

Source: Keetha et al., "AnyLoc: Towards Universal Visual Place Recognition",
RA-L 2023; github.com/AnyLoc/AnyLoc, demo/utilities.py.
"""

import keras
from keras import ops

from sare_tf.model.aggregation import unit_length
from sare_tf.model.heads.head import Head, locations


def hard_vlad(features, centres):
    """Descriptors of residuals to the nearest centres.

    Args:
        features: [B, H, W, C], not normalised.
        centres: [K, C]; the nearest is that of the largest cosine.

    Returns:
        Rows of unit length, float32 [B, K * C], cluster-major.
    """
    centres = ops.convert_to_tensor(centres)
    x = unit_length(locations(features), clamped=True)
    directions = unit_length(centres, clamped=True)
    scores = ops.matmul(x, ops.transpose(directions))  # [B, L, K]
    count, channels = centres.shape
    nearest = ops.one_hot(ops.argmax(scores, axis=-1), count, dtype="float32")
    sums = ops.matmul(ops.transpose(nearest, (0, 2, 1)), x)  # [B, K, C]
    residuals = sums - ops.sum(nearest, axis=1)[..., None] * centres
    residuals = unit_length(residuals, clamped=True)
    flat = ops.reshape(residuals, (ops.shape(x)[0], count * channels))
    return unit_length(flat, clamped=True)


@keras.saving.register_keras_serializable(package="sare_tf")
class HardVLAD(Head):
    """Aggregates residuals of locations to the nearest of given centres.

    Source: Keetha et al., RA-L 2023 (see the module): 32 clusters of the values
    of DINOv2's ViT-g, `cut_layer="block31_value"`.

    Args:
        num_clusters: K.

    Call arguments:
        features: feature maps.

    Input shape:
        [B, H, W, C]; B, H and W may be unknown.

    Output shape:
        [B, K * C], float32 under every dtype policy, cluster-major. The
        centres are not trained; `initialise_netvlad` makes them.
    """

    def __init__(self, num_clusters=32, **kwargs):
        super().__init__(trainable=False, **kwargs)
        if num_clusters < 1:
            raise ValueError(
                "Expected at least 1 cluster. Received: "
                f"num_clusters={num_clusters}."
            )
        self.num_clusters = num_clusters

    def weight_shapes(self, input_shape):
        return {"centres": (self.num_clusters, input_shape[-1])}

    def initialisers(self):
        return {"centres": keras.initializers.RandomNormal()}

    @property
    def centres(self):
        return self.tensors["centres"]

    def call(self, features):
        return hard_vlad(features, self.centres)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_clusters * input_shape[-1])

    def get_config(self):
        config = {**super().get_config(), "num_clusters": self.num_clusters}
        del config["trainable"]
        return config
