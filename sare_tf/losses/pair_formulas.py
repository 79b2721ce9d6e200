"""The mathematics of losses over the cosines of all pairs of a place batch.

Axis letters: B images of a batch, also the anchors; D descriptor length; L bins
of a histogram. Images with equal labels show the same place. s is the cosine of
two descriptors, which have unit length; eager calls check that. P are the
positives of an anchor, the other images of its place, and N its negatives, the
images of other places. Everything is float32.

Each loss returns one value per anchor, which is 0 for an anchor that has
nothing to learn from. Their mean over all anchors, also over those, is the loss
of the batch.

With `positive_weights`, [B, B], a pair of one place counts as much as its
weight: in a mean over positives as that share, in a sum of exponentials as a
factor. A weight of 0 leaves a pair out.
"""

import numpy as np
from keras import ops

from sare_tf.losses import distances, miners, place_labels, settings

# The exponential is 0 in float32; sums and differences are finite.
_NEVER = -1e30


def place_multi_similarity(
    labels,
    descriptors,
    *,
    alpha=1.0,
    beta=50.0,
    base=0.0,
    miner="multi_similarity",
    positive_weights=None,
):
    """Multi-Similarity, over pairs that its miner keeps.

        log(1 + sum_P exp(-alpha (s - base))) / alpha
        + log(1 + sum_N exp(beta (s - base))) / beta

    The defaults are those of SALAD and of networks after it; Wang et al. have
    alpha 2, beta 50 and base 1.

    Source: Wang et al., "Multi-Similarity Loss with General Pair Weighting for
    Deep Metric Learning", CVPR 2019, equation 13; the miner, equations 11, 12.

    Args:
        labels: labels of places, [B] or [B, 1]; see `place_labels`.
        descriptors: [B, D], of unit length.
        alpha: factor on the cosines of positives.
        beta: factor on the cosines of negatives.
        base: cosine that is taken off all cosines.
        miner: "multi_similarity", or "none" for all pairs.
        positive_weights: weights of positive pairs, [B, B]; None for 1.

    Returns:
        Loss per anchor, float32 [B].

    Raises:
        ValueError: descriptors of another rank or length, labels that
            `place_labels.checked` refuses, or an unknown setting.
    """
    settings.check(alpha=alpha, beta=beta, base=base)
    similarities, positives, negatives = _pairs(labels, descriptors, miner)
    weights = _weights(positives, positive_weights)
    attraction = _log_sum(alpha * (base - similarities), weights)
    repulsion = _log_sum(
        beta * (similarities - base), ops.cast(negatives, "float32")
    )
    return ops.softplus(attraction) / alpha + ops.softplus(repulsion) / beta


def place_nt_xent(
    labels,
    descriptors,
    *,
    temperature=0.07,
    miner="none",
    positive_weights=None,
):
    """NT-Xent, or InfoNCE: one positive against all negatives at a time.

        mean over p in P of log(1 + sum_N exp((s_n - s_p) / temperature))

    Other positives are not in the sum. This is SARE, joint and Gaussian, with
    an inverse bandwidth of 1 / (2 temperature).

    Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual
    Representations", ICML 2020, equation 1; van den Oord et al.,
    "Representation Learning with Contrastive Predictive Coding", 2018.

    Args:
        labels: labels of places, [B] or [B, 1]; see `place_labels`.
        descriptors: [B, D], of unit length.
        temperature: divisor of the cosines.
        miner: "none" for all pairs, or "multi_similarity".
        positive_weights: weights of positive pairs, [B, B]; None for 1.

    Returns:
        Loss per anchor, float32 [B].

    Raises:
        ValueError: descriptors of another rank or length, labels that
            `place_labels.checked` refuses, or an unknown setting.
    """
    settings.check(temperature=temperature)
    similarities, positives, negatives = _pairs(labels, descriptors, miner)
    logits = similarities / temperature
    repulsion = _log_sum(logits, ops.cast(negatives, "float32"))
    pairs = ops.softplus(repulsion[:, None] - logits)
    return _mean(pairs, _weights(positives, positive_weights))


def place_sup_con(
    labels,
    descriptors,
    *,
    temperature=0.07,
    miner="none",
    positive_weights=None,
):
    """SupCon: cross-entropy over all other images, a mean over positives.

        mean over p in P of log(sum over P and N of exp(s / t)) - s_p / t

    Unlike in `place_nt_xent`, the positives of an anchor compete with each
    other: the loss of an anchor is at least the logarithm of their number.

    Source: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020,
    equation 2 (the sum outside of the logarithm).

    Args:
        labels: labels of places, [B] or [B, 1]; see `place_labels`.
        descriptors: [B, D], of unit length.
        temperature: t, divisor of the cosines.
        miner: "none" for all pairs, or "multi_similarity".
        positive_weights: weights of positive pairs in the mean, [B, B]; None
            for 1.

    Returns:
        Loss per anchor, float32 [B].

    Raises:
        ValueError: descriptors of another rank or length, labels that
            `place_labels.checked` refuses, or an unknown setting.
    """
    settings.check(temperature=temperature)
    similarities, positives, negatives = _pairs(labels, descriptors, miner)
    logits = similarities / temperature
    counted = ops.cast(ops.logical_or(positives, negatives), "float32")
    everything = _log_sum(logits, counted)
    weights = _weights(positives, positive_weights)
    return _mean(everything[:, None] - logits, weights)


