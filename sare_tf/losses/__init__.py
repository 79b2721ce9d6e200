"""Losses over descriptors: over tuples, and over place batches."""

from sare_tf.losses.distances import pairwise_distances, tuple_distances
from sare_tf.losses.kernels import KERNELS
from sare_tf.losses.place_sare import PlaceSARELoss
from sare_tf.losses.sare import SARELoss, sare_independent, sare_joint

__all__ = [
    "KERNELS",
    "PlaceSARELoss",
    "SARELoss",
    "pairwise_distances",
    "sare_independent",
    "sare_joint",
    "tuple_distances",
]
