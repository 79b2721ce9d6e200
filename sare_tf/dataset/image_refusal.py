"""Which image files are refused, by their header, and why.

A JPEG or PNG of at most `MOST_PIXELS` and `MOST_SCANS` is decoded; every other
file is refused before it takes memory or time.
"""

import tensorflow as tf

from sare_tf.dataset import image_header
from sare_tf.dataset.image_header import JPEG, PNG, Header
from sare_tf.dataset.image_limits import MOST_PIXELS, MOST_SCANS

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


def is_usable(header: Header) -> tf.Tensor:
    """Returns whether an image is within the limits, bool []."""
    height, width, _, scans = tf.unstack(tf.cast(tf.stack(header), tf.int64))
    pixels = height * width
    amounts = tf.stack([1 - pixels, pixels, scans])
    return tf.reduce_all(amounts <= [0, MOST_PIXELS, MOST_SCANS])


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
    height, width, _, scans = map(int, image_header.read(encoded))
    if height < 1 or width < 1:
        return f"a {kind} with a damaged or truncated header"
    if height * width > MOST_PIXELS:
        return (
            f"{width} x {height} are more than {MOST_PIXELS:,} pixels: make "
            "it smaller"
        )
    if scans == image_header.UNCOUNTED:
        return f"a {kind} of too many parts to read: save it again"
    if scans > MOST_SCANS:
        parts = "scans" if kind == "JPEG" else "compressed texts"
        return (
            f"a {kind} of more than {MOST_SCANS} {parts}, which takes too long "
            "to decode: save it again"
        )
    return ""
