"""What tests of exports share."""

import functools
import io

import keras
import numpy as np
from PIL import Image

from sare_tf import serving
from sare_tf.dataset import image_decoding
from sare_tf.records.records import Records
from sare_tf.training.run_folder import read_state

# Numbers of a whitened descriptor.
WHITENED = 5


def photographs():
    """Of several sizes and formats; the last one held sideways."""
    rng = np.random.default_rng(0)
    encoded = []
    sideways = Image.Exif()
    sideways[0x0112] = 6
    for kind, shape, exif in (
        ("JPEG", (32, 32, 3), b""),
        ("JPEG", (75, 100, 3), b""),
        ("PNG", (20, 31, 3), b""),
        ("JPEG", (40, 40), b""),
        ("JPEG", (40, 56, 3), sideways),
    ):
        low = rng.integers(0, 256, (shape[0] // 4 + 1, shape[1] // 4 + 1))
        pixels = low.repeat(4, 0).repeat(4, 1)[: shape[0], : shape[1]]
        if len(shape) == 3:
            pixels = np.stack([pixels, pixels // 2, 255 - pixels], -1)
        buffer = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, kind, exif=exif)
        encoded.append(buffer.getvalue())
    return encoded


@functools.cache
def load(path):
    """An export that no test changes."""
    return serving.load(path)


@functools.cache
def embedder(root):
    """As it was trained."""
    _, state = read_state(root / "checkpoints")
    path = root / "checkpoints" / state["best"] / "model.keras"
    return keras.models.load_model(path).get_layer("embedder")


def expected(root, encoded):
    """By the Keras model, on images decoded one by one."""
    batch = np.stack(
        [image_decoding.load(one, height=32, width=32) for one in encoded]
    )
    return embedder(root).predict(batch, verbose=0)


def unit(rows):
    return rows / np.sqrt(np.sum(rows**2, axis=1, keepdims=True) + 1e-12)


def whitened(root, descriptors, dimension):
    """By the singular values of the train database's descriptors."""
    records = Records(root / "records")
    rows = records.rows("train", "database")
    fitted_to = np.float64(expected(root, records.read_images(rows)))
    mean = fitted_to.mean(axis=0)
    _, singular, directions = np.linalg.svd(fitted_to - mean)
    variances = singular[:dimension] ** 2 / (len(fitted_to) - 1)
    projection = directions[:dimension].T / np.sqrt(variances + 1e-9)
    largest = np.abs(projection).argmax(axis=0)
    projection *= np.sign(projection[largest, range(dimension)])
    return unit((np.float64(descriptors) - mean) @ projection)


def damaged():
    """None of them can be decoded."""
    jpeg, png = photographs()[1:3]
    return [b"", b"text", jpeg[: len(jpeg) // 2], jpeg[:-40], png[:-40]]
