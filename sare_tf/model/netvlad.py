"""NetVLAD: soft-assigned residuals to cluster centres, summed over an image.

Axis letters: B images, H W positions, L = H * W locations, C channels, K
clusters, M sampled descriptors. The output is cluster-major: element k * C + c.
Sums are computed in float32 whatever the dtype of the features.

Every normalisation is x / sqrt(sum x^2 + 1e-12), as MatConvNet's normalize
layer has it.

Source: Arandjelovic et al., "NetVLAD: CNN architecture for weakly supervised
place recognition", CVPR 2016, section 3.1 and appendix A; in the variant
`vlad_preL2_intra` of its code, which SARE trains: assignment without a bias,
centres that are trained by themselves.
"""

import math
import warnings

import keras
import numpy as np
from keras import ops

_EPSILON = 1e-12
# Ratio of the second largest assignment to the largest, at initialisation.
_ASSIGNMENT_RATIO = 0.01
# Largest number of iterations of k-means, as getClusters.m of NetVLAD.
_KMEANS_ITERATIONS = 100


def netvlad(features, assignment, centres):
    """NetVLAD descriptors of feature maps.

    The sum of residuals is A^T X - (sum A) centres: no tensor of locations
    times clusters times channels, and no normalised copy of the features.

    Args:
        features: [B, H, W, C], not normalised.
        assignment: weights of the soft assignment, [C, K].
        centres: [K, C].

    Returns:
        Rows of unit length, float32 [B, K * C].
    """
    batch, height, width, _ = ops.shape(features)
    clusters, channels = centres.shape
    features = ops.cast(features, "float32")
    assignment = ops.cast(assignment, "float32")
    centres = ops.cast(centres, "float32")
    features = ops.reshape(features, (batch, height * width, channels))
    # Features of unit length are features * scale; scale goes where it is
    # cheap, onto the K channels of the assignment.
    squares = ops.einsum("blc,blc->bl", features, features)
    scale = ops.rsqrt(squares + _EPSILON)[..., None]  # [B, L, 1]
    weights = ops.softmax(ops.matmul(features, assignment) * scale, axis=-1)
    sums = ops.matmul(
        ops.transpose(weights * scale, (0, 2, 1)), features
    )  # [B, K, C]
    masses = ops.sum(weights, axis=1)[..., None]  # [B, K, 1]
    residuals = _unit_length(sums - masses * centres)  # intra-normalisation
    return _unit_length(ops.reshape(residuals, (batch, clusters * channels)))


def netvlad_initial_weights(descriptors, num_clusters, *, seed=0):
    """Weights from k-means over sampled local descriptors.

    Centres are those of k-means over the normalised descriptors. Assignment
    k is alpha times the direction of centre k, with alpha such that, for a
    typical descriptor, the second largest assignment is a hundredth of the
    largest: alpha = -ln(0.01) / mean(s1 - s2), where s1 and s2 are the two
    largest dot products of a descriptor with the directions of the centres.

    Source: addLayers.m and getClusters.m of the code of NetVLAD.

    Args:
        descriptors: local descriptors of training images, [M, C]; normalised
            here.
        num_clusters: K, at least 2.
        seed: of k-means.

    Returns:
        `assignment`, float32 [C, K], and `centres`, float32 [K, C].

    Raises:
        ValueError: another rank, fewer than 2 clusters, fewer distinct
            descriptors than clusters, or values that are not finite.
    """
    # Slow to import, and only needed here.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    descriptors = np.asarray(descriptors, np.float32)
    if descriptors.ndim != 2:
        raise ValueError(
            "Expected local descriptors, [M, C]. Received: "
            f"descriptors.shape={descriptors.shape}."
        )
    if num_clusters < 2:
        raise ValueError(
            "Expected at least 2 clusters: the initial sharpness comes from "
            "the two nearest. Received: "
            f"num_clusters={num_clusters}."
        )
    if not np.isfinite(descriptors).all():
        raise ValueError(
            "Expected finite descriptors. Received: NaN or infinity in "
            f"{(~np.isfinite(descriptors)).any(axis=1).sum()} of "
            f"{len(descriptors)}. Check the weights of the backbone."
        )
    too_few = (
        f"Expected at least {num_clusters} distinct descriptors, one per "
        f"cluster. Received: descriptors.shape={descriptors.shape}. Sample "
        "more images or locations, or lower num_clusters."
    )
    if len(descriptors) < num_clusters:
        raise ValueError(too_few)
    descriptors = _unit_rows(descriptors)
    kmeans = KMeans(
        num_clusters, n_init=1, max_iter=_KMEANS_ITERATIONS, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            centres = kmeans.fit(descriptors).cluster_centers_
        except ConvergenceWarning as warning:
            raise ValueError(too_few) from warning
    directions = _unit_rows(centres)
    similarities = descriptors @ directions.T  # [M, K]
    second, first = np.partition(similarities, -2, axis=1)[:, -2:].T
    alpha = -math.log(_ASSIGNMENT_RATIO) / np.mean(first - second)
    assignment = (alpha * directions).T
    return assignment.astype(np.float32), centres.astype(np.float32)


@keras.saving.register_keras_serializable(package="sare_tf")
class NetVLAD(keras.layers.Layer):
    """Aggregates a feature map into one descriptor of unit length.

    The new layer has random weights; `netvlad_initial_weights`, or
    `initialise_netvlad` for a whole embedder, makes the ones to start from.

    Source: Arandjelovic et al., CVPR 2016, section 3.1 (see the module).

    Args:
        num_clusters: K, at least 2.

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

    def __init__(self, num_clusters=64, **kwargs):
        super().__init__(**kwargs)
        if num_clusters < 2:
            raise ValueError(
                "Expected at least 2 clusters; for 1, use SPoC. Received: "
                f"num_clusters={num_clusters}."
            )
        self.num_clusters = num_clusters

    def build(self, input_shape):
        if len(input_shape) != 4 or input_shape[-1] is None:
            raise ValueError(
                "Expected feature maps, [B, H, W, C], with known C. "
                f"Received: input_shape={tuple(input_shape)}."
            )
        channels = input_shape[-1]
        # Rows of about unit length, as the descriptors that they stand for.
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

    def call(self, features):
        return netvlad(features, self.assignment, self.centres)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_clusters * input_shape[-1])

    def compute_output_spec(self, features):
        shape = self.compute_output_shape(features.shape)
        return keras.KerasTensor(shape, dtype="float32")

    def get_config(self):
        return {**super().get_config(), "num_clusters": self.num_clusters}


def _unit_rows(x):
    squares = np.sum(np.square(x), axis=-1, keepdims=True)
    return x / np.sqrt(squares + _EPSILON)


def _unit_length(x):
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.rsqrt(squares + _EPSILON)
