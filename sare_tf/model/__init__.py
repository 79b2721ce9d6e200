"""The network: images to descriptors."""

from sare_tf.model.augmentation import Augmentation
from sare_tf.model.clusters import (
    assignment_sharpness,
    netvlad_initial_weights,
    read_centres,
)
from sare_tf.model.embedder import (
    build_embedder,
    in_float32,
    initialise_netvlad,
    over_tuples,
)
from sare_tf.model.netvlad import NetVLAD
from sare_tf.model.pooling import MAC, RMAC, GeM, SPoC
from sare_tf.model.whitening import Whitening

__all__ = [
    "MAC",
    "RMAC",
    "Augmentation",
    "GeM",
    "NetVLAD",
    "SPoC",
    "Whitening",
    "assignment_sharpness",
    "build_embedder",
    "in_float32",
    "initialise_netvlad",
    "netvlad_initial_weights",
    "over_tuples",
    "read_centres",
]
