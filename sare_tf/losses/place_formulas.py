"""The mathematics of the losses of TensorFlow Addons, over place batches.

TensorFlow Addons 0.23 has reached its end of life and cannot be imported with
TensorFlow 2.16 or later. These are its metric-learning losses over labels and
descriptors, with the same defaults and the same values.

Axis letters: B images of a batch, also the anchors; D descriptor length. Images
with equal labels show the same place. Distances e are Euclidean, not squared,
unless `squared` is set. Everything is float32.

Each loss returns one value per anchor; their mean over the batch is the scalar
that TensorFlow Addons computes. Where that scalar is a mean over positive
pairs, the value of an anchor is the sum over its pairs, times B, divided by the
number of pairs in the batch. With K images of each place, this is the mean over
its positives. A batch without positives, or an anchor without negatives, gives
0 where TensorFlow Addons gives NaN or a constant.
"""

from keras import ops

from sare_tf.losses import distances, place_labels, settings

# Beyond every distance; its exponential, negative, is 0 in float32.
_FAR = 1e30


def place_contrastive(labels, descriptors, *, margin=1.0):
    """Mean over the other images of the contrastive loss of a pair.

    The loss of a pair is e^2 for two images of one place, and
    max(margin - e, 0)^2 for images of two places. The mean over anchors is the
    mean over all pairs: the value of `tfa.losses.ContrastiveLoss` for the
    distances of all pairs.

    Source: Hadsell et al., "Dimensionality Reduction by Learning an Invariant
    Mapping", CVPR 2006, section 2.

    Args:
        labels: labels of places, [B] or [B, 1]; see `place_labels`.
        descriptors: [B, D].
        margin: distance beyond which two places have no effect.

    Returns:
        Loss per anchor, float32 [B].

    Raises:
        ValueError: descriptors of another rank, labels that
            `place_labels.checked` refuses, or a margin that is not positive.
    """
    settings.check(margin=margin)
    descriptors, positives, negatives = _pairs(labels, descriptors)
    squared = distances.pairwise_distances(descriptors)
    repulsion = ops.square(ops.relu(margin - distances.root(squared)))
    pairs = ops.where(positives, squared, ops.where(negatives, repulsion, 0.0))
    others = ops.cast(ops.shape(pairs)[0] - 1, "float32")
    return ops.sum(pairs, axis=1) / ops.maximum(others, 1.0)


def place_triplet_semihard(labels, descriptors, *, margin=1.0, squared=False):
    """Mean over positive pairs of max(e_p - e_n + margin, 0), n semi-hard.

    The negative of a pair is the one nearest to the anchor among the negatives
    that are farther than the positive. Where none is farther, it is the
    farthest negative.

    Memory: B * B * B numbers, as in TensorFlow Addons.

    Source: Schroff et al., "FaceNet: A Unified Embedding for Face Recognition
    and Clustering", CVPR 2015, section 3; `tfa.losses.TripletSemiHardLoss`.

    Args:
        labels: labels of places, [B] or [B, 1]; see `place_labels`.
        descriptors: [B, D].
        margin: between the two distances.
        squared: whether to compare squared instead of Euclidean distances.

    Returns:
        Loss per anchor, float32 [B].

    Raises:
        ValueError: descriptors of another rank, labels that
            `place_labels.checked` refuses, or a margin that is not positive.
    """
    settings.check(margin=margin)
    descriptors, positives, negatives = _pairs(labels, descriptors)
    apart = _pairwise(descriptors, squared)
    farther = ops.logical_and(
        negatives[:, None, :], apart[:, None, :] > apart[:, :, None]
    )  # [B, B, B]: anchor, positive, negative
    nearest = ops.min(ops.where(farther, apart[:, None, :], _FAR), axis=-1)
    farthest = ops.max(ops.where(negatives, apart, 0.0), axis=1, keepdims=True)
    semihard = ops.where(ops.any(farther, axis=-1), nearest, farthest)
    pairs = ops.relu(apart - semihard + margin)
    return _mean_over_pairs(_with_negatives(pairs, negatives), positives)


