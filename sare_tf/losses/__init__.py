"""Losses over descriptors: over tuples, and over place batches."""

from sare_tf.losses.distances import pairwise_distances, tuple_distances
from sare_tf.losses.kernels import KERNELS
from sare_tf.losses.place_losses import (
    PlaceContrastiveLoss,
    PlaceLiftedStructureLoss,
    PlaceNPairsLoss,
    PlaceTripletHardLoss,
    PlaceTripletSemiHardLoss,
    place_contrastive,
    place_lifted_structure,
    place_n_pairs,
    place_triplet_hard,
    place_triplet_semihard,
)
from sare_tf.losses.place_sare import PlaceSARELoss
from sare_tf.losses.registry import PLACE_LOSSES, TUPLE_LOSSES, build
from sare_tf.losses.sare import SARELoss, sare_independent, sare_joint
from sare_tf.losses.similarity import SimilarityLoss
from sare_tf.losses.tuple_losses import (
    AngularLoss,
    ContrastiveLoss,
    LiftedStructureLoss,
    NPairLoss,
    QuadrupletLoss,
    TripletLoss,
    angular,
    contrastive,
    lifted_structure,
    n_pair,
    quadruplet,
    triplet,
)

__all__ = [
    "KERNELS",
    "PLACE_LOSSES",
    "TUPLE_LOSSES",
    "AngularLoss",
    "ContrastiveLoss",
    "LiftedStructureLoss",
    "NPairLoss",
    "PlaceContrastiveLoss",
    "PlaceLiftedStructureLoss",
    "PlaceNPairsLoss",
    "PlaceSARELoss",
    "PlaceTripletHardLoss",
    "PlaceTripletSemiHardLoss",
    "QuadrupletLoss",
    "SARELoss",
    "SimilarityLoss",
    "TripletLoss",
    "angular",
    "build",
    "contrastive",
    "lifted_structure",
    "n_pair",
    "pairwise_distances",
    "place_contrastive",
    "place_lifted_structure",
    "place_n_pairs",
    "place_triplet_hard",
    "place_triplet_semihard",
    "quadruplet",
    "sare_independent",
    "sare_joint",
    "triplet",
    "tuple_distances",
]
