"""The losses of TensorFlow Addons, over place batches.

TensorFlow Addons 0.23 is at its end of life and cannot be imported beside
TensorFlow 2.16 and later. These are its metric-learning losses over labels and
descriptors, with its defaults and its values.

Axis letters: B images of a batch, also the anchors; D descriptor length. Labels
say which images show the same place. Distances are Euclidean, not squared,
unless asked. Everything is float32.

With several replicas each sees its own part of the batch, and only that; in a
`PlaceNetwork`, all of it.

Each loss is one value per anchor, whose mean over the batch is the scalar that
TensorFlow Addons computes. Where that scalar is a mean over positive pairs, an
anchor's value is its sum over its pairs times B over the number of pairs in
the batch: with K images of each place, its mean over its positives. A batch
without positives, or an anchor without negatives, gives 0 where TensorFlow
Addons gives NaN or a constant.
"""

import keras
from keras import ops

from sare_tf.losses import distances

# Beyond every distance; its exponential, negative, is 0 in float32.
_FAR = 1e30


def place_contrastive(labels, descriptors, *, margin=1.0):
    """Mean over the other images of the contrastive loss of a pair.

    e^2 for two images of one place, max(margin - e, 0)^2 for two places, with e
    the distance. The mean over anchors is that over all pairs, which is what
    `tfa.losses.ContrastiveLoss` gives for the distances of all pairs.

    Source: Hadsell et al., "Dimensionality Reduction by Learning an Invariant
    Mapping", CVPR 2006, section 2.

    Args:
        labels: places, [B] or [B, 1].
        descriptors: [B, D].
        margin: distance beyond which two places do not count.

    Returns:
        Loss per anchor, float32 [B].

    Raises:
        ValueError: descriptors of another rank, or a margin not positive.
    """
    distances.check_margin(margin)
    positives, negatives = distances.same_place(labels)
    squared = distances.pairwise_distances(distances.images(descriptors))
    repulsion = ops.square(ops.relu(margin - distances.root(squared)))
    pairs = ops.where(positives, squared, ops.where(negatives, repulsion, 0.0))
    others = ops.cast(ops.shape(pairs)[0] - 1, "float32")
    return ops.sum(pairs, axis=1) / ops.maximum(others, 1.0)


def place_triplet_semihard(labels, descriptors, *, margin=1.0, squared=False):
    """Triplet loss with semi-hard negatives.

    For each pair of an anchor and a positive, the negative is the nearest to
    the anchor of those farther than the positive; where there is none, the
    farthest of all. The loss of the pair is max(e_p - e_n + margin, 0).

    Memory: B * B * B numbers, as in TensorFlow Addons.

    Source: Schroff et al., "FaceNet: A Unified Embedding for Face Recognition
    and Clustering", CVPR 2015, section 3; `tfa.losses.TripletSemiHardLoss`.

    Args:
        labels: places, [B] or [B, 1].
        descriptors: [B, D].
        margin: between the two distances.
        squared: True to compare squared distances.

    Returns:
        Loss per anchor, float32 [B].

    Raises:
        ValueError: descriptors of another rank, or a margin not positive.
    """
    distances.check_margin(margin)
    positives, negatives = distances.same_place(labels)
    apart = _pairwise(descriptors, squared)
    farther = ops.logical_and(
        negatives[:, None, :], apart[:, None, :] > apart[:, :, None]
    )  # [B, B, B]: anchor, positive, negative
    nearest = ops.min(ops.where(farther, apart[:, None, :], _FAR), axis=-1)
    farthest = ops.max(ops.where(negatives, apart, 0.0), axis=1, keepdims=True)
    chosen = ops.where(ops.any(farther, axis=-1), nearest, farthest)
    pairs = ops.relu(apart - chosen + margin)
    return _mean_over_pairs(_with_negatives(pairs, negatives), positives)


def place_triplet_hard(
    labels, descriptors, *, margin=1.0, soft=False, squared=False
):
    """Triplet loss with the hardest positive and negative of each anchor.

    max(e_p - e_n + margin, 0) of the farthest positive and the nearest
    negative. An anchor without a positive has itself as one, at distance 0.

    Source: Hermans et al., "In Defense of the Triplet Loss for Person
    Re-Identification", 2017, section 2; `tfa.losses.TripletHardLoss`.

    Args:
        labels: places, [B] or [B, 1].
        descriptors: [B, D].
        margin: between the two distances.
        soft: True for log(1 + exp(e_p - e_n)), which has no margin.
        squared: True to compare squared distances.

    Returns:
        Loss per anchor, float32 [B].

    Raises:
        ValueError: descriptors of another rank, or a margin not positive.
    """
    distances.check_margin(margin)
    positives, negatives = distances.same_place(labels)
    apart = _pairwise(descriptors, squared)
    farthest = ops.max(ops.where(positives, apart, 0.0), axis=1)
    nearest = ops.min(ops.where(negatives, apart, _FAR), axis=1)
    excess = farthest - nearest
    losses = ops.softplus(excess) if soft else ops.relu(excess + margin)
    return _with_negatives(losses[:, None], negatives)[:, 0]


