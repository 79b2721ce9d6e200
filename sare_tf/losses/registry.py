"""Makes every loss from its name in flags and flagfiles."""

import importlib

KERNEL_NAMES = ("gaussian", "cauchy", "exponential")

# Name -> class, the settings that the name fixes, the settings that it takes.
# Classes are imported on use, because flags need the names without Keras.
_KERNEL = ("kernel", "inverse_bandwidth")
_OVER_TUPLES = {
    "sare_joint": ("sare.SARELoss", {"form": "joint"}, (*_KERNEL, "scaling")),
    "sare_independent": ("sare.SARELoss", {"form": "independent"}, _KERNEL),
    "triplet": ("tuple_losses.TripletLoss", {}, ("margin",)),
    "triplet_unsquared": (
        "tuple_losses.TripletLoss",
        {"squared": False},
        ("margin",),
    ),
    "contrastive": ("tuple_losses.ContrastiveLoss", {}, ("margin",)),
    "n_pair": ("tuple_losses.NPairLoss", {}, ()),
    "lifted_structure": ("tuple_losses.LiftedStructureLoss", {}, ("margin",)),
    "angular": ("tuple_losses.AngularLoss", {}, ()),
    "quadruplet": ("tuple_losses.QuadrupletLoss", {}, ("margin",)),
}
_OVER_PLACES = {
    "place_sare_joint": (
        "place_sare.PlaceSARELoss",
        {"form": "joint"},
        (*_KERNEL, "hardest_negatives"),
    ),
    "place_sare_independent": (
        "place_sare.PlaceSARELoss",
        {"form": "independent"},
        (*_KERNEL, "hardest_negatives"),
    ),
    "place_contrastive": ("place_losses.PlaceContrastiveLoss", {}, ("margin",)),
    "place_triplet_semihard": (
        "place_losses.PlaceTripletSemiHardLoss",
        {},
        ("margin",),
    ),
    "place_triplet_hard": (
        "place_losses.PlaceTripletHardLoss",
        {},
        ("margin",),
    ),
    "place_lifted_structure": (
        "place_losses.PlaceLiftedStructureLoss",
        {},
        ("margin",),
    ),
    "place_n_pairs": ("place_losses.PlaceNPairsLoss", {}, ()),
    "similarity_multi_similarity": (
        "similarity.SimilarityLoss",
        {"loss": "multi_similarity"},
        (),
    ),
    "similarity_circle": (
        "similarity.SimilarityLoss",
        {"loss": "circle"},
        ("margin",),
    ),
    "similarity_soft_nearest_neighbor": (
        "similarity.SimilarityLoss",
        {"loss": "soft_nearest_neighbor"},
        (),
    ),
    "similarity_pn": ("similarity.SimilarityLoss", {"loss": "pn"}, ("margin",)),
    "similarity_triplet": (
        "similarity.SimilarityLoss",
        {"loss": "triplet"},
        ("margin",),
    ),
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
    """Makes a loss from its name.

    Args:
        name: in `TUPLE_LOSSES`, over [B, T, D], or in `PLACE_LOSSES`, over
            labels [B] and descriptors [B, D].
        kernel: of the SARE losses; other losses ignore it.
        inverse_bandwidth: of the SARE losses; other losses ignore it.
        margin: of a loss that has one; None for its default.
        scaling: of sare_joint, see `SARELoss`.
        hardest_negatives: of the SARE losses over places, see `PlaceSARELoss`.

    Returns:
        keras.losses.Loss.

    Raises:
        ValueError: unknown name, or a margin, scaling or hardest_negatives for
            a loss that has none.
        ImportError: a loss of TensorFlow Similarity, if that is not installed.
    """
    known = {**_OVER_TUPLES, **_OVER_PLACES}
    if name not in known:
        raise ValueError(
            f"Expected a loss: {', '.join(known)}. Received: name={name!r}."
        )
    path, fixed, takes = known[name]
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
            f"Expected hardest_negatives=0 for the loss {name}: only "
            "place_sare_joint and place_sare_independent select negatives. "
            f"Received: hardest_negatives={hardest_negatives}."
        )
    settings = {
        "kernel": kernel,
        "inverse_bandwidth": inverse_bandwidth,
        "scaling": scaling,
        "hardest_negatives": hardest_negatives,
    }
    if margin is not None:
        settings["margin"] = margin
    module, _, loss = path.partition(".")
    make = getattr(importlib.import_module(f"sare_tf.losses.{module}"), loss)
    return make(
        **fixed, **{key: settings[key] for key in takes if key in settings}
    )
