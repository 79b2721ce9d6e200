"""Aggregations without clusters: GeM, MAC, SPoC and R-MAC.

Each layer turns feature maps [B, H, W, C] into descriptors of unit length,
float32 [B, C], under every dtype policy. B, H and W may be unknown.
"""

import keras
from keras import ops

from sare_tf.model.aggregation import Aggregation, unit_length

# Below every feature, and finite.
_LOWEST = -3e38
# R-MAC adds regions along the longer side until neighbours overlap by about
# this share (Tolias et al.), which for images of usual shapes takes few.
_OVERLAP = 0.4
_MOST_EXTRA_REGIONS = 6


@keras.saving.register_keras_serializable(package="sare_tf")
class GeM(Aggregation):
    """Computes the generalised mean over locations, with a trained exponent.

    Each channel becomes (mean x^p)^(1/p), where x is clipped from below. p = 1
    gives the mean, and the limit of large p the maximum.

    Source: Radenovic, Tolias, Chum, "Fine-tuning CNN Image Retrieval with No
    Human Annotation", TPAMI 2019, equation 3.

    Args:
        p: initial exponent. The paper starts from 3.
        epsilon: lower bound of the features.
        unit_locations: first normalise the features of each location, as the
            deep-visual-geo-localization-benchmark does.

    Call arguments:
        features: feature maps.

    Input shape:
        [B, H, W, C].

    Output shape:
        [B, C].
    """

    def __init__(self, p=3.0, epsilon=1e-6, unit_locations=False, **kwargs):
        super().__init__(**kwargs)
        if p <= 0:
            raise ValueError(f"Expected a positive p. Received: p={p}.")
        if epsilon <= 0:
            raise ValueError(
                f"Expected a positive epsilon. Received: epsilon={epsilon}."
            )
        self.p = p
        self.epsilon = epsilon
        self.unit_locations = unit_locations

    def build(self, input_shape):
        self.exponent = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self.p),
            autocast=False,
            name="exponent",
        )

    def call(self, features):
        return unit_length(self._pool(features))

    def _pool(self, features):
        """Returns the generalised means, [B, C], before normalisation."""
        features = ops.cast(features, "float32")
        if self.unit_locations:
            features = unit_length(features, clamped=True)
        # By logarithms and relative to the largest: high powers of small or
        # large features neither vanish nor overflow.
        logs = ops.log(ops.maximum(features, self.epsilon))
        largest = ops.stop_gradient(ops.amax(logs, axis=(1, 2), keepdims=True))
        powers = ops.exp(self.exponent * (logs - largest))
        means = ops.log(ops.mean(powers, axis=(1, 2)))  # [B, C]
        return ops.exp(means / self.exponent + largest[:, 0, 0])

    def get_config(self):
        return {
            **super().get_config(),
            "p": self.p,
            "epsilon": self.epsilon,
            "unit_locations": self.unit_locations,
        }


@keras.saving.register_keras_serializable(package="sare_tf")
class MAC(Aggregation):
    """Computes the maximum over locations.

    Source: Tolias, Sicre, Jegou, "Particular object retrieval with integral
    max-pooling of CNN activations", ICLR 2016, section 3.

    Call arguments:
        features: feature maps.

    Input shape:
        [B, H, W, C].

    Output shape:
        [B, C].
    """

    def call(self, features):
        features = ops.cast(features, "float32")
        return unit_length(ops.amax(features, axis=(1, 2)))


@keras.saving.register_keras_serializable(package="sare_tf")
class SPoC(Aggregation):
    """Computes the mean over locations (sum pooling without centre prior).

    Source: Babenko, Lempitsky, "Aggregating Deep Convolutional Features for
    Image Retrieval", ICCV 2015.

    Call arguments:
        features: feature maps.

    Input shape:
        [B, H, W, C].

    Output shape:
        [B, C].
    """

    def call(self, features):
        features = ops.cast(features, "float32")
        return unit_length(ops.mean(features, axis=(1, 2)))


@keras.saving.register_keras_serializable(package="sare_tf")
class RMAC(Aggregation):
    """Sums the normalised maxima over square regions of several sizes.

    Level l has regions of side 2 min(H, W) / (l + 1): l along the shorter
    side and l + m - 1 along the longer, where m is chosen so that at level 1
    neighbours overlap by about 40 %. Sides and corners are rounded down. The
    whitening of regions, which needs training data, is left out.

    Source: Tolias, Sicre, Jegou, ICLR 2016, section 3.

    Args:
        levels: number of region sizes. The paper uses 3.

    Call arguments:
        features: feature maps.

    Input shape:
        [B, H, W, C]; regions have a side of at least 1.

    Output shape:
        [B, C].
    """

    def __init__(self, levels=3, **kwargs):
        super().__init__(**kwargs)
        if levels < 1:
            raise ValueError(
                f"Expected at least one level. Received: levels={levels}."
            )
        self.levels = levels

    def call(self, features):
        features = ops.cast(features, "float32")
        _, height, width, _ = ops.shape(features)
        rows, columns = ops.arange(height), ops.arange(width)

        def region(window):  # [4] -> [B, C]
            top, left, side, exists = (window[i] for i in range(4))
            inside = ops.logical_and(
                _between(rows, top, side)[:, None],
                _between(columns, left, side)[None, :],
            )  # [H, W]
            masked = ops.where(inside[..., None], features, _LOWEST)
            maxima = unit_length(ops.amax(masked, axis=(1, 2)))
            return ops.where(exists > 0, maxima, 0.0)

        windows = _windows(height, width, self.levels)
        return unit_length(ops.sum(ops.map(region, windows), axis=0))

    def get_config(self):
        return {**super().get_config(), "levels": self.levels}


def _windows(height, width, levels):
    """Returns the regions of R-MAC, int32 [R, 4]: top, left, side, exists.

    R does not depend on height and width, which may be unknown: there is a row
    for every region that some size has.
    """
    shorter = ops.minimum(height, width)
    longer = ops.maximum(height, width)
    extra = _extra_regions(shorter, longer)
    places = [
        (level, across, along)
        for level in range(1, levels + 1)
        for across in range(level)
        for along in range(level + _MOST_EXTRA_REGIONS)
    ]
    level, across, along = ops.unstack(
        ops.convert_to_tensor(places, dtype="int32"), axis=1
    )  # each [R]
    side = ops.maximum(2 * shorter // (level + 1), 1)
    # Of the regions of a level, the first starts at 0 and the last ends at
    # the far side; a single one is at 0.
    start_across = across * (shorter - side) // ops.maximum(level - 1, 1)
    start_along = along * (longer - side) // ops.maximum(level + extra - 1, 1)
    upright = height > width
    return ops.stack(
        [
            ops.where(upright, start_along, start_across),
            ops.where(upright, start_across, start_along),
            side,
            ops.cast(along < level + extra, "int32"),
        ],
        axis=1,
    )


def _extra_regions(shorter, longer):
    """Returns how many more regions the longer side has, m - 1."""
    candidates = ops.arange(1, _MOST_EXTRA_REGIONS + 1, dtype="float32")
    step = ops.cast(longer - shorter, "float32") / candidates
    overlaps = 1.0 - step / ops.cast(shorter, "float32")
    best = ops.argmin(ops.abs(overlaps - _OVERLAP)) + 1
    return ops.where(longer > shorter, ops.cast(best, "int32"), 0)


def _between(positions, start, length):
    return ops.logical_and(positions >= start, positions < start + length)