def place_circle(
    labels,
    descriptors,
    *,
    margin=0.4,
    scale=80.0,
    miner="none",
    positive_weights=None,
):
    """Circle: pairs far from their optimum are weighted more.

        log(1 + sum_P exp(-g a_p (s_p - 1 + m)) sum_N exp(g a_n (s_n - m)))

    with the scale g, the margin m, and the weights a_p = max(1 + m - s_p, 0)
    and a_n = max(s_n + m, 0), which have no gradient. An anchor without a
    positive or without a negative has the loss 0.

    Source: Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity
    Optimization", CVPR 2020, equations 4 to 8.

    Args:
        labels: labels of places, [B] or [B, 1]; see `place_labels`.
        descriptors: [B, D], of unit length.
        margin: m; the paper's is 0.4 for retrieval.
        scale: g; the paper's is 80 for retrieval.
        miner: "none" for all pairs, or "multi_similarity".
        positive_weights: weights of positive pairs, [B, B]; None for 1.

    Returns:
        Loss per anchor, float32 [B].

    Raises:
        ValueError: descriptors of another rank or length, labels that
            `place_labels.checked` refuses, or an unknown setting.
    """
    settings.check(margin=margin, scale=scale)
    similarities, positives, negatives = _pairs(labels, descriptors, miner)
    fixed = ops.stop_gradient(similarities)
    attraction = ops.relu(1.0 + margin - fixed) * (1.0 - margin - similarities)
    repulsion = ops.relu(fixed + margin) * (similarities - margin)
    return ops.softplus(
        _log_sum(scale * attraction, _weights(positives, positive_weights))
        + _log_sum(scale * repulsion, ops.cast(negatives, "float32"))
    )


def place_fast_ap(labels, descriptors, *, num_bins=10):
    """1 - average precision, of histograms of distances.

    Squared distances, from 0 to 4, are counted in bins with a triangular
    kernel: h in a bin, H up to it; h+ and H+ of positives only.

        1 - (sum over bins of h+ H+ / H) / the number of positives

    Memory: B * B * L numbers.

    Source: Cakir et al., "Deep Metric Learning to Rank", CVPR 2019, equations
    6 to 8 and section 3.2.

    Args:
        labels: labels of places, [B] or [B, 1]; see `place_labels`.
        descriptors: [B, D], of unit length.
        num_bins: intervals between 0 and 4; there is a bin at both ends of
            each.

    Returns:
        Loss per anchor, float32 [B].

    Raises:
        ValueError: descriptors of another rank or length, labels that
            `place_labels.checked` refuses, or an unknown setting.
    """
    settings.check(num_bins=num_bins)
    descriptors = distances.images(descriptors)
    distances.check_unit_length(descriptors)
    labels, descriptors = place_labels.checked(labels, descriptors)
    positives, negatives = place_labels.same_place(labels)
    apart = distances.pairwise_distances(descriptors)
    centres = ops.convert_to_tensor(
        np.linspace(0.0, 4.0, num_bins + 1, dtype=np.float32)
    )
    width = 4.0 / num_bins
    shares = ops.relu(1.0 - ops.abs(apart[:, :, None] - centres) / width)
    positives = ops.cast(positives, "float32")
    others = positives + ops.cast(negatives, "float32")
    of_positives = ops.sum(shares * positives[:, :, None], axis=1)  # [B, L]
    up_to = ops.cumsum(ops.sum(shares * others[:, :, None], axis=1), axis=1)
    positives_up_to = ops.cumsum(of_positives, axis=1)
    # Before the first image, both are 0.
    precision = positives_up_to / ops.where(up_to > 0.0, up_to, 1.0)
    count = ops.sum(positives, axis=1)
    average = ops.sum(of_positives * precision, axis=1)
    losses = 1.0 - average / ops.maximum(count, 1.0)
    return ops.where(count > 0.0, losses, 0.0)


def _pairs(labels, descriptors, miner):
    """Cosines, positives and negatives, [B, B] each."""
    descriptors = distances.images(descriptors)
    distances.check_unit_length(descriptors)
    labels, descriptors = place_labels.checked(labels, descriptors)
    similarities = ops.matmul(descriptors, ops.transpose(descriptors))
    positives, negatives = place_labels.same_place(labels)
    return similarities, *miners.mined(
        similarities, positives, negatives, miner=miner
    )


def _weights(positives, positive_weights):
    """Weights of all pairs as positives, float32 [B, B]."""
    weights = ops.cast(positives, "float32")
    if positive_weights is None:
        return weights
    return weights * ops.cast(positive_weights, "float32")


def _log_sum(logits, weights):
    """log sum_j w_ij exp(l_ij), [B]; about `_NEVER` if all weights are 0."""
    counts = weights > 0.0
    logs = ops.log(ops.where(counts, weights, 1.0))
    return ops.logsumexp(ops.where(counts, logits + logs, _NEVER), axis=1)


def _mean(pairs, weights):
    """Weighted mean of each row, [B]; 0 if all its weights are 0."""
    total = ops.sum(weights, axis=1)
    # Not pairs * weights: pairs that do not count may be as large as _NEVER.
    counted = ops.where(weights > 0.0, pairs, 0.0)
    return ops.sum(counted * weights, axis=1) / ops.where(
        total > 0.0, total, 1.0
    )
