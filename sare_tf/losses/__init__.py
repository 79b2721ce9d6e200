"""Losses over descriptors, in `keras.ops`."""

from sare_tf.losses.kernels import KERNELS
from sare_tf.losses.place import PlaceSARELoss
from sare_tf.losses.sare import (
    SARELoss,
    sare_independent,
    sare_joint,
    tuple_distances,
)

__all__ = [
    "KERNELS",
    "PlaceSARELoss",
    "SARELoss",
    "sare_independent",
    "sare_joint",
    "tuple_distances",
]
