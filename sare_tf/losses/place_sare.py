"""SARE over place batches: every other place in the batch repels.

Axis letters: B images of a batch, also the anchors; M images in a memory of
earlier batches; C = B + M; N negatives that repel an anchor; D descriptor
length. Images with equal labels show the same place. Everything is float32.
"""

import keras
from keras import ops

from sare_tf.losses import distances, kernels, miners, place_labels
from sare_tf.losses.bandwidth import InverseBandwidth
from sare_tf.losses.keras_losses import PlaceLoss, Reduction

# The exponential is 0 in float32; sums and differences are finite.
_NEVER = -1e30


@keras.saving.register_keras_serializable(package="sare_tf")
class PlaceSARELoss(PlaceLoss):
    """SARE over labelled images instead of mined tuples.

    Every image of the batch is an anchor. Every other image of its place is a
    positive. Each positive competes with all images of all other places in the
    batch, jointly or independently as in `SARELoss`. The loss of an anchor is
    the mean over its positives, or 0 if it has no positive or no negative.

    With `hardest_negatives`, only that many images of other places, the most
    similar ones, repel an anchor. With `miner="multi_similarity"`, only pairs
    that are hard for the anchor count, see `miners.mined`; of their negatives,
    `hardest_negatives` then takes the most similar ones.

    With several replicas, each replica computes the loss of its own part of the
    batch; in a `PlaceNetwork`, the loss of the whole batch.

    Memory: B * C numbers; B * C * N for the independent form.

    Source: Liu, Li, Dai, ICCV 2019, for a pair and its negatives; the batch as
    in Oh Song et al., "Deep Metric Learning via Lifted Structured Feature
    Embedding", CVPR 2016.

    Args:
        form: "joint" or "independent".
        kernel: "gaussian", "cauchy" or "exponential".
        inverse_bandwidth: factor on the squared distances, or an
            `InverseBandwidth`, which changes; 1 is the paper's.
        hardest_negatives: number of images of other places that repel an
            anchor; 0 for all.
        miner: "none" for all pairs, or "multi_similarity".
        reduction: how Keras reduces [B]; its default is the mean.
        name: of the loss.
        **kwargs: `dtype`, of the returned values.

    Call arguments:
        y_true: labels of places, [B] or [B, 1]: integers, compared exactly, or
            floating-point numbers below 2 ** 24; see `place_labels`.
        y_pred: descriptors of unit length, [B, D]; checked as in `SARELoss`.

    Output shape:
        [B] from `call`; reduced as `reduction` says from `__call__`.

    Example:

    ```python
    embedder.compile(optimizer="sgd", loss=sare_tf.PlaceSARELoss())
    embedder.fit(images, labels)
    ```
    """

    def __init__(
        self,
        *,
        form: str = "joint",
        kernel: str = "gaussian",
        inverse_bandwidth: float | InverseBandwidth = 1.0,
        hardest_negatives: int = 0,
        miner: str = "none",
        reduction: Reduction = "sum_over_batch_size",
        name: str = "place_sare_loss",
        **kwargs,
    ):
        super().__init__(
            form=form,
            kernel=kernel,
            inverse_bandwidth=inverse_bandwidth,
            hardest_negatives=hardest_negatives,
            miner=miner,
            reduction=reduction,
            name=name,
            **{"dtype": None, **kwargs},
        )

    def call(self, y_true, y_pred):
        return self.call_with_weights(y_true, y_pred, positive_weights=None)

    def call_with_weights(self, y_true, y_pred, *, positive_weights):
        """Computes the loss with weights of the positive pairs.

        The loss of an anchor is then the weighted mean over its positives.

        Args:
            y_true: labels of the batch, [B] or [B, 1].
            y_pred: descriptors of the batch, [B, D].
            positive_weights: weight of each pair if it is a positive, [B, B],
                of at least 0; None for 1.

        Returns:
            Loss per anchor, float32 [B].

        Raises:
            ValueError: as `call_with_memory`.
        """
        _, descriptors, positives, negatives = self._pairs(y_true, y_pred)
        return self._of_anchors(
            distances.pairwise_distances(descriptors),
            positives,
            negatives,
            positive_weights,
        )

    def call_with_memory(self, y_true, y_pred, *, memory, counts):
        """Computes the loss with images of earlier batches as well.

        They attract and repel the images of the batch like other images of it,
        but get no gradient.

        Args:
            y_true: labels of the batch, [B] or [B, 1].
            y_pred: descriptors of the batch, [B, D].
            memory: labels [M] and descriptors [M, D] of earlier images.
            counts: bool [B, M], whether an earlier image counts for an anchor.

        Returns:
            Loss per anchor, float32 [B].

        Raises:
            ValueError: descriptors of another rank or length, or labels that
                `place_labels.checked` refuses.
        """
        labels, descriptors, positives, negatives = self._pairs(y_true, y_pred)
        remembered_labels, remembered = memory
        same = labels[:, None] == ops.reshape(remembered_labels, (1, -1))
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

    def _pairs(self, y_true, y_pred):
        """Checked labels, descriptors, positives and negatives."""
        distances.check_unit_length(y_pred)
        labels, descriptors = place_labels.checked(
            place_labels.from_digits(y_true), distances.images(y_pred)
        )
        return labels, descriptors, *place_labels.same_place(labels)

    def _of_anchors(
        self, squared_distances, positives, negatives, positive_weights=None
    ):
        """Returns the loss of every anchor, [B], from [B, C] each."""
        positives, negatives = miners.mined(
            # Cosines of unit vectors.
            1.0 - 0.5 * squared_distances,
            positives,
            negatives,
            miner=self.miner,
        )
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
        if positive_weights is not None:
            weights = weights * ops.cast(positive_weights, "float32")
        total = ops.sum(pairs * weights, axis=1)
        count = ops.sum(weights, axis=1)
        return total / ops.where(count > 0.0, count, 1.0)


def _joint(log_similarities, repelling):
    """Loss of each anchor (row) with each image as its positive (column)."""
    repulsion = ops.logsumexp(repelling, axis=1, keepdims=True)  # [B, 1]
    return ops.softplus(repulsion - log_similarities)


def _independent(log_similarities, repelling):
    """Loss of each anchor (row) with each image as its positive (column)."""
    # Images that do not repel are at _NEVER, whose softplus is 0.
    repulsion = repelling[:, None, :] - log_similarities[:, :, None]
    count = ops.sum(ops.cast(repelling > _NEVER, "float32"), axis=1)  # [B]
    total = ops.sum(ops.softplus(repulsion), axis=-1)  # [B, C]
    return total / ops.maximum(count, 1.0)[:, None]


_PAIR_LOSSES = {"joint": _joint, "independent": _independent}
