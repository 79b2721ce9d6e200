"""NetVLAD: soft-assigned residuals to cluster centres, summed over an image.

Axis letters: B images, H W positions, L = H * W locations, C channels, K
clusters. The output is cluster-major: element k * C + c. Sums are computed in
float32 whatever the dtype of the features.

Source: Arandjelovic et al., "NetVLAD: CNN architecture for weakly supervised
place recognition", CVPR 2016, section 3.1 and appendix A. The defaults are the
variant `vlad_preL2_intra` of its code, which SARE trains: an assignment without
bias, and centres that are trained independently of it. Imported weights may
need the two options that this variant does not have.
"""

import keras
from keras import ops

from sare_tf.model.aggregation import Aggregation, bounded, unit_length


def netvlad(
    features, assignment, centres, *, assignment_bias=None, clamped=False
):
    """Returns the NetVLAD descriptors of feature maps.

    The sum of residuals is A^T X - (sum A) centres: no tensor of locations
    times clusters times channels, and no normalised copy of the features. So
    the forward pass needs little more than features, assignments and output;
    the backward pass adds four gradients as large as the features. Features
    of another dtype than float32 are copied once.
    `python -m benchmarks.netvlad` measures this.

    Args:
        features: [B, H, W, C], not normalised.
        assignment: weights of the soft assignment, [C, K].
        centres: [K, C].
        assignment_bias: added to the scores of the assignment, [K], or None.
        clamped: normalise as PyTorch does, see `aggregation.unit_length`.

    Returns:
        Rows of unit length, float32 [B, K * C].
    """
    clusters, channels = centres.shape
    residuals = cluster_residuals(
        features,
        assignment,
        centres,
        assignment_bias=assignment_bias,
        clamped=clamped,
    )
    batch = ops.shape(features)[0]
    flat = ops.reshape(residuals, (batch, clusters * channels))
    return unit_length(flat, clamped=clamped)


def cluster_residuals(
    features, assignment, centres, *, assignment_bias=None, clamped=False
):
    """Returns the sum of residuals of each cluster, of unit length.

    Args:
        features: [B, H, W, C], not normalised.
        assignment: weights of the soft assignment, [C, K].
        centres: [K, C].
        assignment_bias: added to the scores of the assignment, [K], or None.
        clamped: normalise as PyTorch does, see `aggregation.unit_length`.

    Returns:
        float32 [B, K, C].
    """
    batch, height, width, channels = ops.shape(features)
    assignment = ops.cast(assignment, "float32")
    centres = ops.cast(centres, "float32")
    features = ops.reshape(features, (batch, height * width, channels))
    features = ops.cast(features, "float32")
    # Normalised features are features * scale. Scaling the K scores is cheaper
    # than scaling the C features.
    squares = ops.einsum("blc,blc->bl", features, features)
    scale = ops.rsqrt(bounded(squares, clamped=clamped))[..., None]  # [B, L, 1]
    # Not matmul: TensorFlow would cast features of another dtype twice for it.
    scores = ops.einsum("blc,ck->blk", features, assignment) * scale
    if assignment_bias is not None:
        scores = scores + ops.cast(assignment_bias, "float32")
    weights = ops.softmax(scores, axis=-1)
    sums = ops.matmul(
        ops.transpose(weights * scale, (0, 2, 1)), features
    )  # [B, K, C]
    masses = ops.sum(weights, axis=1)[..., None]  # [B, K, 1]
    return unit_length(
        sums - masses * centres, clamped=clamped
    )  # intra-normalisation


@keras.saving.register_keras_serializable(package="sare_tf")
class NetVLAD(Aggregation):
    """Aggregates a feature map into one descriptor of unit length.

    A new layer has random weights. Initialise it from features with
    `netvlad_initial_weights`, or as part of an embedder with
    `initialise_netvlad`.

    Source: Arandjelovic et al., "NetVLAD: CNN architecture for weakly
    supervised place recognition", CVPR 2016, section 3.1.

    Args:
        num_clusters: K, at least 2.
        use_bias: whether the assignment has a bias, as in `vladv2`.
        clamped: whether to normalise as PyTorch does. This changes clusters to
            which hardly any location is assigned: by default they count for
            little.

    Call arguments:
        features: feature maps.

    Input shape:
        [B, H, W, C]; B, H and W may be unknown.

    Output shape:
        [B, K * C], float32 under every dtype policy, cluster-major.

    Example:

    ```python
    descriptors = sare_tf.NetVLAD(num_clusters=64)(features)
    ```
    """

    def __init__(
        self, num_clusters=64, use_bias=False, clamped=False, **kwargs
    ):
        super().__init__(**kwargs)
        if num_clusters < 2:
            raise ValueError(
                "Expected at least 2 clusters; for 1, use SPoC. Received: "
                f"num_clusters={num_clusters}."
            )
        self.num_clusters = num_clusters
        self.use_bias = use_bias
        self.clamped = clamped

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                "Expected feature maps, [B, H, W, C], with known C. "
                f"Received: input_shape={tuple(input_shape)}."
            )
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        # Rows of about unit length, as normalised features have.
        near_unit = keras.initializers.RandomNormal(stddev=channels**-0.5)
        self.assignment = self.add_weight(
            shape=(channels, self.num_clusters),
            initializer="glorot_uniform",
            autocast=False,
            name="assignment",
        )
        self.centres = self.add_weight(
            shape=(self.num_clusters, channels),
            initializer=near_unit,
            autocast=False,
            name="centres",
        )
        self.assignment_bias = None
        if self.use_bias:
            self.assignment_bias = self.add_weight(
                shape=(self.num_clusters,),
                initializer="zeros",
                autocast=False,
                name="assignment_bias",
            )

    def call(self, features):
        return netvlad(
            features,
            self.assignment,
            self.centres,
            assignment_bias=self.assignment_bias,
            clamped=self.clamped,
        )

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_clusters * input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "num_clusters": self.num_clusters,
            "use_bias": self.use_bias,
            "clamped": self.clamped,
        }
