"""SARE over place batches: every other place in the batch repels.

Axis letters: B images of a batch, also the anchors; D descriptor length.
Labels say which images show the same place. Everything is float32.
"""

import keras
from keras import ops

from sare_tf.losses import distances, kernels, sare

# Its exponential is 0 in float32, and its sums and differences are finite.
_NEVER = -1e30


@keras.saving.register_keras_serializable(package="sare_tf")
class PlaceSARELoss(keras.losses.Loss):
    """SARE over labelled images instead of mined tuples.

    Every image is an anchor. Every other image of its place is a positive, and
    each of them competes with all images of all other places in the batch,
    jointly or independently as in `SARELoss`. The loss of an anchor is the
    mean over its positives; 0 if it has no positive or no negative.

    With several replicas each sees its own part of the batch, and only that.

    Memory: B * B numbers; B * B * B for the independent form.

    Source: Liu, Li, Dai, ICCV 2019, for a pair and its negatives; the batch as
    in Oh Song et al., "Deep Metric Learning via Lifted Structured Feature
    Embedding", CVPR 2016.

    Args:
        form: "joint" or "independent".
        kernel: "gaussian", "cauchy" or "exponential".
        inverse_bandwidth: factor on the squared distances; 1 is the paper's.
        reduction: how Keras reduces [B]; its default is the mean over anchors.
        name: of the loss.
        dtype: of the returned values.

    Call arguments:
        y_true: labels of places, [B] or [B, 1]. Keras casts them to float32:
            use whole numbers below 2 ** 24.
        y_pred: descriptors of unit length, [B, D]; checked as in `SARELoss`.

    Output shape:
        [B] from `call`; what `reduction` makes of it from `__call__`.

    Example:

    ```python
    embedder.compile(optimizer="sgd", loss=sare_tf.PlaceSARELoss())
    embedder.fit(images, labels)
    ```
    """

    def __init__(
        self,
        *,
        form="joint",
        kernel="gaussian",
        inverse_bandwidth=1.0,
        reduction="sum_over_batch_size",
        name="place_sare_loss",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        sare.check_form(form)
        kernels.check(kernel=kernel, inverse_bandwidth=inverse_bandwidth)
        self.form = form
        self.kernel = kernel
        self.inverse_bandwidth = inverse_bandwidth

    def call(self, y_true, y_pred):
        distances.check_unit_length(y_pred)
        descriptors = distances.images(y_pred)
        positives, negatives = distances.same_place(y_true)
        log_similarities = kernels.log_kernel(
            distances.pairwise_distances(descriptors),
            kernel=self.kernel,
            inverse_bandwidth=self.inverse_bandwidth,
        )
        pairs = _PAIR_LOSSES[self.form](log_similarities, negatives)
        weights = ops.logical_and(
            positives, ops.any(negatives, axis=1, keepdims=True)
        )
        weights = ops.cast(weights, "float32")
        total = ops.sum(pairs * weights, axis=1)
        return total / ops.maximum(ops.sum(weights, axis=1), 1.0)

    def get_config(self):
        return {
            **super().get_config(),
            "form": self.form,
            "kernel": self.kernel,
            "inverse_bandwidth": self.inverse_bandwidth,
        }


def _joint(log_similarities, negatives):
    """Loss of each anchor, row, with each image as its positive, column."""
    repulsion = ops.logsumexp(
        ops.where(negatives, log_similarities, _NEVER), axis=1, keepdims=True
    )  # [B, 1]
    return ops.softplus(repulsion - log_similarities)


def _independent(log_similarities, negatives):
    """Loss of each anchor, row, with each image as its positive, column."""
    repulsion = log_similarities[:, None, :] - log_similarities[:, :, None]
    weights = ops.cast(negatives, "float32")[:, None, :]  # [B, 1, B]
    total = ops.sum(ops.softplus(repulsion) * weights, axis=-1)
    return total / ops.maximum(ops.sum(weights, axis=-1), 1.0)


_PAIR_LOSSES = {"joint": _joint, "independent": _independent}
