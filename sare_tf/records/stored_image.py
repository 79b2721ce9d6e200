"""What is stored of an image: its file, or a part, or a smaller copy.

Bytes are kept where nothing is to be changed. What is made anew is upright and
has no EXIF header, so that it is turned once only. Sizes are those of upright
images, as `images.decode` gives them.
"""

import struct
from collections.abc import Sequence

import tensorflow as tf

from sare_tf.dataset import exif_orientation, image_decoding
from sare_tf.records.shard_plan import Preparation

# JPEG quality of what is made smaller, if none is given.
_QUALITY = 95
# Left, top, right, bottom, in pixels of the upright image.
Box = tuple[float, float, float, float]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# Markers of a frame, which holds the size: ITU-T T.81, table B.1; those left
# out are tables and the reserved JPG.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a segment: TEM, RSTn and SOI.
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
# Start of scan and end of image: the size comes before either.
_ENDS = frozenset({0xD9, 0xDA})


def prepare(
    encoded: bytes,
    *,
    box: Box | None,
    preparation: Preparation,
    eighth: tuple[int, int] | None = None,
) -> tuple[bytes, int, int]:
    """Makes what is stored of an image.

    Args:
        encoded: bytes of the file.
        box: the part that is the image; what lies beyond the file's image is
            left out. Stored as PNG, which loses nothing. None: all of it.
        preparation: what is done to it.
        eighth: what `eighths` gave for it.

    Returns:
        The bytes to store, and their upright height and width.

    Raises:
        ValueError: it is refused; says why in one line.
    """
    longest = preparation.longest_side
    quality = preparation.jpeg_quality
    if box is None and not quality:
        height, width = _checked_size(encoded, preparation, eighth)
        if not longest or max(height, width) <= longest:
            return encoded, height, width
    image = image_decoding.pixels(encoded)
    if box is not None:
        image = image_decoding.cut(image, box)
    height, width, _ = image.shape
    if longest and max(height, width) > longest:
        scale = longest / max(height, width)
        height, width = (
            max(round(side * scale), 1) for side in (height, width)
        )
        image = image_decoding.resize(image, height=height, width=width)
        quality = quality or _QUALITY
    if quality:
        encoded = tf.io.encode_jpeg(image, quality=quality).numpy()
    else:
        encoded = tf.io.encode_png(image).numpy()
    return encoded, height, width


def eighths(batch: Sequence[bytes]) -> list[tuple[int, int] | None]:
    """Decodes JPEGs at an eighth of their size, which finds those that cannot
    be: all coefficients are read, and to transform fewer of them cannot fail.

    All at once, which takes half the time of one after the other.

    Args:
        batch: bytes of files.

    Returns:
        Height and width as stored, of the eighth. None for what is no JPEG or
        is too large; for all, if one cannot be decoded.
    """
    found = [None] * len(batch)
    rows = [row for row, encoded in enumerate(batch) if _is_for_eighth(encoded)]
    try:
        sizes = _eighths(tf.constant([batch[row] for row in rows], tf.string))
    except tf.errors.InvalidArgumentError:
        return found
    for row, (height, width) in zip(rows, sizes.numpy().tolist(), strict=True):
        found[row] = (height, width)
    return found


def header_size(encoded: bytes) -> tuple[int, int]:
    """Upright height and width, by the header alone.

    Raises:
        ValueError: it is neither a JPEG nor a PNG with a size.
    """
    if encoded.startswith(_PNG):
        size = _png_size(encoded)
    elif encoded.startswith(_JPEG):
        size = _jpeg_size(encoded)
    else:
        size = None
    if size is None or 0 in size:
        raise ValueError(image_decoding.why_not(encoded))
    return size


def _png_size(encoded: bytes) -> tuple[int, int] | None:
    """Of its first chunk, IHDR: PNG specification, section 11.2.2."""
    if len(encoded) < 24 or encoded[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", encoded, 16)
    return height, width


def _jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """Of its frame: ITU-T T.81, sections B.1.1 and B.2.2."""
    at = 2
    while at + 9 <= len(encoded) and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", encoded, at + 5)
            # Cheaper than to ask for the orientation of every image.
            has_exif = encoded.find(b"Exif\0\0", 0, at) >= 0
            if has_exif and exif_orientation.read(encoded) >= 5:
                return width, height
            return height, width
        if marker in _ENDS:
            break
        if marker == 0xFF:  # fill
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            at += 2 + struct.unpack_from(">H", encoded, at + 2)[0]
    return None


def _checked_size(
    encoded: bytes, preparation: Preparation, eighth: tuple[int, int] | None
) -> tuple[int, int]:
    """Upright height and width, once the image has passed."""
    try:
        height, width = header_size(encoded)
    except ValueError:
        if not preparation.verify:
            raise
        height = width = 0
    if 0 < height * width <= image_decoding.MOST_PIXELS:
        if not preparation.verify:
            return height, width
        found = eighth or eighths([encoded])[0]
        # Others have two headers, say, which the decoder is asked about.
        if found and sorted(found) == sorted([-(-height // 8), -(-width // 8)]):
            return height, width
    # The decoder has the last word, and its reason.
    height, width, _ = image_decoding.pixels(encoded).shape
    return height, width


def _is_for_eighth(encoded: bytes) -> bool:
    if not encoded.startswith(_JPEG):
        return False
    try:
        height, width = header_size(encoded)
    except ValueError:
        return False
    return height * width <= image_decoding.MOST_PIXELS


# The pixels stay where they are decoded.
@tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
def _eighths(encoded: tf.Tensor) -> tf.Tensor:
    return tf.map_fn(
        lambda one: tf.shape(tf.io.decode_jpeg(one, channels=3, ratio=8))[:2],
        encoded,
        fn_output_signature=tf.TensorSpec([2], tf.int32),
        parallel_iterations=32,
    )
