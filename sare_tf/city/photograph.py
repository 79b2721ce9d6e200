"""What a camera adds: exposure, colour, blur, noise and compression."""

import io

import numpy as np
from PIL import Image, ImageFilter

from sare_tf.city import pixels
from sare_tf.city.camera import SUPERSAMPLING
from sare_tf.city.moment import Moment

# How much pictures of one place differ. Larger values are harder.
LIGHT_STOPS = 0.35  # standard deviation of exposure
CAST = 0.08  # standard deviation of the gain of a channel


def photograph(
    lit: np.ndarray, moment: Moment, rng: np.random.Generator
) -> bytes:
    """Takes a photograph of what the rays bring.

    Args:
        lit: [h, w, 3], `SUPERSAMPLING` rays for each pixel and axis.
        moment: hour and weather.
        rng: source of the faults.

    Returns:
        A JPEG.
    """
    height, width = (size // SUPERSAMPLING for size in lit.shape[:2])
    picture = lit.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING, 3)
    picture = picture.mean((1, 3))
    if moment.weather == "rain":
        picture = _with_drops(picture, rng, count=90, length=6, opacity=0.25)
    elif moment.weather == "snow":
        picture = _with_drops(picture, rng, count=160, length=1, opacity=0.8)
    if moment.night:
        picture = picture * rng.uniform(1.3, 2.0)  # the camera opens up
    gain = 2 ** rng.normal(0.25, LIGHT_STOPS) * rng.normal(1, CAST, 3)
    picture = np.clip(picture * np.clip(gain, 0.5, 2.2), 0, 1)
    picture = picture ** rng.uniform(0.8, 1.2)
    contrast = rng.uniform(0.75, 1.15)
    picture = 0.5 + (picture - 0.5) * contrast
    grain = rng.normal(0, rng.uniform(0.005, 0.03), (height, width, 1))
    image = Image.fromarray(pixels.to_bytes(picture + grain))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=int(rng.integers(45, 93)))
    return encoded.getvalue()


def _with_drops(
    picture: np.ndarray,
    rng: np.random.Generator,
    *,
    count: int,
    length: int,
    opacity: float,
) -> np.ndarray:
    """Rain or snow in front of a picture [H, W, 3]; `length` in pixels."""
    height, width, _ = picture.shape
    drops = np.zeros((height, width), np.float32)
    rows = rng.integers(0, height, count)
    columns = rng.integers(0, width, count)
    for step in range(length):
        drops[(rows + step) % height, columns] = 1
    amount = opacity * drops[..., None]
    return picture * (1 - amount) + amount * 0.9
