"""Every loss by name, as flags and flagfiles give it."""

from sare_tf.losses.place_losses import (
    PlaceContrastiveLoss,
    PlaceLiftedStructureLoss,
    PlaceNPairsLoss,
    PlaceTripletHardLoss,
    PlaceTripletSemiHardLoss,
)
from sare_tf.losses.place_sare import PlaceSARELoss
from sare_tf.losses.sare import SARELoss
from sare_tf.losses.similarity import SimilarityLoss
from sare_tf.losses.tuple_losses import (
    AngularLoss,
    ContrastiveLoss,
    LiftedStructureLoss,
    NPairLoss,
    QuadrupletLoss,
    TripletLoss,
)

# Name -> class, the settings that the name fixes, the settings that it takes.
_KERNEL = ("kernel", "inverse_bandwidth")
_OVER_TUPLES = {
    "sare_joint": (SARELoss, {"form": "joint"}, (*_KERNEL, "scaling")),
    "sare_independent": (SARELoss, {"form": "independent"}, _KERNEL),
    "triplet": (TripletLoss, {}, ("margin",)),
    "triplet_unsquared": (TripletLoss, {"squared": False}, ("margin",)),
    "contrastive": (ContrastiveLoss, {}, ("margin",)),
    "n_pair": (NPairLoss, {}, ()),
    "lifted_structure": (LiftedStructureLoss, {}, ("margin",)),
    "angular": (AngularLoss, {}, ()),
    "quadruplet": (QuadrupletLoss, {}, ("margin",)),
}
_OVER_PLACES = {
    "place_sare_joint": (
        PlaceSARELoss,
        {"form": "joint"},
        (*_KERNEL, "hardest_negatives"),
    ),
    "place_sare_independent": (
        PlaceSARELoss,
        {"form": "independent"},
        (*_KERNEL, "hardest_negatives"),
    ),
    "place_contrastive": (PlaceContrastiveLoss, {}, ("margin",)),
    "place_triplet_semihard": (PlaceTripletSemiHardLoss, {}, ("margin",)),
    "place_triplet_hard": (PlaceTripletHardLoss, {}, ("margin",)),
    "place_lifted_structure": (PlaceLiftedStructureLoss, {}, ("margin",)),
    "place_n_pairs": (PlaceNPairsLoss, {}, ()),
    "similarity_multi_similarity": (
        SimilarityLoss,
        {"loss": "multi_similarity"},
        (),
    ),
    "similarity_circle": (SimilarityLoss, {"loss": "circle"}, ("margin",)),
    "similarity_soft_nearest_neighbor": (
        SimilarityLoss,
        {"loss": "soft_nearest_neighbor"},
        (),
    ),
    "similarity_pn": (SimilarityLoss, {"loss": "pn"}, ("margin",)),
    "similarity_triplet": (SimilarityLoss, {"loss": "triplet"}, ("margin",)),
}
TUPLE_LOSSES = tuple(_OVER_TUPLES)
PLACE_LOSSES = tuple(_OVER_PLACES)


def build(
    name,
    *,
    kernel="gaussian",
    inverse_bandwidth=1.0,
    margin=None,
    scaling="tuples",
    hardest_negatives=0,
):
    """Makes the loss of a name.

    Args:
        name: in `TUPLE_LOSSES`, over [B, T, D], or in `PLACE_LOSSES`, over
            labels [B] and descriptors [B, D].
        kernel: of the SARE losses; the others have none and ignore it.
        inverse_bandwidth: of the SARE losses; the others ignore it.
        margin: of a loss that has one; None for its default.
        scaling: of sare_joint, see `SARELoss`.
        hardest_negatives: of the SARE losses over places, see `PlaceSARELoss`.

    Returns:
        keras.losses.Loss.

    Raises:
        ValueError: unknown name, or a margin, scaling or hardest_negatives for
            a loss without.
        ImportError: a loss of TensorFlow Similarity, which is not installed.
    """
    known = {**_OVER_TUPLES, **_OVER_PLACES}
    if name not in known:
        raise ValueError(
            f"Expected a loss: {', '.join(known)}. Received: name={name!r}."
        )
    loss, fixed, takes = known[name]
    if margin is not None and "margin" not in takes:
        raise ValueError(
            f"Expected no margin for the loss {name}, which has none. "
            f"Received: margin={margin}. Leave --margin out."
        )
    if scaling != "tuples" and "scaling" not in takes:
        raise ValueError(
            f"Expected scaling='tuples' for the loss {name}: only sare_joint "
            f"has another. Received: scaling={scaling!r}."
        )
    if hardest_negatives and "hardest_negatives" not in takes:
        raise ValueError(
            "Expected hardest_negatives=0, all, for the loss "
            f"{name}: place_sare_joint and place_sare_independent alone choose "
            f"among them. Received: hardest_negatives={hardest_negatives}."
        )
    settings = {
        "kernel": kernel,
        "inverse_bandwidth": inverse_bandwidth,
        "scaling": scaling,
        "hardest_negatives": hardest_negatives,
    }
    if margin is not None:
        settings["margin"] = margin
    return loss(
        **fixed, **{key: settings[key] for key in takes if key in settings}
    )
