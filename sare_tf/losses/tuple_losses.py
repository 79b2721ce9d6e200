"""The losses over tuples that SARE is compared with, for Keras.

Formulas, sources and learning rates: `tuple_formulas`.
"""

from sare_tf.losses import tuple_formulas
from sare_tf.losses.keras_losses import (
    DType,
    Reduction,
    TupleDistanceLoss,
    TupleLoss,
    loss_of,
)


@loss_of(tuple_formulas.triplet)
class TripletLoss(TupleDistanceLoss):
    """The triplet loss over tuples, as of NetVLAD.

    {{formula}}

    Args:
        margin: between the distances; None for 0.1 between squared distances,
            and for its square root between Euclidean distances.
        squared: whether to compare squared instead of Euclidean distances.
        {{keras_arguments}}
    """

    def __init__(
        self,
        *,
        margin: float | None = None,
        squared: bool = True,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "triplet_loss",
        dtype: DType = None,
    ):
        super().__init__(
            margin=tuple_formulas.triplet_margin(margin, squared=squared),
            squared=squared,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )


@loss_of(tuple_formulas.contrastive)
class ContrastiveLoss(TupleDistanceLoss):
    """The contrastive loss over tuples, summed over negatives.

    {{formula}}

    Args:
        margin: Euclidean distance beyond which a negative has no effect.
        {{keras_arguments}}
    """

    def __init__(
        self,
        *,
        margin: float = 0.7,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "contrastive_loss",
        dtype: DType = None,
    ):
        super().__init__(
            margin=margin, reduction=reduction, name=name, dtype=dtype
        )


@loss_of(tuple_formulas.lifted_structure)
class LiftedStructureLoss(TupleDistanceLoss):
    """The lifted structure loss over tuples, summed over negatives.

    {{formula}}

    Args:
        margin: of Euclidean distances.
        {{keras_arguments}}
    """

    def __init__(
        self,
        *,
        margin: float = 1.0,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "lifted_structure_loss",
        dtype: DType = None,
    ):
        super().__init__(
            margin=margin, reduction=reduction, name=name, dtype=dtype
        )


@loss_of(tuple_formulas.n_pair)
class NPairLoss(TupleLoss):
    """The N-pair loss over tuples, summed over negatives.

    {{formula}}

    Args:
        {{keras_arguments}}
    """

    def __init__(
        self,
        *,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "n_pair_loss",
        dtype: DType = None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)


@loss_of(tuple_formulas.angular)
class AngularLoss(TupleLoss):
    """The angular loss over tuples, summed over negatives.

    {{formula}}

    Args:
        angle_deg: upper bound of the angle, between 0 and 90 degrees.
        {{keras_arguments}}
    """

    def __init__(
        self,
        *,
        angle_deg: float = 45.0,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "angular_loss",
        dtype: DType = None,
    ):
        super().__init__(
            angle_deg=angle_deg, reduction=reduction, name=name, dtype=dtype
        )


@loss_of(tuple_formulas.quadruplet)
class QuadrupletLoss(TupleLoss):
    """The quadruplet loss over tuples, a mean over negatives.

    {{formula}}

    Args:
        margin: of the triplet, between squared distances.
        second_margin: of the pairs of negatives, between squared distances;
            None for half of `margin`.
        {{keras_arguments}}
    """

    def __init__(
        self,
        *,
        margin: float = 0.1,
        second_margin: float | None = None,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "quadruplet_loss",
        dtype: DType = None,
    ):
        super().__init__(
            margin=margin,
            second_margin=tuple_formulas.quadruplet_margin(
                second_margin, margin=margin
            ),
            reduction=reduction,
            name=name,
            dtype=dtype,
        )
