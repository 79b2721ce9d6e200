"""Losses of TensorFlow Similarity over place batches.

They need the extra `pip install "sare_tf[similarity]"`, which has wheels for
Linux on x86, and the TensorFlow backend. TensorFlow Similarity 0.17.1 was
written before Keras 3. Its losses work with Keras 3 if they get a `reduction`
and are compiled by `tf.function`, as here. It is imported when a loss is made.
"""

import importlib
import inspect

import keras
from keras import ops

from sare_tf.losses import distances, place_labels
from sare_tf.losses.keras_losses import PlaceLoss

LOSSES = {
    "multi_similarity": "MultiSimilarityLoss",
    "circle": "CircleLoss",
    "soft_nearest_neighbor": "SoftNearestNeighborLoss",
    "pn": "PNLoss",
    "triplet": "TripletLoss",
}


@keras.saving.register_keras_serializable(package="sare_tf")
class SimilarityLoss(PlaceLoss):
    """A loss of TensorFlow Similarity as a Keras 3 loss.

    Source: github.com/tensorflow/similarity, tensorflow_similarity/losses,
    which names the paper of each loss.

    Args:
        loss: "multi_similarity", "circle", "soft_nearest_neighbor", "pn" or
            "triplet".
        reduction: how Keras reduces [B]; its default is the mean.
        name: of the loss.
        dtype: of the returned values.
        **settings: further arguments of the loss in TensorFlow Similarity,
            such as `margin`, `temperature`, or the name of a `distance`.

    Call arguments:
        y_true: labels of places, [B] or [B, 1]: integers, compared exactly, or
            floating-point numbers below 2 ** 24; see `place_labels`.
        y_pred: descriptors, [B, D]; unit length is expected, not checked.

    Output shape:
        [B] from `call`; reduced as `reduction` says from `__call__`.

    Example:

    ```python
    loss = sare_tf.losses.SimilarityLoss(loss="multi_similarity")
    embedder.compile("sgd", loss=loss)
    embedder.fit(images, labels)
    ```
    """

    def __init__(
        self,
        *,
        loss,
        reduction="sum_over_batch_size",
        name="similarity_loss",
        dtype=None,
        **settings,
    ):
        # Imported here because the other backends run without TensorFlow.
        import tensorflow as tf

        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if loss not in LOSSES:
            raise ValueError(
                f"Expected loss to be one of {sorted(LOSSES)}. "
                f"Received: loss={loss!r}."
            )
        self.loss = loss
        self.settings = settings
        theirs = getattr(_tensorflow_similarity(), LOSSES[loss])
        known = set(inspect.signature(theirs).parameters) - {"name", "kwargs"}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ValueError(
                f"Expected settings of {loss}: {', '.join(sorted(known))}. "
                f"Received: {unknown}."
            )
        # These losses need AutoGraph, which Keras 3 does not apply to losses.
        self._function = tf.function(theirs(reduction="none", **settings).call)

    def call(self, y_true, y_pred):
        labels, descriptors = place_labels.checked(
            place_labels.from_digits(y_true), distances.images(y_pred)
        )
        # float32, as Keras gives labels to losses.
        labels = ops.cast(place_labels.numbers(labels), "float32")
        # TensorFlow Similarity returns [B] or [B, 1].
        return ops.reshape(self._function(labels, descriptors), (-1,))

    def get_config(self):
        return {**super().get_config(), "loss": self.loss, **self.settings}


def _tensorflow_similarity():
    try:
        return importlib.import_module("tensorflow_similarity.losses")
    except ModuleNotFoundError as error:
        raise ImportError(
            "Expected TensorFlow Similarity to be installed. Received: "
            f'{error}. Run pip install "sare_tf[similarity]".'
        ) from error
