"""The losses that SARE is compared with, over tuples.

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
number of negatives that contribute to it in the batch, for contrastive also by
one for each positive. So with one of its rates r, use r / N with those that sum
over negatives (contrastive, n_pair, lifted_structure, angular), and r with
triplet, which then takes smaller steps than deepIBL's where negatives do not
violate the margin. Adam ignores the scale of a loss.

Sources of formulas and defaults: for each loss the paper named with it, in the
form for tuples of github.com/Liumouliu/deepIBL (train*.m, up to July 2019) and
github.com/Relja/netvlad (trainWeakly.m).
"""

import math

import keras
from keras import ops

from sare_tf.losses import distances


def triplet(positive, negatives, *, margin=None, squared=True):
    """Mean over negatives of max(d_p - d_i + margin, 0).

    Source: Arandjelovic et al., "NetVLAD: CNN architecture for weakly
    supervised place recognition", CVPR 2016, section 4; the sum over negatives
    there is a mean here.

    Args:
        positive: squared distances from query to positive, [B].
        negatives: squared distances from query to negatives, [B, N].
        margin: None for NetVLAD's 0.1, which is between squared distances, or
            its root where they are not squared, as the PyTorch ports have it.
        squared: False to compare Euclidean distances instead.

    Returns:
        Loss per tuple, float32 [B].

    Raises:
        ValueError: wrong ranks, no negatives, or a margin not positive.
    """
    margin = _triplet_margin(margin, squared)
    positive, negatives = _distances(positive, negatives, squared)
    return ops.mean(ops.relu(positive[:, None] - negatives + margin), axis=1)


def contrastive(positive, negatives, *, margin=0.7):
    """Half of e_p^2 plus the sum over negatives of max(margin - e_i, 0)^2.

    Source: Hadsell et al., "Dimensionality Reduction by Learning an Invariant
    Mapping", CVPR 2006, section 2; margin 0.7 from deepIBL.

    Args:
        positive: squared distances from query to positive, [B].
        negatives: squared distances from query to negatives, [B, N].
        margin: distance, not squared, beyond which negatives do not count.

    Returns:
        Loss per tuple, float32 [B].

    Raises:
        ValueError: wrong ranks, no negatives, or a margin not positive.
    """
    distances.check_margin(margin)
    positive, negatives = _distances(positive, negatives, True)
    repulsion = ops.square(ops.relu(margin - distances.root(negatives)))
    return 0.5 * (positive + ops.sum(repulsion, axis=1))


def lifted_structure(positive, negatives, *, margin=1.0):
    """Half of max(e_p + log sum_i exp(margin - e_i), 0)^2.

    Source: Oh Song et al., "Deep Metric Learning via Lifted Structured Feature
    Embedding", CVPR 2016, section 4; for a tuple, whose negatives are those
    of the query alone.

    Args:
        positive: squared distances from query to positive, [B].
        negatives: squared distances from query to negatives, [B, N].
        margin: of distances that are not squared.

    Returns:
        Loss per tuple, float32 [B].

    Raises:
        ValueError: wrong ranks, no negatives, or a margin not positive.
    """
    distances.check_margin(margin)
    positive, negatives = _distances(positive, negatives, False)
    repulsion = ops.logsumexp(margin - negatives, axis=1)
    return 0.5 * ops.square(ops.relu(positive + repulsion))


