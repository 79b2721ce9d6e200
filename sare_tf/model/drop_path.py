"""The random numbers of stochastic depth, which come with the batch.

As augmentation, `ScaledResidual` takes its numbers from the batch and keeps no
state: replicas, workers and a resumed run leave out the same branches. A
functional model hands its layers only tensors, so the network puts the numbers
beside its call, and each layer finds its own.

Axis letters: B images, R numbers of an image.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras

# Replicas are traced in threads of their own.
_local = threading.local()


@contextlib.contextmanager
def given(draws: Any) -> Iterator[None]:
    """Gives draws to the layers that are called within a block.

    Args:
        draws: uniform numbers in 0..1, [B, R]; None for none.
    """
    before = current()
    _local.draws = draws
    try:
        yield
    finally:
        _local.draws = before


def draws_of(images: Any) -> Any:
    """Returns the draws of a batch, [B, R]; None if it has none."""
    return images.get("path_draws") if isinstance(images, dict) else None


def current() -> Any:
    """Returns the draws of the block that the call is in; None for none."""
    return getattr(_local, "draws", None)


def drawn(column: int) -> Any:
    """Returns the given draws of a layer, [B].

    Raises:
        ValueError: none were given.
    """
    draws = current()
    if draws is None or draws.shape[-1] <= column:
        raise ValueError(
            f"Expected {column + 1} or more numbers of an image for stochastic "
            "depth. Received: "
            f"path_draws={draws if draws is None else tuple(draws.shape)}. "
            "Train on a dataset with draws=AugmentationDraws(0, path_draws=2 * "
            "blocks), or set drop_path to 0."
        )
    return draws[:, column]


@keras.saving.register_keras_serializable(package="sare_tf")
class TakesPathDraws(keras.layers.Layer):
    """Returns images unchanged, and makes draws an input of their network.

    Call arguments:
        images: images of tuples.
        draws: numbers of stochastic depth, for `given`.

    Input shape:
        [B, H, W, 3] and [..., R].

    Output shape:
        [B, H, W, 3].
    """

    def call(self, images, draws):
        del draws
        return images

    def compute_output_shape(self, images_shape, draws_shape):
        del draws_shape
        return images_shape
