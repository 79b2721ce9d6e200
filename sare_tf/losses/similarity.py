"""Losses of TensorFlow Similarity over place batches.

An extra: `pip install "sare_tf[similarity]"`, for which there are wheels for
Linux on x86. TensorFlow Similarity 0.17.1 is from before Keras 3. Its losses
run there once they are given a `reduction` and compiled by `tf.function`, which
is what this does. It is imported when a loss is made; TensorFlow alone runs it.
"""

import importlib
import inspect

import keras
from keras import ops

from sare_tf.losses import distances

LOSSES = {
    "multi_similarity": "MultiSimilarityLoss",
    "circle": "CircleLoss",
    "soft_nearest_neighbor": "SoftNearestNeighborLoss",
    "pn": "PNLoss",
    "triplet": "TripletLoss",
}


@keras.saving.register_keras_serializable(package="sare_tf")
class SimilarityLoss(keras.losses.Loss):
    """A loss of TensorFlow Similarity as a Keras 3 loss.

    Source: github.com/tensorflow/similarity, tensorflow_similarity/losses,
    which names the paper of each.

    Args:
        loss: "multi_similarity", "circle", "soft_nearest_neighbor", "pn" or
            "triplet".
        reduction: how Keras reduces [B]; its default is the mean over anchors.
        name: of the loss.
        dtype: of the returned values.
        **settings: further arguments of that loss there, such as `margin`,
            `temperature`, or `distance` by its name.

    Call arguments:
        y_true: labels of places, [B] or [B, 1]. Keras casts them to float32:
            use whole numbers below 2 ** 24.
        y_pred: descriptors, [B, D]; unit length is expected, not checked.

    Output shape:
        [B] from `call`; what `reduction` makes of it from `__call__`.

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
        # Here, so that the other losses do without it on other backends.
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
        # They count on AutoGraph, which Keras 3 does not apply to losses.
        self._function = tf.function(theirs(reduction="none", **settings).call)

    def call(self, y_true, y_pred):
        descriptors = distances.images(y_pred)
        labels = ops.reshape(y_true, (-1,))
        # Theirs return [B] or [B, 1].
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