def n_pair(descriptors):
    """log(1 + sum_i exp(q n_i - q p)), of dot products.

    For descriptors of unit length it is `sare_joint` with the Gaussian kernel
    and inverse bandwidth 1 / 2. The paper's penalty on lengths is left out:
    ours are 1.

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
    """log(1 + sum_i exp(f_i)), see the module.

    Bounds the angle at the negative in the triangle that it forms with query
    and positive.

    Source: Wang et al., "Deep Metric Learning with Angular Loss", ICCV 2017,
    section 3 (a batch there, a tuple here).

    Args:
        descriptors: [B, T, D].
        angle_deg: a, the upper bound, between 0 and 90.

    Returns:
        Loss per tuple, float32 [B].

    Raises:
        ValueError: another rank, fewer than 3 images in a tuple, or an angle
            out of bounds.
    """
    _check_angle(angle_deg)
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
    """`triplet`, and a push between negatives of different places.

    The second pair of negatives of the paper is (n_i, n_N): the last negative
    is the other one for all the rest, as in PointNetVLAD. So the last one must
    show another place than the rest: mined negatives come hardest first, which
    makes it the least likely to share theirs, but nothing checks it. With a
    single negative there is no second pair, and it is the triplet loss.

    Source: Chen et al., "Beyond triplet loss: a deep quadruplet network for
    person re-identification", CVPR 2017, section 3; for the last negative,
    Uy and Lee, "PointNetVLAD", CVPR 2018, section 4.

    Args:
        descriptors: [B, T, D].
        margin: of the triplet, of squared distances; NetVLAD's by default.
        second_margin: of the second pair, of squared distances. None for half
            of `margin`: it is to be the weaker push, says the paper.

    Returns:
        Loss per tuple, float32 [B]: the mean over N negatives plus the mean
        over N - 1 pairs of them.

    Raises:
        ValueError: another rank, fewer than 3 images in a tuple, or a margin
            not positive.
    """
    second_margin = _second_margin(margin, second_margin)
    query, positive, negatives = distances.split_tuples(descriptors)
    attraction = distances.between(query, positive)  # [B, 1]
    first = triplet(
        attraction[:, 0], distances.between(query, negatives), margin=margin
    )
    apart = distances.between(negatives[:, -1:], negatives[:, :-1])
    second = ops.sum(ops.relu(attraction - apart + second_margin), axis=1)
    pairs = ops.cast(ops.shape(apart)[1], "float32")
    return first + second / ops.maximum(pairs, 1.0)


@keras.saving.register_keras_serializable(package="sare_tf")
class TripletLoss(keras.losses.Loss):
    """The triplet loss over tuples: NetVLAD's, mean over negatives.

    Source and formula: `triplet`; learning rates: the module.

    Args:
        margin: None for 0.1, or its root where distances are not squared.
        squared: False to compare Euclidean distances, as PyTorch ports do.
        reduction: how Keras reduces [B]; its default is the mean.
        name: of the loss.
        dtype: of the returned values.

    Call arguments:
        y_true: ignored.
        y_pred: descriptors of unit length, [B, T, D]; checked as in
            `SARELoss`.

    Output shape:
        [B] from `call`; what `reduction` makes of it from `__call__`.

    Example:

    ```python
    model = sare_tf.over_tuples(embedder)
    model.compile(optimizer="sgd", loss=sare_tf.losses.TripletLoss())
    ```
    """

    def __init__(
        self,
        *,
        margin=None,
        squared=True,
        reduction="sum_over_batch_size",
        name="triplet_loss",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.margin = _triplet_margin(margin, squared)
        self.squared = squared

    def call(self, y_true, y_pred):
        distances.check_unit_length(y_pred)
        return triplet(
            *distances.tuple_distances(y_pred),
            margin=self.margin,
            squared=self.squared,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "margin": self.margin,
            "squared": self.squared,
        }


@keras.saving.register_keras_serializable(package="sare_tf")
class ContrastiveLoss(keras.losses.Loss):
    """The contrastive loss over tuples, summed over negatives.

    Source and formula: `contrastive`; learning rates: the module.

    Args:
        margin: distance, not squared, beyond which negatives do not count.
        reduction: how Keras reduces [B]; its default is the mean.
        name: of the loss.
        dtype: of the returned values.

    Call arguments:
        y_true: ignored.
        y_pred: descriptors of unit length, [B, T, D]; checked as in
            `SARELoss`.

    Output shape:
        [B] from `call`; what `reduction` makes of it from `__call__`.

    Example:

    ```python
    model = sare_tf.over_tuples(embedder)
    model.compile(optimizer="sgd", loss=sare_tf.losses.ContrastiveLoss())
    ```
    """

    def __init__(
        self,
        *,
        margin=0.7,
        reduction="sum_over_batch_size",
        name="contrastive_loss",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        distances.check_margin(margin)
        self.margin = margin

    def call(self, y_true, y_pred):
        distances.check_unit_length(y_pred)
        return contrastive(
            *distances.tuple_distances(y_pred), margin=self.margin
        )

    def get_config(self):
        return {**super().get_config(), "margin": self.margin}


@keras.saving.register_keras_serializable(package="sare_tf")
class LiftedStructureLoss(keras.losses.Loss):
    """The lifted structure loss over tuples, summed over negatives.

    Source and formula: `lifted_structure`; learning rates: the module.

    Args:
        margin: of distances that are not squared.
        reduction: how Keras reduces [B]; its default is the mean.
        name: of the loss.
        dtype: of the returned values.

    Call arguments:
        y_true: ignored.
        y_pred: descriptors of unit length, [B, T, D]; checked as in
            `SARELoss`.

    Output shape:
        [B] from `call`; what `reduction` makes of it from `__call__`.

    Example:

    ```python
    model = sare_tf.over_tuples(embedder)
    model.compile(optimizer="sgd", loss=sare_tf.losses.LiftedStructureLoss())
    ```
    """

    def __init__(
        self,
        *,
        margin=1.0,
        reduction="sum_over_batch_size",
        name="lifted_structure_loss",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        distances.check_margin(margin)
        self.margin = margin

    def call(self, y_true, y_pred):
        distances.check_unit_length(y_pred)
        return lifted_structure(
            *distances.tuple_distances(y_pred), margin=self.margin
        )

    def get_config(self):
        return {**super().get_config(), "margin": self.margin}


@keras.saving.register_keras_serializable(package="sare_tf")
class NPairLoss(keras.losses.Loss):
    """The N-pair loss over tuples, summed over negatives.

    Source and formula: `n_pair`; learning rates: the module.

    Args:
        reduction: how Keras reduces [B]; its default is the mean.
        name: of the loss.
        dtype: of the returned values.

    Call arguments:
        y_true: ignored.
        y_pred: descriptors of unit length, [B, T, D]; checked as in
            `SARELoss`.

    Output shape:
        [B] from `call`; what `reduction` makes of it from `__call__`.

    Example:

    ```python
    model = sare_tf.over_tuples(embedder)
    model.compile(optimizer="sgd", loss=sare_tf.losses.NPairLoss())
    ```
    """

    def __init__(
        self,
        *,
        reduction="sum_over_batch_size",
        name="n_pair_loss",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true, y_pred):
        distances.check_unit_length(y_pred)
        return n_pair(y_pred)


@keras.saving.register_keras_serializable(package="sare_tf")
class AngularLoss(keras.losses.Loss):
    """The angular loss over tuples, summed over negatives.

    Source and formula: `angular`; learning rates: the module.

    Args:
        angle_deg: upper bound of the angle at a negative, between 0 and 90.
        reduction: how Keras reduces [B]; its default is the mean.
        name: of the loss.
        dtype: of the returned values.

    Call arguments:
        y_true: ignored.
        y_pred: descriptors of unit length, [B, T, D]; checked as in
            `SARELoss`.

    Output shape:
        [B] from `call`; what `reduction` makes of it from `__call__`.

    Example:

    ```python
    model = sare_tf.over_tuples(embedder)
    model.compile(optimizer="sgd", loss=sare_tf.losses.AngularLoss())
    ```
    """

    def __init__(
        self,
        *,
        angle_deg=45.0,
        reduction="sum_over_batch_size",
        name="angular_loss",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        _check_angle(angle_deg)
        self.angle_deg = angle_deg

    def call(self, y_true, y_pred):
        distances.check_unit_length(y_pred)
        return angular(y_pred, angle_deg=self.angle_deg)

    def get_config(self):
        return {**super().get_config(), "angle_deg": self.angle_deg}


@keras.saving.register_keras_serializable(package="sare_tf")
class QuadrupletLoss(keras.losses.Loss):
    """The quadruplet loss over tuples, mean over negatives.

    The last negative of a tuple is the other one for the rest: see
    `quadruplet`, which has source and formula; learning rates as for the
    triplet loss, see the module.

    Args:
        margin: of the triplet, of squared distances.
        second_margin: of the pairs of negatives; None for half of `margin`.
        reduction: how Keras reduces [B]; its default is the mean.
        name: of the loss.
        dtype: of the returned values.

    Call arguments:
        y_true: ignored.
        y_pred: descriptors of unit length, [B, T, D]; checked as in
            `SARELoss`.

    Output shape:
        [B] from `call`; what `reduction` makes of it from `__call__`.

    Example:

    ```python
    model = sare_tf.over_tuples(embedder)
    model.compile(optimizer="sgd", loss=sare_tf.losses.QuadrupletLoss())
    ```
    """

    def __init__(
        self,
        *,
        margin=0.1,
        second_margin=None,
        reduction="sum_over_batch_size",
        name="quadruplet_loss",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.margin = margin
        self.second_margin = _second_margin(margin, second_margin)

    def call(self, y_true, y_pred):
        distances.check_unit_length(y_pred)
        return quadruplet(
            y_pred, margin=self.margin, second_margin=self.second_margin
        )

    def get_config(self):
        return {
            **super().get_config(),
            "margin": self.margin,
            "second_margin": self.second_margin,
        }


def _triplet_margin(margin, squared):
    if margin is None:
        margin = 0.1 if squared else math.sqrt(0.1)
    distances.check_margin(margin)
    return margin


def _second_margin(margin, second_margin):
    distances.check_margin(margin)
    if second_margin is None:
        return margin / 2.0
    distances.check_margin(second_margin, name="second_margin")
    return second_margin


def _check_angle(angle_deg):
    if not 0.0 < angle_deg < 90.0:
        raise ValueError(
            "Expected angle_deg between 0 and 90. "
            f"Received: angle_deg={angle_deg}."
        )


def _distances(positive, negatives, squared):
    """Squared distances, or their roots, float32 [B] and [B, N]."""
    distances.check_tuple_distances(positive, negatives)
    positive = ops.cast(positive, "float32")
    negatives = ops.cast(negatives, "float32")
    if squared:
        return positive, negatives
    return distances.root(positive), distances.root(negatives)
