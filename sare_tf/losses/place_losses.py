"""The losses of TensorFlow Addons over place batches, for Keras.

Formulas and sources: `place_formulas`. With several replicas, each replica
computes a loss of its own part of the batch; in a `PlaceNetwork`, the loss of
the whole batch.
"""

from sare_tf.losses import place_formulas
from sare_tf.losses.keras_losses import DType, PlaceLoss, Reduction, loss_of


@loss_of(place_formulas.place_contrastive)
class PlaceContrastiveLoss(PlaceLoss):
    """The contrastive loss of all pairs, as in TensorFlow Addons 0.23.

    {{formula}}

    Args:
        margin: distance beyond which two places have no effect.
        {{keras_arguments}}
    """

    def __init__(
        self,
        *,
        margin: float = 1.0,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "place_contrastive_loss",
        dtype: DType = None,
    ):
        super().__init__(
            margin=margin, reduction=reduction, name=name, dtype=dtype
        )


@loss_of(place_formulas.place_triplet_semihard)
class PlaceTripletSemiHardLoss(PlaceLoss):
    """The triplet loss with semi-hard negatives, as in TensorFlow Addons 0.23.

    Its distance "angular" is half the squared distance of unit vectors.

    {{formula}}

    Args:
        margin: between the two distances.
        squared: whether to compare squared instead of Euclidean distances.
        {{keras_arguments}}
    """

    def __init__(
        self,
        *,
        margin: float = 1.0,
        squared: bool = False,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "place_triplet_semihard_loss",
        dtype: DType = None,
    ):
        super().__init__(
            margin=margin,
            squared=squared,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )


@loss_of(place_formulas.place_triplet_hard)
class PlaceTripletHardLoss(PlaceLoss):
    """The triplet loss of the hardest images, as in TensorFlow Addons 0.23.

    Its distance "angular" is half the squared distance of unit vectors.

    {{formula}}

    Args:
        margin: between the two distances.
        soft: whether to use log(1 + exp(e_p - e_n)), which has no margin.
        squared: whether to compare squared instead of Euclidean distances.
        {{keras_arguments}}
    """

    def __init__(
        self,
        *,
        margin: float = 1.0,
        soft: bool = False,
        squared: bool = False,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "place_triplet_hard_loss",
        dtype: DType = None,
    ):
        super().__init__(
            margin=margin,
            soft=soft,
            squared=squared,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )


@loss_of(place_formulas.place_lifted_structure)
class PlaceLiftedStructureLoss(PlaceLoss):
    """The lifted structure loss, as in TensorFlow Addons 0.23.

    TensorFlow Addons advises against descriptors of unit length here.

    {{formula}}

    Args:
        margin: of distances.
        {{keras_arguments}}
    """

    def __init__(
        self,
        *,
        margin: float = 1.0,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "place_lifted_structure_loss",
        dtype: DType = None,
    ):
        super().__init__(
            margin=margin, reduction=reduction, name=name, dtype=dtype
        )


@loss_of(place_formulas.place_n_pairs)
class PlaceNPairsLoss(PlaceLoss):
    """The N-pairs loss, as in TensorFlow Addons 0.23.

    {{formula}}

    Args:
        {{keras_arguments}}
    """

    def __init__(
        self,
        *,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "place_n_pairs_loss",
        dtype: DType = None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
