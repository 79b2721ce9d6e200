"""Pixel arrays: smooth noise, and conversion between floats and bytes."""

import numpy as np
from PIL import Image


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, *, cells: int
) -> np.ndarray:
    """Draws noise from about 0 to 1 that varies slowly.

    Args:
        rng: source of the noise.
        height: rows of the result.
        width: columns of the result.
        cells: bumps along each side.

    Returns:
        float32 [height, width].
    """
    coarse = rng.random((cells + 1, cells + 1)).astype(np.float32)
    image = Image.fromarray(coarse)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def to_bytes(colours: np.ndarray) -> np.ndarray:
    """Rounds colours from 0 to 1 to uint8, and clips the others."""
    return (np.clip(colours, 0, 1) * 255 + 0.5).astype(np.uint8)


def to_floats(image: Image.Image) -> np.ndarray:
    """Returns the colours of an image as float32 from 0 to 1."""
    return np.asarray(image).astype(np.float32) / 255.0
