"""Makes every loss from its name in flags and flagfiles."""

import importlib

KERNEL_NAMES = ("gaussian", "cauchy", "exponential")
MINER_NAMES = ("none", "multi_similarity")

# Name -> class, the settings that the name fixes, the settings and options that
# it takes. Classes are imported on use, because flags need the names without
# Keras.
_KERNEL = ("kernel", "inverse_bandwidth")
_KERNEL += ("inverse_bandwidth_to", "learned_inverse_bandwidth")
_PAIRS = ("miner", "positive_weights")
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
        (*_KERNEL, "hardest_negatives", *_PAIRS),
    ),
    "place_sare_independent": (
        "place_sare.PlaceSARELoss",
        {"form": "independent"},
        (*_KERNEL, "hardest_negatives", *_PAIRS),
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
    "place_multi_similarity": (
        "pair_losses.PlaceMultiSimilarityLoss",
        {},
        _PAIRS,
    ),
    "place_nt_xent": (
        "pair_losses.PlaceNTXentLoss",
        {},
        ("temperature", *_PAIRS),
    ),
    "place_sup_con": (
        "pair_losses.PlaceSupConLoss",
        {},
        ("temperature", *_PAIRS),
    ),
    "place_circle": (
        "pair_losses.PlaceCircleLoss",
        {},
        ("margin", "scale", *_PAIRS),
    ),
    "place_cosface": (
        "place_cosface.PlaceCosFaceLoss",
        {},
        ("margin", "scale", "num_places", "group_sizes"),
    ),
    "place_fast_ap": ("pair_losses.PlaceFastAPLoss", {}, ()),
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
_ALL = {**_OVER_TUPLES, **_OVER_PLACES}
# Setting -> the value that says nothing, which every loss takes.
_NEUTRAL = {
    "kernel": "gaussian",
    "inverse_bandwidth": 1.0,
    "margin": None,
    "scale": None,
    "temperature": None,
    "miner": None,
    "num_places": None,
    "group_sizes": None,
    "scaling": "tuples",
    "hardest_negatives": 0,
}
# Flagfiles give them to every loss; those that have none ignore them.
_IGNORED = ("kernel", "inverse_bandwidth")
# Setting -> the value that is true of a loss without it.
_NOTHING = {"miner": "none"}
# Where the flag has another name.
_FLAGS = {
    "scaling": "--joint_scaling",
    "miner": "--place_miner",
    "scale": "--similarity_scale",
}


def takes(name, option):
    """Returns whether a loss takes a setting, or an option of training.

    Args:
        name: in `TUPLE_LOSSES` or `PLACE_LOSSES`.
        option: name of a setting of `build`, or of an option.
    """
    return option in _ALL[name][2]


def build(name, **settings):
    """Makes a loss from its name.

    Args:
        name: in `TUPLE_LOSSES`, over [B, T, D], or in `PLACE_LOSSES`, over
            labels [B] and descriptors [B, D].
        **settings: settings of the loss. `kernel` and `inverse_bandwidth`, of
            the SARE losses, are ignored by other losses. `margin`, `scale`,
            `temperature`, `miner`, `scaling`, `hardest_negatives`,
            `group_sizes` and `num_places`, which place_cosface needs, are
            refused for a loss that does not have them; None, or the default of
            `scaling` and `hardest_negatives`, stands for the default of the
            loss.

    Returns:
        keras.losses.Loss.

    Raises:
        ValueError: unknown name, a setting that the loss does not have, or one
            that it needs.
        ImportError: a loss of TensorFlow Similarity, if that is not installed.
    """
    if name not in _ALL:
        raise ValueError(
            f"Expected a loss: {', '.join(_ALL)}. Received: name={name!r}."
        )
    unknown = sorted(set(settings) - set(_NEUTRAL))
    if unknown:
        raise ValueError(
            f"Expected settings of losses: {', '.join(_NEUTRAL)}. Received: "
            f"{unknown}."
        )
    path, fixed, taken = _ALL[name]
    given = {
        key: value
        for key, value in settings.items()
        if value != _NEUTRAL[key] and key not in _IGNORED
    }
    for key in given:
        if key not in taken and given[key] != _NOTHING.get(key):
            raise _not_taken(name, key, given[key])
    if "num_places" in taken and "num_places" not in given:
        raise ValueError(
            f"Expected num_places for the loss {name}: the number of places "
            "to tell apart. Received: num_places=None."
        )
    given |= {key: settings[key] for key in _IGNORED if key in settings}
    module, _, loss = path.partition(".")
    make = getattr(importlib.import_module(f"sare_tf.losses.{module}"), loss)
    return make(**fixed, **{key: given[key] for key in taken if key in given})


def _not_taken(name, setting, value):
    having = [other for other in _ALL if setting in _ALL[other][2]]
    return ValueError(
        f"Expected no {setting} for the loss {name}, which has none; only "
        f"these have one: {', '.join(having)}. Received: {setting}={value!r}. "
        f"Leave {_FLAGS.get(setting, '--' + setting)} out."
    )