def place_triplet_hard(
    labels, descriptors, *, margin=1.0, soft=False, squared=False
):
    """max(e_p - e_n + margin, 0) of the hardest images of each anchor.

    The hardest positive is the farthest, the hardest negative the nearest. An
    anchor without a positive is its own positive, at distance 0.

    Source: Hermans et al., "In Defense of the Triplet Loss for Person
    Re-Identification", 2017, section 2; `tfa.losses.TripletHardLoss`.

    Args:
        labels: labels of places, [B] or [B, 1]; see `place_labels`.
        descriptors: [B, D].
        margin: between the two distances.
        soft: whether to use log(1 + exp(e_p - e_n)), which has no margin.
        squared: whether to compare squared instead of Euclidean distances.

    Returns:
        Loss per anchor, float32 [B].

    Raises:
        ValueError: descriptors of another rank, labels that
            `place_labels.checked` refuses, or a margin that is not positive.
    """
    settings.check(margin=margin)
    descriptors, positives, negatives = _pairs(labels, descriptors)
    apart = _pairwise(descriptors, squared)
    farthest = ops.max(ops.where(positives, apart, 0.0), axis=1)
    nearest = ops.min(ops.where(negatives, apart, _FAR), axis=1)
    excess = farthest - nearest
    losses = ops.softplus(excess) if soft else ops.relu(excess + margin)
    return _with_negatives(losses[:, None], negatives)[:, 0]


def place_lifted_structure(labels, descriptors, *, margin=1.0):
    """Mean over positive pairs of max(J, 0)^2 / 2.

    For a pair i, j of one place, J = e_ij + log sum exp(margin - e), the sum
    over the negatives of i and the negatives of j.

    Source: Oh Song et al., "Deep Metric Learning via Lifted Structured Feature
    Embedding", CVPR 2016, section 4; `tfa.losses.LiftedStructLoss`.

    Args:
        labels: labels of places, [B] or [B, 1]; see `place_labels`.
        descriptors: [B, D].
        margin: of distances.

    Returns:
        Loss per anchor, float32 [B].

    Raises:
        ValueError: descriptors of another rank, labels that
            `place_labels.checked` refuses, or a margin that is not positive.
    """
    settings.check(margin=margin)
    descriptors, positives, negatives = _pairs(labels, descriptors)
    apart = _pairwise(descriptors, False)
    repulsion = ops.logsumexp(
        ops.where(negatives, margin - apart, -_FAR), axis=1
    )  # [B]
    both = ops.logaddexp(repulsion[:, None], repulsion[None, :])  # [B, B]
    pairs = 0.5 * ops.square(ops.relu(apart + both))
    return _mean_over_pairs(pairs, positives)


def place_n_pairs(labels, descriptors):
    """Cross-entropy of a softmax over dot products with all images.

    The target of an anchor is uniform over the images of its place, including
    itself. This is `tfa.losses.NpairsLoss` of the labels and the products of
    the descriptors with each other.

    Source: Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss
    Objective", NIPS 2016, section 3; `tfa.losses.NpairsLoss`.

    Args:
        labels: labels of places, [B] or [B, 1]; see `place_labels`.
        descriptors: [B, D].

    Returns:
        Loss per anchor, float32 [B].

    Raises:
        ValueError: descriptors of another rank, or labels that
            `place_labels.checked` refuses.
    """
    descriptors, _, negatives = _pairs(labels, descriptors)
    products = ops.matmul(descriptors, ops.transpose(descriptors))  # [B, B]
    targets = ops.cast(ops.logical_not(negatives), "float32")
    targets = targets / ops.sum(targets, axis=1, keepdims=True)
    return -ops.sum(targets * ops.log_softmax(products, axis=1), axis=1)


def _pairs(labels, descriptors):
    """Checked descriptors, float32 [B, D]; positives, negatives: [B, B]."""
    descriptors = distances.images(descriptors)
    labels, descriptors = place_labels.checked(labels, descriptors)
    return descriptors, *place_labels.same_place(labels)


def _pairwise(descriptors, squared):
    """Euclidean distances of all pairs, or their squares, float32 [B, B]."""
    apart = distances.pairwise_distances(descriptors)
    return apart if squared else distances.root(apart)


def _with_negatives(losses, negatives):
    """Sets the rows of anchors without a negative to 0."""
    return ops.where(ops.any(negatives, axis=1, keepdims=True), losses, 0.0)


def _mean_over_pairs(pairs, positives):
    """Returns [B] whose mean is that of `pairs`, [B, B], over `positives`."""
    weights = ops.cast(positives, "float32")
    anchors = ops.cast(ops.shape(pairs)[0], "float32")
    share = anchors / ops.maximum(ops.sum(weights), 1.0)
    return ops.sum(pairs * weights, axis=1) * share