def place_lifted_structure(labels, descriptors, *, margin=1.0):
    """Lifted structure: the negatives of both images of a pair repel.

    max(J, 0)^2 / 2 for each pair i, j of one place, with J = e_ij + log of the
    sum of exp(margin - e) over the negatives of i and those of j.

    Source: Oh Song et al., "Deep Metric Learning via Lifted Structured Feature
    Embedding", CVPR 2016, section 4; `tfa.losses.LiftedStructLoss`.

    Args:
        labels: places, [B] or [B, 1].
        descriptors: [B, D].
        margin: of distances.

    Returns:
        Loss per anchor, float32 [B].

    Raises:
        ValueError: descriptors of another rank, or a margin not positive.
    """
    distances.check_margin(margin)
    positives, negatives = distances.same_place(labels)
    apart = _pairwise(descriptors, False)
    repulsion = ops.logsumexp(
        ops.where(negatives, margin - apart, -_FAR), axis=1
    )  # [B]
    both = ops.logaddexp(repulsion[:, None], repulsion[None, :])  # [B, B]
    pairs = 0.5 * ops.square(ops.relu(apart + both))
    return _mean_over_pairs(pairs, positives)


def place_n_pairs(labels, descriptors):
    """N-pairs: cross-entropy of a softmax over dot products.

    The target of an anchor is uniform over the images of its place, itself
    among them: `tfa.losses.NpairsLoss` of labels and the products of the
    descriptors with each other.

    Source: Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss
    Objective", NIPS 2016, section 3; `tfa.losses.NpairsLoss`.

    Args:
        labels: places, [B] or [B, 1].
        descriptors: [B, D].

    Returns:
        Loss per anchor, float32 [B].

    Raises:
        ValueError: descriptors of another rank.
    """
    _, negatives = distances.same_place(labels)
    descriptors = distances.images(descriptors)
    products = ops.matmul(descriptors, ops.transpose(descriptors))  # [B, B]
    targets = ops.cast(ops.logical_not(negatives), "float32")
    targets = targets / ops.sum(targets, axis=1, keepdims=True)
    return -ops.sum(targets * ops.log_softmax(products, axis=1), axis=1)


class _PlaceLoss(keras.losses.Loss):
    """A function of labels, descriptors and settings, as a Keras loss."""

    def __init__(self, function, *, reduction, name, dtype, **settings):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if "margin" in settings:
            distances.check_margin(settings["margin"])
        self._function = function
        self._settings = settings

    def call(self, y_true, y_pred):
        return self._function(y_true, y_pred, **self._settings)

    def get_config(self):
        return {**super().get_config(), **self._settings}


@keras.saving.register_keras_serializable(package="sare_tf")
class PlaceContrastiveLoss(_PlaceLoss):
    """The contrastive loss of all pairs of a place batch.

    Source and formula: `place_contrastive`; as TensorFlow Addons 0.23.

    Args:
        margin: distance beyond which two places do not count.
        reduction: how Keras reduces [B]; its default is the mean over anchors.
        name: of the loss.
        dtype: of the returned values.

    Call arguments:
        y_true: labels of places, [B] or [B, 1]. Keras casts them to float32:
            use whole numbers below 2 ** 24.
        y_pred: descriptors, [B, D]; unit length is expected, not checked.

    Output shape:
        [B] from `call`; what `reduction` makes of it from `__call__`.

    Example:

    ```python
    embedder.compile("sgd", loss=sare_tf.losses.PlaceContrastiveLoss())
    embedder.fit(images, labels)
    ```
    """

    def __init__(
        self,
        *,
        margin=1.0,
        reduction="sum_over_batch_size",
        name="place_contrastive_loss",
        dtype=None,
    ):
        super().__init__(
            place_contrastive,
            reduction=reduction,
            name=name,
            dtype=dtype,
            margin=margin,
        )


@keras.saving.register_keras_serializable(package="sare_tf")
class PlaceTripletSemiHardLoss(_PlaceLoss):
    """The triplet loss with semi-hard negatives of a place batch.

    Source and formula: `place_triplet_semihard`; as TensorFlow Addons 0.23,
    whose distance "angular" is half the squared one for unit length.

    Args:
        margin: between the two distances.
        squared: True to compare squared distances.
        reduction: how Keras reduces [B]; its default is the mean over anchors.
        name: of the loss.
        dtype: of the returned values.

    Call arguments:
        y_true: labels of places, [B] or [B, 1]. Keras casts them to float32:
            use whole numbers below 2 ** 24.
        y_pred: descriptors, [B, D]; unit length is expected, not checked.

    Output shape:
        [B] from `call`; what `reduction` makes of it from `__call__`.

    Example:

    ```python
    embedder.compile("sgd", loss=sare_tf.losses.PlaceTripletSemiHardLoss())
    embedder.fit(images, labels)
    ```
    """

    def __init__(
        self,
        *,
        margin=1.0,
        squared=False,
        reduction="sum_over_batch_size",
        name="place_triplet_semihard_loss",
        dtype=None,
    ):
        super().__init__(
            place_triplet_semihard,
            reduction=reduction,
            name=name,
            dtype=dtype,
            margin=margin,
            squared=squared,
        )


