"""Checks of what the methods of a Keras model are given: images and metrics."""

import keras

from sare_tf.model import compiled_metrics, image_range


class ChecksData:
    """Checks data before Keras makes a graph of it; a base beside keras.Model.

    Images that are not in 0..255 get a warning, see `image_range`. A graph that
    trains looks at them itself, unless XLA or JAX compile it. Accuracies of
    classes are refused.
    """

    def fit(self, x=None, *args, **kwargs):
        if self.jit_compile:
            image_range.look_at_data(self, x)
        return super().fit(x, *args, **kwargs)

    def evaluate(self, x=None, *args, **kwargs):
        image_range.look_at_data(self, x)
        return super().evaluate(x, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        image_range.look_at_data(self, x)
        return super().predict(x, *args, **kwargs)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        compiled_metrics.refuse_accuracy(self)
        return super().compute_metrics(x, y, y_pred, sample_weight)


@keras.saving.register_keras_serializable(package="sare_tf")
class Embedder(ChecksData, keras.Model):
    """Images to descriptors: a functional model, see `build_embedder`.

    Call arguments:
        images: RGB, 0..255.

    Input shape:
        [B, H, W, 3].

    Output shape:
        [B, D].
    """
