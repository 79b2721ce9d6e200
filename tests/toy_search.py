"""A tiny dataset and a tiny real export, for the stages right of export."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from sare_tf import build_records
from sare_tf.dataset import image_decoding
from sare_tf.records.options import RecordOptions

DIMENSION = 48


def jpeg(place: int, view: int) -> bytes:
    """Place decides the picture, view adds a little noise."""
    pattern = np.random.default_rng(place).integers(40, 216, (4, 4, 3))
    noise = np.random.default_rng((place, view)).integers(-9, 10, (4, 4, 3))
    pixels = (pattern + noise).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=95)
    return encoded.getvalue()


def photographs(
    folder: Path,
    *,
    views=(3, 2),
    places=6,
    first_place=0,
    far_queries=0,
    split="test",
) -> Path:
    """Writes places 100 m apart and views, (database, query), 2 m apart.

    Queries stand 1 m beside the database images. They show their place, except
    those of the last place, which show the first one. Far queries show the
    first place, too, 100 km away from it.
    """
    for role, count in zip(("database", "queries"), views, strict=True):
        images = folder / "images" / split / role
        images.mkdir(parents=True)
        for place in range(first_place, first_place + places):
            for view in range(count):
                east = 500_000 + 100 * place + 2 * view
                if role == "database":
                    picture = jpeg(place, view)
                else:
                    east += 1
                    last = 0 < place == first_place + places - 1
                    picture = jpeg(0 if last else place, 50 + view + place)
                _write(images, east, picture)
    for view in range(far_queries):
        _write(images, 600_000 + view, jpeg(0, 90 + view))
    return folder


def _write(folder: Path, east: int, picture: bytes) -> None:
    name = f"@{east:.2f}@4500000.00@17@T@@@@@@@@@@@.jpg"
    (folder / name).write_bytes(picture)


def records(root: Path, **options) -> Path:
    """Builds the records of `photographs`."""
    return build_records.run(
        RecordOptions(
            dataset=photographs(root / "photos", **options),
            records=root / "records",
            reader="at_names",
        )
    )


class _Pixels(tf.Module):
    """16 x 3 pixels, mean removed, unit length times `length`."""

    def __init__(self, length: float):
        super().__init__()
        self.fingerprint = hashlib.sha256(str(length).encode()).hexdigest()
        self.length = tf.Variable(length)

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")]
    )
    def serve(self, image_bytes):
        pixels, valid = image_decoding.load_batch(
            image_bytes, height=4, width=4
        )
        flat = tf.reshape(tf.cast(pixels, tf.float32), (-1, DIMENSION))
        flat -= tf.reduce_mean(flat, axis=1, keepdims=True)
        descriptor = tf.math.l2_normalize(flat, 1) * self.length
        # As of every export: zeros where an image cannot be decoded.
        descriptor = tf.where(valid[:, None], descriptor, 0.0)
        name = tf.fill(tf.shape(image_bytes), self.fingerprint)
        return {"descriptor": descriptor, "valid": valid, "fingerprint": name}


def export(folder: Path, *, length: float = 1.0) -> Path:
    """Writes version 1 of an export whose descriptors have that length."""
    module = _Pixels(length)
    version = folder / "1"
    tf.saved_model.save(
        module, str(version), signatures={"serving_default": module.serve}
    )
    card = {"dimension": DIMENSION, "fingerprint": module.fingerprint}
    (version / "sare_tf.json").write_text(json.dumps(card))
    return folder


def unit(seed: int, *shape: int) -> np.ndarray:
    """Random unit vectors, float32."""
    values = np.random.default_rng(seed).normal(size=shape)
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    return values.astype(np.float32)
