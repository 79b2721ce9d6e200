"""SALAD: optimal transport of locations to clusters, beside a class token.

Axis letters: B images, H W positions, L = H * W locations, C channels, K
clusters, M length of a cluster's vector, G length of the global part.

Source: Izquierdo, Civera, "Optimal Transport Aggregation for Visual Place
Recognition", CVPR 2024, section 3; its head, with the same names, is in
github.com/gmberton/MegaLoc under MIT.
"""

import keras
from keras import ops

from sare_tf.model.aggregation import unit_length
from sare_tf.model.heads.head import Head, dense, dense_shapes, locations

_ITERATIONS = 3


def transport(scores, dustbin):
    """Shares of each location in each cluster, by Sinkhorn's algorithm.

    Locations send their mass to the clusters, which take 1 each, and to a
    dustbin, which takes the rest. In log space: no score overflows.

    Args:
        scores: float32 [B, K, L], L > K.
        dustbin: score of the dustbin, a scalar.

    Returns:
        float32 [B, K, L].
    """
    batch, clusters, count = ops.shape(scores)
    # Fails in a graph in which L is unknown, and not above K.
    rest = 1.0 + ops.sum(ops.ones((count - clusters - 1,)))
    bins = ops.broadcast_to(dustbin, (batch, 1, count))
    scores = ops.concatenate([scores, bins], axis=1)  # [B, K + 1, L]
    total = -ops.log(rest + 2.0 * clusters)
    rows = ops.concatenate(
        [ops.zeros((clusters,)), ops.reshape(ops.log(rest), (1,))]
    )
    rows = (rows + total)[None, :, None]
    u, v = 0.0, 0.0
    for _ in range(_ITERATIONS):
        u = rows - ops.logsumexp(scores + v, axis=2, keepdims=True)
        v = total - ops.logsumexp(scores + u, axis=1, keepdims=True)
    return ops.exp(scores + u + v - total)[:, :clusters]


def salad(features, class_token, weights):
    """SALAD descriptors.

    Args:
        features: [B, H, W, C], with more locations than clusters.
        class_token: [B, C].
        weights: by name, see `SALAD.weight_shapes`.

    Returns:
        Rows of unit length, float32 [B, G + M * K]: the global part, then
        element m * K + k of the clusters.
    """

    def two_layers(x, name):
        x = ops.relu(dense(x, weights, f"{name}_hidden"))
        return dense(x, weights, name)

    x = locations(features)
    whole = two_layers(ops.cast(class_token, "float32"), "token")
    vectors = two_layers(x, "feature")  # [B, L, M]
    scores = ops.transpose(two_layers(x, "score"), (0, 2, 1))  # [B, K, L]
    shares = transport(scores, weights["dustbin"])
    clusters = unit_length(ops.matmul(shares, vectors), clamped=True)
    batch, count, length = ops.shape(clusters)
    clusters = ops.reshape(
        ops.transpose(clusters, (0, 2, 1)), (batch, length * count)
    )
    whole = unit_length(whole, clamped=True)
    return unit_length(
        ops.concatenate([whole, clusters], axis=-1), clamped=True
    )


@keras.saving.register_keras_serializable(package="sare_tf")
class SALAD(Head):
    """Aggregates locations by optimal transport, and adds a global part.

    Without the dropout of the original, by which training would see other
    descriptors than mining.

    Source: Izquierdo, Civera, CVPR 2024 (see the module). MegaLoc is
    `SALADLinear`.

    Args:
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
        [B, G + M * K], float32 under every dtype policy.
    """

    def __init__(
        self,
        num_clusters=64,
        cluster_length=128,
        token_length=256,
        hidden=512,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if num_clusters < 1:
            raise ValueError(
                "Expected at least 1 cluster. Received: "
                f"num_clusters={num_clusters}."
            )
        self.num_clusters = num_clusters
        self.cluster_length = cluster_length
        self.token_length = token_length
        self.hidden = hidden

    def weight_shapes(self, input_shape):
        shapes = {"dustbin": ()}
        for name, length in (
            ("token", self.token_length),
            ("feature", self.cluster_length),
            ("score", self.num_clusters),
        ):
            channels = input_shape[-1]
            shapes |= dense_shapes(f"{name}_hidden", channels, self.hidden)
            shapes |= dense_shapes(name, self.hidden, length)
        return shapes

    def initialisers(self):
        return {"dustbin": keras.initializers.Ones()}

    def call(self, features, class_token=None):
        self._check_count(features.shape)
        if class_token is None:
            class_token = ops.mean(ops.cast(features, "float32"), axis=(1, 2))
        return salad(features, class_token, self.tensors)

    def _check_count(self, shape):
        height, width = shape[1:3]
        if height and width and height * width <= self.num_clusters:
            raise ValueError(
                f"Expected more locations than the {self.num_clusters} "
                f"clusters of SALAD. Received: feature maps of {height} x "
                f"{width} = {height * width}. Give larger images by "
                "--image_height and --image_width, or lower --num_clusters."
            )

    def compute_output_shape(self, input_shape, class_token_shape=None):
        del class_token_shape
        length = self.token_length + self.num_clusters * self.cluster_length
        return (input_shape[0], length)

    def compute_output_spec(self, features, class_token=None):
        del class_token
        self._check_count(features.shape)
        return super().compute_output_spec(features)

    def get_config(self):
        return {
            **super().get_config(),
            "num_clusters": self.num_clusters,
            "cluster_length": self.cluster_length,
            "token_length": self.token_length,
            "hidden": self.hidden,
        }
