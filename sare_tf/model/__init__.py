"""The network: images to descriptors."""

from sare_tf.model.embedder import (
    build_embedder,
    initialise_netvlad,
    over_tuples,
)
from sare_tf.model.netvlad import NetVLAD, netvlad_initial_weights
from sare_tf.model.pooling import MAC, RMAC, GeM, SPoC
from sare_tf.model.whitening import Whitening

__all__ = [
    "MAC",
    "RMAC",
    "GeM",
    "NetVLAD",
    "SPoC",
    "Whitening",
    "build_embedder",
    "initialise_netvlad",
    "netvlad_initial_weights",
    "over_tuples",
]
