"""SARE over place batches: every other place in the batch repels.

Axis letters: B images of a batch, also the anchors; M images in a memory of
earlier batches; C = B + M; N negatives that repel an anchor; D descriptor
length. Labels say which images show the same place. Everything is float32.
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

    With `hardest_negatives`, only the most similar images of other places
    repel an anchor, as many as it says.

    With several replicas each sees its own part of the batch, and only that;
    in a `PlaceNetwork`, all of it.

    Memory: B * C numbers; B * C * N for the independent form.

    Source: Liu, Li, Dai, ICCV 2019, for a pair and its negatives; the batch as
    in Oh Song et al., "Deep Metric Learning via Lifted Structured Feature
    Embedding", CVPR 2016.

    Args:
        form: "joint" or "independent".
        kernel: "gaussian", "cauchy" or "exponential".
        inverse_bandwidth: factor on the squared distances; 1 is the paper's.
        hardest_negatives: how many images of other places repel an anchor; 0
            for all.
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
        hardest_negatives=0,
        reduction="sum_over_batch_size",
        name="place_sare_loss",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        sare.check_form(form)
        kernels.check(kernel=kernel, inverse_bandwidth=inverse_bandwidth)
        if hardest_negatives < 0:
            raise ValueError(
                "Expected hardest_negatives to be a number of images, or 0 for "
                f"all. Received: hardest_negatives={hardest_negatives}."
            )
        self.form = form
        self.kernel = kernel
        self.inverse_bandwidth = inverse_bandwidth
        self.hardest_negatives = hardest_negatives

    def call(self, y_true, y_pred):
        distances.check_unit_length(y_pred)
        descriptors = distances.images(y_pred)
        positives, negatives = distances.same_place(y_true)
        return self._of_anchors(
            distances.pairwise_distances(descriptors), positives, negatives
        )

    def call_with_memory(self, y_true, y_pred, *, memory, counts):
        """The same with images of earlier batches, to which nothing is learnt.

        They attract and repel the images of the batch, as others of it do.

        Args:
            y_true: labels of the batch, [B] or [B, 1].
            y_pred: its descriptors, [B, D].
            memory: labels [M] and descriptors [M, D] of earlier images.
            counts: bool [B, M], which of them count for which anchor.

        Returns:
            Loss per anchor, float32 [B].

        Raises:
            ValueError: descriptors of another rank or length.
        """
        distances.check_unit_length(y_pred)
        descriptors = distances.images(y_pred)
        positives, negatives = distances.same_place(y_true)
        labels, remembered = memory
        same = ops.reshape(y_true, (-1, 1)) == ops.reshape(labels, (1, -1))
        return self._of_anchors(
            ops.concatenate(
                [
                    distances.pairwise_distances(descriptors),
                    distances.cross_distances(
                        descriptors,
                        ops.stop_gradient(distances.images(remembered)),
                    ),
                ],
                axis=1,
            ),
            ops.concatenate([positives, ops.logical_and(counts, same)], axis=1),
            ops.concatenate(
                [negatives, ops.logical_and(counts, ops.logical_not(same))],
                axis=1,
            ),
        )

    def _of_anchors(self, squared_distances, positives, negatives):
        """[B, C] each -> [B]."""
        log_similarities = kernels.log_kernel(
            squared_distances,
            kernel=self.kernel,
            inverse_bandwidth=self.inverse_bandwidth,
        )
        repelling = ops.where(negatives, log_similarities, _NEVER)  # [B, N]
        if self.hardest_negatives:
            repelling = ops.sort(repelling, axis=1)
            repelling = repelling[:, -self.hardest_negatives :]
        pairs = _PAIR_LOSSES[self.form](log_similarities, repelling)
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
            "hardest_negatives": self.hardest_negatives,
        }


def _joint(log_similarities, repelling):
    """Loss of each anchor, row, with each image as its positive, column."""
    repulsion = ops.logsumexp(repelling, axis=1, keepdims=True)  # [B, 1]
    return ops.softplus(repulsion - log_similarities)


def _independent(log_similarities, repelling):
    """Loss of each anchor, row, with each image as its positive, column."""
    # What never repels, at _NEVER, adds softplus of it: 0.
    repulsion = repelling[:, None, :] - log_similarities[:, :, None]
    count = ops.sum(ops.cast(repelling > _NEVER, "float32"), axis=1)  # [B]
    total = ops.sum(ops.softplus(repulsion), axis=-1)  # [B, C]
    return total / ops.maximum(count, 1.0)[:, None]


_PAIR_LOSSES = {"joint": _joint, "independent": _independent}