@keras.saving.register_keras_serializable(package="sare_tf")
class PlaceTripletHardLoss(_PlaceLoss):
    """The triplet loss with the hardest images of a place batch.

    Source and formula: `place_triplet_hard`; as TensorFlow Addons 0.23, whose
    distance "angular" is half the squared one for unit length.

    Args:
        margin: between the two distances.
        soft: True for log(1 + exp(e_p - e_n)), which has no margin.
        squared: True to compare squared distances.
        reduction: how Keras reduces [B]; its default is the mean over anchors.
        name: of the loss.
        dtype: of the returned values.

    Call arguments:
        y_true: labels of places, [B] or [B, 1]. Keras casts them to float32:
            use whole numbers below 2 ** 24.
        y_pred: descriptors, [B, D]; unit length is expected, not checked.

    Output shape:
        [B] from `call`; what `reduction` makes of it from `__call__`.

    Example:

    ```python
    embedder.compile("sgd", loss=sare_tf.losses.PlaceTripletHardLoss())
    embedder.fit(images, labels)
    ```
    """

    def __init__(
        self,
        *,
        margin=1.0,
        soft=False,
        squared=False,
        reduction="sum_over_batch_size",
        name="place_triplet_hard_loss",
        dtype=None,
    ):
        super().__init__(
            place_triplet_hard,
            reduction=reduction,
            name=name,
            dtype=dtype,
            margin=margin,
            soft=soft,
            squared=squared,
        )


@keras.saving.register_keras_serializable(package="sare_tf")
class PlaceLiftedStructureLoss(_PlaceLoss):
    """The lifted structure loss of a place batch.

    Source and formula: `place_lifted_structure`; as TensorFlow Addons 0.23,
    which advises against unit length here.

    Args:
        margin: of distances.
        reduction: how Keras reduces [B]; its default is the mean over anchors.
        name: of the loss.
        dtype: of the returned values.

    Call arguments:
        y_true: labels of places, [B] or [B, 1]. Keras casts them to float32:
            use whole numbers below 2 ** 24.
        y_pred: descriptors, [B, D], of any length.

    Output shape:
        [B] from `call`; what `reduction` makes of it from `__call__`.

    Example:

    ```python
    embedder.compile("sgd", loss=sare_tf.losses.PlaceLiftedStructureLoss())
    embedder.fit(images, labels)
    ```
    """

    def __init__(
        self,
        *,
        margin=1.0,
        reduction="sum_over_batch_size",
        name="place_lifted_structure_loss",
        dtype=None,
    ):
        super().__init__(
            place_lifted_structure,
            reduction=reduction,
            name=name,
            dtype=dtype,
            margin=margin,
        )


@keras.saving.register_keras_serializable(package="sare_tf")
class PlaceNPairsLoss(_PlaceLoss):
    """The N-pairs loss of a place batch.

    Source and formula: `place_n_pairs`; as TensorFlow Addons 0.23 over the
    products of all descriptors.

    Args:
        reduction: how Keras reduces [B]; its default is the mean over anchors.
        name: of the loss.
        dtype: of the returned values.

    Call arguments:
        y_true: labels of places, [B] or [B, 1]. Keras casts them to float32:
            use whole numbers below 2 ** 24.
        y_pred: descriptors, [B, D], of any length.

    Output shape:
        [B] from `call`; what `reduction` makes of it from `__call__`.

    Example:

    ```python
    embedder.compile("sgd", loss=sare_tf.losses.PlaceNPairsLoss())
    embedder.fit(images, labels)
    ```
    """

    def __init__(
        self,
        *,
        reduction="sum_over_batch_size",
        name="place_n_pairs_loss",
        dtype=None,
    ):
        super().__init__(
            place_n_pairs, reduction=reduction, name=name, dtype=dtype
        )


def _pairwise(descriptors, squared):
    """Distances of all pairs, or their squares, float32 [B, B]."""
    apart = distances.pairwise_distances(distances.images(descriptors))
    return apart if squared else distances.root(apart)


def _with_negatives(losses, negatives):
    """0 in the rows of anchors without a negative."""
    return ops.where(ops.any(negatives, axis=1, keepdims=True), losses, 0.0)


def _mean_over_pairs(pairs, positives):
    """[B, B] -> [B], whose mean is the mean of `pairs` over `positives`."""
    weights = ops.cast(positives, "float32")
    anchors = ops.cast(ops.shape(pairs)[0], "float32")
    share = anchors / ops.maximum(ops.sum(weights), 1.0)
    return ops.sum(pairs * weights, axis=1) * share
