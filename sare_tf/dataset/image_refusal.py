"""Which image files are refused, by their header, and why.

A JPEG or PNG within the limits of `image_limits` is decoded; every other file
is refused before it takes memory or time.
"""

import tensorflow as tf

from sare_tf.dataset import image_header
from sare_tf.dataset.image_header import JPEG, Header
from sare_tf.dataset.image_limits import (
    MOST_JPEG_BYTES,
    MOST_PIXELS,
    MOST_PIXELS_OF_SCANS,
    MOST_SCANS,
    UNCOUNTED,
)
from sare_tf.dataset.png_header import PNG

# First bytes of files that often have the name of a JPEG, by position.
_OTHERS = (
    (0, b"GIF8", "a GIF"),
    (0, b"BM", "a BMP"),
    (8, b"WEBP", "a WebP"),
    (4, b"ftyphei", "a HEIC"),
    (4, b"ftypmif1", "a HEIC"),
    (4, b"ftypavif", "an AVIF"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    (0, b"<", "an HTML or XML"),
)


def is_usable(image_bytes: tf.Tensor, header: Header) -> tf.Tensor:
    """Returns whether an image, string [], is within the limits, bool []."""
    height, width, _, scans = tf.unstack(tf.cast(tf.stack(header), tf.int64))
    pixels = height * width
    num_bytes = tf.cast(tf.strings.length(image_bytes), tf.int64)
    is_jpeg = tf.strings.substr(image_bytes, 0, 1) == JPEG[:1]
    jpeg_bytes = tf.where(is_jpeg, num_bytes, 0)
    amounts = tf.stack([1 - pixels, pixels, scans, pixels * scans, jpeg_bytes])
    most = [0, MOST_PIXELS, MOST_SCANS, MOST_PIXELS_OF_SCANS, MOST_JPEG_BYTES]
    return tf.reduce_all(amounts <= most)


def why_not(encoded: bytes) -> str:
    """Says in one line why an image that cannot be decoded is refused."""
    kind = "JPEG" if encoded.startswith(JPEG) else "PNG"
    return header_problem(encoded) or f"a damaged or truncated {kind}"


def header_problem(encoded: bytes) -> str:
    """Says why an image is refused before it is decoded; empty if it is not."""
    if not encoded:
        return "empty file"
    if not encoded.startswith((JPEG, PNG)):
        kinds = [
            f": {name} file"
            for offset, first_bytes, name in _OTHERS
            if encoded.startswith(first_bytes, offset)
        ]
        return "not a JPEG or PNG image" + (kinds or [""])[0]
    kind = "JPEG" if encoded.startswith(JPEG) else "PNG"
    if kind == "JPEG" and len(encoded) > MOST_JPEG_BYTES:
        return (
            f"a JPEG of more than {MOST_JPEG_BYTES >> 20} MiB, which takes too "
            "long to decode: save it with a lower quality"
        )
    height, width, _, scans = map(int, image_header.read(encoded))
    if height < 1 or width < 1:
        return f"a {kind} with a damaged or truncated header"
    if height * width > MOST_PIXELS:
        return (
            f"{width} x {height} are more than {MOST_PIXELS:,} pixels: make "
            "it smaller"
        )
    if scans == UNCOUNTED:
        return f"a {kind} of too many parts to read: save it again"
    parts = "scans" if kind == "JPEG" else "compressed texts"
    if scans <= MOST_SCANS and height * width * scans > MOST_PIXELS_OF_SCANS:
        return (
            f"a {kind} of {width} x {height} pixels and {scans} {parts}, which "
            "takes too long to decode: save it again, or make it smaller"
        )
    if scans > MOST_SCANS:
        return (
            f"a {kind} of more than {MOST_SCANS} {parts}, which takes too long "
            "to decode: save it again"
        )
    return ""
