"""Modules with classes that Keras finds by name once they are imported."""

from sare_tf.losses import (
    bandwidth,
    pair_losses,
    place_cosface,
    place_losses,
    place_sare,
    sare,
    similarity,
    tuple_losses,
)

MODULES = (
    bandwidth,
    pair_losses,
    place_cosface,
    place_losses,
    place_sare,
    sare,
    similarity,
    tuple_losses,
)
