"""CosFace: training as classification of images into places.

Axis letters: B images of a batch; D descriptor length; C places. Labels are the
numbers of places, from 0 and below C. Everything is float32.
"""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from sare_tf.losses import distances, place_labels, settings
from sare_tf.losses.keras_losses import DescriptorLoss, DType, Reduction

# exp of it is 0, and it has no gradient.
_NO_LOGIT = -1e9


@keras.saving.register_keras_serializable(package="sare_tf")
class PlaceClassifier(keras.layers.Layer):
    """Cosines of descriptors with a learned direction for each place.

    Source: Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face
    Recognition", CVPR 2018, section 3.2.

    Args:
        num_places: C.
        **kwargs: passed on to `keras.layers.Layer`.

    Call arguments:
        descriptors: [B, D], of unit length.

    Input shape:
        [B, D].

    Output shape:
        [B, C]; float32.

    Example:

    ```python
    cosines = sare_tf.losses.PlaceClassifier(1000)(descriptors)
    ```
    """

    def __init__(self, num_places, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        settings.check(num_places=num_places)
        self.num_places = num_places

    def build(self, input_shape):
        self.directions = self.add_weight(
            name="directions",
            shape=(self.num_places, input_shape[-1]),
            initializer="glorot_uniform",
        )

    def call(self, descriptors):
        directions = ops.normalize(self.directions, axis=-1)
        return ops.matmul(
            ops.cast(descriptors, "float32"), ops.transpose(directions)
        )

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.num_places)

    def get_config(self):
        return {**super().get_config(), "num_places": self.num_places}


def place_cosface(labels, cosines, *, margin=0.4, scale=30.0, group_sizes=None):
    """Cross-entropy of cosines with places, less a margin for the own place.

        -log(exp(s (cos_y - m)) / (exp(s (cos_y - m)) + sum_j exp(s cos_j)))

    with the place y of the image, the other places j, the margin m and the
    scale s. The defaults are those of CosPlace; EigenPlaces has the scale 100.
    With groups, the other places are those of the same group only, as each
    group of CosPlace has a classifier of its own.

    Source: Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face
    Recognition", CVPR 2018, equation 4; Berton et al., "Rethinking Visual
    Geo-localization for Large-Scale Applications", CVPR 2022, section 3.3.

    Args:
        labels: numbers of places, [B] or [B, 1], from 0 and below C.
        cosines: of descriptors and the directions of places, [B, C].
        margin: m, of cosines.
        scale: s, factor on cosines.
        group_sizes: number of places of each group, C together; places are
            numbered group by group. None for one group.

    Returns:
        Loss per image, float32 [B].

    Raises:
        ValueError: cosines of another rank, other labels, or a setting that is
            not positive and finite.
    """
    settings.check(margin=margin, scale=scale)
    cosines = distances.images(cosines)
    count = cosines.shape[-1]
    labels, cosines = place_labels.checked_classes(labels, cosines, count=count)
    own = ops.one_hot(labels, count, dtype="float32")  # [B, C]
    logits = scale * (cosines - margin * own)
    if group_sizes is not None:
        groups = ops.convert_to_tensor(
            np.arange(len(group_sizes)).repeat(group_sizes)
        )  # [C]
        same = ops.take(groups, labels)[:, None] == groups[None]
        logits = ops.where(same, logits, _NO_LOGIT)
    return ops.logsumexp(logits, axis=1) - ops.sum(own * logits, axis=1)


@keras.saving.register_keras_serializable(package="sare_tf")
class PlaceCosFaceLoss(DescriptorLoss):
    """CosFace over the places of a dataset, with a direction for each of them.

    The number of places must be known: labels are their numbers, from 0 and
    below `num_places`, the same in all batches. The directions are weights of
    `layer`, a `PlaceClassifier`: a `PlaceNetwork` trains them with the network
    and saves them. Other models do not train them; use the layer and
    `place_cosface` there.

    Memory: B * C numbers, and C * D for the directions.

    Source: Wang et al., CVPR 2018, and Berton et al., CVPR 2022, see
    `place_cosface`.

    Args:
        num_places: C.
        margin: of cosines.
        scale: factor on cosines.
        group_sizes: number of places of each group, see `place_cosface`; None
            for one group.
        reduction: how Keras reduces [B]; by default to the mean.
        name: of the loss.
        dtype: of the returned values.

    Call arguments:
        y_true: numbers of places, [B] or [B, 1].
        y_pred: descriptors of unit length, [B, D]; checked as in `SARELoss`.

    Output shape:
        [B] from `call`; reduced as `reduction` says from `__call__`.

    Example:

    ```python
    network = sare_tf.PlaceNetwork(embedder)
    network.compile("adam", sare_tf.losses.PlaceCosFaceLoss(num_places=1000))
    network.fit(images, labels)
    ```
    """

    # Labels are numbers of places in the dataset, not only in the batch.
    has_classes = True

    def __init__(
        self,
        *,
        num_places: int,
        margin: float = 0.4,
        scale: float = 30.0,
        group_sizes: Sequence[int] | None = None,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "place_cosface_loss",
        dtype: DType = None,
    ):
        if group_sizes is not None and sum(group_sizes) != num_places:
            raise ValueError(
                "Expected as many places as are in the groups. Received: "
                f"num_places={num_places}, {sum(group_sizes)} in group_sizes="
                f"{list(group_sizes)}."
            )
        super().__init__(
            num_places=num_places,
            margin=margin,
            scale=scale,
            group_sizes=group_sizes and list(group_sizes),
            reduction=reduction,
            name=name,
            dtype=dtype,
        )
        self.layer = PlaceClassifier(num_places)

    def __call__(self, y_true, y_pred, sample_weight=None):
        if not hasattr(y_pred, "shape"):
            y_pred = ops.convert_to_tensor(y_pred)
        labels, y_pred = place_labels.checked_classes(
            y_true, y_pred, count=self.num_places
        )
        digits = place_labels.to_digits(labels)
        return super().__call__(digits, y_pred, sample_weight)

    def call(self, y_true, y_pred):
        descriptors = distances.images(y_pred)
        distances.check_unit_length(descriptors)
        return place_cosface(
            place_labels.from_digits(y_true),
            self.layer(descriptors),
            margin=self.margin,
            scale=self.scale,
            group_sizes=self.group_sizes,
        )
