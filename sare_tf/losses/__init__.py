"""Losses over descriptors: over tuples, and over place batches."""

from sare_tf.losses.distances import pairwise_distances, tuple_distances
from sare_tf.losses.kernels import KERNELS
from sare_tf.losses.place_sare import PlaceSARELoss
from sare_tf.losses.sare import SARELoss, sare_independent, sare_joint
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
    "AngularLoss",
    "ContrastiveLoss",
    "LiftedStructureLoss",
    "NPairLoss",
    "PlaceSARELoss",
    "QuadrupletLoss",
    "SARELoss",
    "TripletLoss",
    "angular",
    "contrastive",
    "lifted_structure",
    "n_pair",
    "pairwise_distances",
    "quadruplet",
    "sare_independent",
    "sare_joint",
    "triplet",
    "tuple_distances",
]
