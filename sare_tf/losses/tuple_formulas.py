"""The mathematics of the losses over tuples that SARE is compared with.

Axis letters as in `distances`: B tuples, T = 2 + N images of a tuple, D
descriptor length. With q, p, n_i the descriptors of query, positive and
negatives, d squared distances from q, and e = sqrt(d):

    triplet           mean_i max(d_p - d_i + m, 0)
    contrastive       e_p^2 / 2 + sum_i max(m - e_i, 0)^2 / 2
    n_pair            log(1 + sum_i exp(q n_i - q p))
    lifted_structure  max(J, 0)^2 / 2, J = e_p + log sum_i exp(m - e_i)
    angular           log(1 + sum_i exp(f_i)),
                      f_i = 4 tan(a)^2 (q + p) n_i - 2 (1 + tan(a)^2) q p
    quadruplet        triplet + mean_{i<N} max(d_p - |n_i - n_N|^2 + m2, 0)

Learning rates: every loss is per tuple, and Keras takes the mean over tuples.
deepIBL, the code of Liu et al., divides the gradient of every loss by the
number of negatives in the batch that contribute to it; for the contrastive
loss, each positive counts as well. With a learning rate r of deepIBL, use r / N
for the losses that sum over negatives (contrastive, n_pair, lifted_structure,
angular) and r for the triplet loss. The triplet loss then takes smaller steps
than in deepIBL where negatives do not violate the margin. Adam ignores the
scale of a loss.

Sources of formulas and defaults: the paper that each function names, in the
form for tuples of github.com/Liumouliu/deepIBL (train*.m, up to July 2019) and
github.com/Relja/netvlad (trainWeakly.m).
"""

import math

from keras import ops

from sare_tf.losses import distances, settings


def triplet(positive, negatives, *, margin=None, squared=True):
    """Mean over negatives of max(d_p - d_i + margin, 0).

    Source: Arandjelovic et al., "NetVLAD: CNN architecture for weakly
    supervised place recognition", CVPR 2016, section 4. The paper sums over
    negatives.

    Args:
        positive: squared distances from query to positive, [B].
        negatives: squared distances from query to negatives, [B, N].
        margin: between the distances. None for NetVLAD's 0.1 between squared
            distances, and for its square root between Euclidean distances, as
            in the PyTorch ports.
        squared: whether to compare squared instead of Euclidean distances.

    Returns:
        Loss per tuple, float32 [B].

    Raises:
        ValueError: wrong ranks, no negatives, or a margin that is not positive.
    """
    margin = triplet_margin(margin, squared=squared)
    settings.check(margin=margin)
    positive, negatives = _float32(positive, negatives)
    if not squared:
        positive, negatives = map(distances.root, (positive, negatives))
    return ops.mean(ops.relu(positive[:, None] - negatives + margin), axis=1)


def triplet_margin(margin, *, squared):
    """Returns the margin of `triplet`, which has one for each distance.

    Args:
        margin: a margin, or None.
        squared: whether squared distances are compared.
    """
    if margin is None:
        return 0.1 if squared else math.sqrt(0.1)
    return margin


def contrastive(positive, negatives, *, margin=0.7):
    """Half of e_p^2 + sum_i max(margin - e_i, 0)^2, e Euclidean distances.

    Source: Hadsell et al., "Dimensionality Reduction by Learning an Invariant
    Mapping", CVPR 2006, section 2; the margin of 0.7 is that of deepIBL.

    Args:
        positive: squared distances from query to positive, [B].
        negatives: squared distances from query to negatives, [B, N].
        margin: Euclidean distance beyond which a negative has no effect.

    Returns:
        Loss per tuple, float32 [B].

    Raises:
        ValueError: wrong ranks, no negatives, or a margin that is not positive.
    """
    settings.check(margin=margin)
    positive, negatives = _float32(positive, negatives)
    repulsion = ops.square(ops.relu(margin - distances.root(negatives)))
    return 0.5 * (positive + ops.sum(repulsion, axis=1))


def lifted_structure(positive, negatives, *, margin=1.0):
    """Half of max(e_p + log sum_i exp(margin - e_i), 0)^2, e Euclidean.

    Source: Oh Song et al., "Deep Metric Learning via Lifted Structured Feature
    Embedding", CVPR 2016, section 4, with a tuple in place of a batch: only the
    query has negatives.

    Args:
        positive: squared distances from query to positive, [B].
        negatives: squared distances from query to negatives, [B, N].
        margin: of Euclidean distances.

    Returns:
        Loss per tuple, float32 [B].

    Raises:
        ValueError: wrong ranks, no negatives, or a margin that is not positive.
    """
    settings.check(margin=margin)
    positive, negatives = _float32(positive, negatives)
    repulsion = ops.logsumexp(margin - distances.root(negatives), axis=1)
    return 0.5 * ops.square(ops.relu(distances.root(positive) + repulsion))


