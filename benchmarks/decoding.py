"""Compares reading an image's header, and decoding, with less than that.

    python -m benchmarks.decoding

A photograph is smooth noise, 640 x 480 pixels. Columns, in microseconds of all
cores and medians of repeated batches of a tf.data pipeline:

- bare: `tf.io.decode_jpeg`, as exactly as sare_tf decodes.
- decode: `image_decoding.decode`, which reads the header, refuses what costs
  too much, and turns the image upright.
- header: `image_header.read`, the walk over all segments.
- first bytes: what says less. The size by `tf.io.extract_jpeg_shape`, and
  whether a regular expression finds EXIF in the first 4,096 bytes; sare_tf
  read no other EXIF before version 0.1.0.
"""

import io
import statistics
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import app, flags
from PIL import Image

from sare_tf.dataset import image_decoding, image_header
from sare_tf.runtime import tfdata_threads

FLAGS = flags.FLAGS
flags.DEFINE_integer("repeats", 25, "Batches of each cell.", 1)

_HEIGHT, _WIDTH = 480, 640
_BATCH = 100
_EXIF = r"\C*Exif\x00\x00\C*"


def files() -> dict[str, bytes]:
    """Returns encoded photographs by what is particular to them."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((_WIDTH, _HEIGHT), 3)
    grain = rng.integers(-12, 13, (_HEIGHT, _WIDTH, 3))
    pixels = (np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)

    def encode(kind: str = "JPEG", **options) -> bytes:
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, kind, **options)
        return encoded.getvalue()

    upright, turned = Image.Exif(), Image.Exif()
    upright[0x0112], turned[0x0112] = 1, 6
    first = encode(exif=turned)
    xmp = b"http://ns.adobe.com/xmp/extension/\0" + bytes(50_000)
    xmp = b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp
    return {
        "without EXIF": encode(),
        "upright by EXIF": encode(exif=upright),
        "turned by EXIF": first,
        "turned, behind 50 kB of XMP": first[:2] + xmp + first[2:],
        "progressive": encode(progressive=True),
        "PNG": encode("PNG"),
    }


def bare(encoded: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_jpeg(
        encoded, channels=3, dct_method="INTEGER_ACCURATE"
    )
    return tf.shape(image)


def decode(encoded: tf.Tensor) -> tf.Tensor:
    return tf.shape(image_decoding.decode(encoded))


def header(encoded: tf.Tensor) -> tf.Tensor:
    return tf.stack(image_header.read(encoded))


def first_bytes(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.cond(
        tf.strings.substr(encoded, 0, 3) == image_header.JPEG,
        lambda: tf.io.extract_jpeg_shape(encoded),
        lambda: tf.zeros(3, tf.int32),
    )
    head = tf.strings.substr(encoded, 0, 1 << 12)
    return shape, tf.strings.regex_full_match(head, _EXIF)


def microseconds(
    function: Callable[[tf.Tensor], object], encoded: bytes
) -> float:
    """Returns the time of all cores for one image."""
    dataset = tf.data.Dataset.from_tensors(encoded).repeat().map(function)
    batches = iter(tfdata_threads.fixed(dataset.batch(_BATCH)))
    for _ in range(3):  # the first ones instantiate the graph
        next(batches)
    seconds = []
    for _ in range(FLAGS.repeats):
        begin = time.process_time()
        next(batches)
        seconds.append(time.process_time() - begin)
    return 1e6 * statistics.median(seconds) / _BATCH


def main(argv):
    del argv
    print(
        "| file | kB | bare | decode | times bare | header | first bytes "
        "| times first bytes |\n|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    for name, encoded in files().items():
        of_bare, of_decode, of_header, of_first = (
            microseconds(function, encoded)
            for function in (bare, decode, header, first_bytes)
        )
        print(
            f"| {name} | {len(encoded) / 1000:.0f} | {of_bare:.0f} "
            f"| {of_decode:.0f} | {of_decode / of_bare:.2f} | {of_header:.0f} "
            f"| {of_first:.0f} | {of_header / of_first:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
