"""Losses over the cosines of all pairs of a place batch, for Keras.

Formulas and sources: `pair_formulas`. With several replicas, each replica
computes a loss of its own part of the batch; in a `PlaceNetwork`, the loss of
the whole batch.
"""

from sare_tf.losses import pair_formulas
from sare_tf.losses.keras_losses import (
    DType,
    PlaceLoss,
    PlacePairLoss,
    Reduction,
    loss_of,
)


@loss_of(pair_formulas.place_multi_similarity)
class PlaceMultiSimilarityLoss(PlacePairLoss):
    """The Multi-Similarity loss, with which most current networks are trained.

    {{formula}}

    Args:
        alpha: factor on the cosines of positives.
        beta: factor on the cosines of negatives.
        base: cosine that is taken off all cosines.
        miner: "multi_similarity", or "none" for all pairs.
        {{keras_arguments}}
    """

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        beta: float = 50.0,
        base: float = 0.0,
        miner: str = "multi_similarity",
        reduction: Reduction = "sum_over_batch_size",
        name: str = "place_multi_similarity_loss",
        dtype: DType = None,
    ):
        super().__init__(
            alpha=alpha,
            beta=beta,
            base=base,
            miner=miner,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )


@loss_of(pair_formulas.place_nt_xent)
class PlaceNTXentLoss(PlacePairLoss):
    """The normalised, temperature-scaled cross-entropy of SimCLR, over places.

    {{formula}}

    Args:
        temperature: divisor of the cosines.
        miner: "none" for all pairs, or "multi_similarity".
        {{keras_arguments}}
    """

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        miner: str = "none",
        reduction: Reduction = "sum_over_batch_size",
        name: str = "place_nt_xent_loss",
        dtype: DType = None,
    ):
        super().__init__(
            temperature=temperature,
            miner=miner,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )


@loss_of(pair_formulas.place_sup_con)
class PlaceSupConLoss(PlacePairLoss):
    """The supervised contrastive loss, over places.

    {{formula}}

    Args:
        temperature: divisor of the cosines.
        miner: "none" for all pairs, or "multi_similarity".
        {{keras_arguments}}
    """

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        miner: str = "none",
        reduction: Reduction = "sum_over_batch_size",
        name: str = "place_sup_con_loss",
        dtype: DType = None,
    ):
        super().__init__(
            temperature=temperature,
            miner=miner,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )


@loss_of(pair_formulas.place_circle)
class PlaceCircleLoss(PlacePairLoss):
    """The Circle loss of pairs, over places.

    {{formula}}

    Args:
        margin: cosine; 1 - margin is what positives are drawn to, and margin
            what negatives are driven to.
        scale: factor on the cosines.
        miner: "none" for all pairs, or "multi_similarity".
        {{keras_arguments}}
    """

    def __init__(
        self,
        *,
        margin: float = 0.4,
        scale: float = 80.0,
        miner: str = "none",
        reduction: Reduction = "sum_over_batch_size",
        name: str = "place_circle_loss",
        dtype: DType = None,
    ):
        super().__init__(
            margin=margin,
            scale=scale,
            miner=miner,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )


@loss_of(pair_formulas.place_fast_ap)
class PlaceFastAPLoss(PlaceLoss):
    """FastAP: the average precision of every image, made differentiable.

    {{formula}}

    Args:
        num_bins: intervals of the squared distances from 0 to 4.
        {{keras_arguments}}
    """

    def __init__(
        self,
        *,
        num_bins: int = 10,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "place_fast_ap_loss",
        dtype: DType = None,
    ):
        super().__init__(
            num_bins=num_bins, reduction=reduction, name=name, dtype=dtype
        )