def n_pair(descriptors):
    """log(1 + sum_i exp(q n_i - q p)), of dot products.

    For descriptors of unit length it is `sare_joint` with the Gaussian kernel
    and an inverse bandwidth of 1 / 2. The paper also penalises the length of
    descriptors; here it is 1.

    Source: Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss
    Objective", NIPS 2016, section 3.

    Args:
        descriptors: [B, T, D].

    Returns:
        Loss per tuple, float32 [B].

    Raises:
        ValueError: another rank, or fewer than 3 images in a tuple.
    """
    query, positive, negatives = distances.split_tuples(descriptors)
    excess = ops.sum(query * (negatives - positive), axis=-1)  # [B, N]
    return ops.softplus(ops.logsumexp(excess, axis=1))


def angular(descriptors, *, angle_deg=45.0):
    """log(1 + sum_i exp(4 t (q + p) n_i - 2 (1 + t) q p)), t = tan(angle)^2.

    It bounds the angle at the negative in the triangle of query, positive and
    negative.

    Source: Wang et al., "Deep Metric Learning with Angular Loss", ICCV 2017,
    section 3, with a tuple in place of a batch.

    Args:
        descriptors: [B, T, D].
        angle_deg: upper bound of the angle, between 0 and 90 degrees.

    Returns:
        Loss per tuple, float32 [B].

    Raises:
        ValueError: another rank, fewer than 3 images in a tuple, or an angle
            out of bounds.
    """
    settings.check(angle_deg=angle_deg)
    query, positive, negatives = distances.split_tuples(descriptors)
    squared_tangent = math.tan(math.radians(angle_deg)) ** 2
    attraction = ops.sum(query * positive, axis=-1)  # [B, 1]
    repulsion = ops.sum((query + positive) * negatives, axis=-1)  # [B, N]
    exponents = (
        4.0 * squared_tangent * repulsion
        - 2.0 * (1.0 + squared_tangent) * attraction
    )
    return ops.softplus(ops.logsumexp(exponents, axis=1))


def quadruplet(descriptors, *, margin=0.1, second_margin=None):
    """`triplet` + mean_{i<N} max(d_p - |n_i - n_N|^2 + second_margin, 0).

    The second term pushes apart negatives of different places. As in
    PointNetVLAD, it pairs the last negative with each of the others, so the
    last negative must show another place than they do. Mined negatives are in
    order of hardness, so that the last one is the least likely to share a place
    with another; nothing checks it. With a single negative there is no pair,
    and the loss is the triplet loss.

    Source: Chen et al., "Beyond triplet loss: a deep quadruplet network for
    person re-identification", CVPR 2017, section 3; for the last negative,
    Uy and Lee, "PointNetVLAD", CVPR 2018, section 4.

    Args:
        descriptors: [B, T, D].
        margin: of the triplet, between squared distances.
        second_margin: of the pairs of negatives, between squared distances.
            None for half of `margin`; the paper asks for a weaker push.

    Returns:
        Loss per tuple, float32 [B].

    Raises:
        ValueError: another rank, fewer than 3 images in a tuple, or a margin
            that is not positive.
    """
    second_margin = quadruplet_margin(second_margin, margin=margin)
    query, positive, negatives = distances.split_tuples(descriptors)
    attraction = distances.between(query, positive)  # [B, 1]
    first = triplet(
        attraction[:, 0], distances.between(query, negatives), margin=margin
    )
    between_negatives = distances.between(negatives[:, -1:], negatives[:, :-1])
    second = ops.relu(attraction - between_negatives + second_margin)
    pairs = ops.cast(ops.shape(second)[1], "float32")
    return first + ops.sum(second, axis=1) / ops.maximum(pairs, 1.0)


def quadruplet_margin(second_margin, *, margin):
    """Returns the second margin of `quadruplet`.

    Args:
        second_margin: a margin, or None for half of the first one.
        margin: the first margin.

    Raises:
        ValueError: a margin that is not positive.
    """
    settings.check(margin=margin)
    if second_margin is None:
        return margin / 2.0
    settings.check(second_margin=second_margin)
    return second_margin


def _float32(positive, negatives):
    """Checked squared distances, float32 [B] and [B, N]."""
    distances.check_tuple_distances(positive, negatives)
    return ops.cast(positive, "float32"), ops.cast(negatives, "float32")
