"""Measures the most work that an image within the limits can cause.

    python -m benchmarks.worst_images

Each row is a file of `MOST_PIXELS` within the limits of `dataset.image_limits`.
It is decoded in a process of its own: core seconds, and the memory above that
before it. The last row is a request of 8 of the worst, which an export also
resizes, to 640 x 480 pixels.
"""

import io
import struct
import time
import zlib

import numpy as np
import tensorflow as tf
from absl import app
from PIL import Image

from benchmarks import measure
from sare_tf.dataset import image_decoding, image_limits, image_refusal

_SIDE = 1 << 13
_TILE = 1 << 10
_REQUEST = 8


def _noise(amplitude: int) -> Image.Image:
    tile = np.random.default_rng(0).integers(
        0, amplitude, (_TILE, _TILE, 3), np.uint8
    )
    times = _SIDE // _TILE
    return Image.fromarray(np.tile(tile, (times, times, 1)))


def _jpeg(image: Image.Image, **options) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", **options)
    return encoded.getvalue()


def _with_scans(encoded: bytes) -> bytes:
    """Repeats the last scan of a progressive JPEG as often as the limits do."""
    last = encoded[encoded.rindex(b"\xff\xc4") : -2]
    copies = min(
        image_limits.MOST_PIXELS_OF_SCANS // _SIDE**2 - 10,
        (image_limits.MOST_JPEG_BYTES - len(encoded)) // len(last),
    )
    return encoded[:-2] + copies * last + encoded[-2:]


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 5
    return exif


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def _png() -> bytes:
    """A PNG of 16 bits with transparency, interlaced, of noise."""
    packed, parts = zlib.compressobj(1), []
    noise = np.random.default_rng(0).bytes(8 * _SIDE)
    # First row and column, and steps, of Adam7's passes.
    for row, column, down, right in (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ):
        width = -(-(_SIDE - column) // right)
        line = packed.compress(b"\4" + noise[: 8 * width])  # Paeth
        for _ in range(-(-(_SIDE - row) // down) - 1):
            parts.append(line)
            line = packed.compress(b"\4" + noise[: 8 * width])
        parts.append(line)
    parts.append(packed.flush())
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 16, 6, 0, 0, 1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", b"".join(parts))
        + _chunk(b"IEND", b"")
    )


def _grey() -> Image.Image:
    return Image.new("RGB", (_SIDE, _SIDE), "gray")


FILES = {
    "JPEG, grey, turned": lambda: _jpeg(_grey(), exif=_turned()),
    "JPEG, grey, 16 scans": lambda: _with_scans(
        _jpeg(_grey(), progressive=True)
    ),
    "JPEG, faint noise, 16 scans": lambda: _with_scans(
        _jpeg(_noise(24), progressive=True, quality=60)
    ),
    "JPEG, noise, as many scans as 64 MiB hold": lambda: _with_scans(
        _jpeg(_noise(256), progressive=True)
    ),
    "JPEG, noise, one scan, turned": lambda: _jpeg(
        _noise(256), quality=90, exif=_turned()
    ),
    "PNG, 16 bits, interlaced": _png,
}


def measured(make: str, images: int) -> tuple[int, float, float]:
    """Returns bytes of a file, core seconds and MiB of decoding."""
    encoded = FILES[make]()
    problem = image_refusal.header_problem(encoded)
    if problem:
        raise ValueError(problem)
    batch = tf.constant([encoded] * images)

    def decode() -> object:
        if images == 1:
            return image_decoding.decode(batch[0])
        return image_decoding.load_batch(batch, height=480, width=640)

    before = measure.resident_bytes()
    measure.reset_peak()
    begin = time.process_time()
    decode()
    seconds = time.process_time() - begin
    return (
        len(encoded),
        seconds,
        (measure.peak_bytes() - before) / measure.MEBIBYTE,
    )


def main(argv):
    del argv
    print("| file | MB | core s | peak MiB |\n|---|---:|---:|---:|")
    seconds_of = {}
    for name in FILES:
        num_bytes, seconds, peak = measure.in_a_process(measured, name, 1)
        seconds_of[name] = seconds
        print(
            f"| {name} | {num_bytes / 1e6:.1f} | {seconds:.1f} | {peak:,.0f} |",
            flush=True,
        )
    worst = max(seconds_of, key=seconds_of.get)
    num_bytes, seconds, peak = measure.in_a_process(measured, worst, _REQUEST)
    print(
        f"| a request of {_REQUEST} of {worst} "
        f"| {_REQUEST * num_bytes / 1e6:.1f} | {seconds:.1f} | {peak:,.0f} |"
    )


if __name__ == "__main__":
    app.run(main)
