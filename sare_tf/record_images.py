"""What is stored of an image: its file, or a part, or a smaller copy.

Bytes are kept where nothing is to be changed. What is made anew is upright and
has no EXIF header, so that it is turned once only. Sizes are those of upright
images, as `images.decode` gives them.
"""

import struct

import tensorflow as tf

from sare_tf import images, orientation
from sare_tf.record_plan import Preparation

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
    encoded: bytes, *, box: Box | None, preparation: Preparation
) -> tuple[bytes, int, int]:
    """Makes what is stored of an image.

    Args:
        encoded: bytes of the file.
        box: the part that is the image; what lies beyond the file's image is
            left out. Stored as PNG, which loses nothing. None: all of it.
        preparation: what is done to it.

    Returns:
        The bytes to store, and their upright height and width.

    Raises:
        ValueError: it is refused; says why in one line.
    """
    longest = preparation.longest_side
    quality = preparation.jpeg_quality
    if box is None and not quality:
        height, width = _checked_size(encoded, preparation)
        if not longest or max(height, width) <= longest:
            return encoded, height, width
    image = images.pixels(encoded)
    if box is not None:
        image = images.cut(image, box)
    height, width, _ = image.shape
    if longest and max(height, width) > longest:
        scale = longest / max(height, width)
        height, width = (
            max(round(side * scale), 1) for side in (height, width)
        )
        image = images.resize(image, height=height, width=width)
        quality = quality or _QUALITY
    if quality:
        encoded = tf.io.encode_jpeg(image, quality=quality).numpy()
    else:
        encoded = tf.io.encode_png(image).numpy()
    return encoded, height, width


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
        raise ValueError(images.why_not(encoded))
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
            if has_exif and orientation.read(encoded) >= 5:
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


def _checked_size(encoded: bytes, preparation: Preparation) -> tuple[int, int]:
    """Upright height and width, once the image has passed."""
    try:
        height, width = header_size(encoded)
    except ValueError:
        if not preparation.verify:
            raise
        height = width = 0
    if 0 < height * width <= images.MOST_PIXELS:
        if not preparation.verify or _has_whole_scan(encoded, height, width):
            return height, width
    # The decoder has the last word, and its reason.
    height, width, _ = images.pixels(encoded).shape
    return height, width


def _has_whole_scan(encoded: bytes, height: int, width: int) -> bool:
    """True for a JPEG that decodes: all its coefficients are read, but
    transformed at an eighth of the size, which cannot fail and takes less."""
    if not encoded.startswith(_JPEG):
        return False
    try:
        found = _eighth(encoded).numpy().tolist()
    except tf.errors.InvalidArgumentError:
        return False
    # Of a file with two headers, say, which the decoder is asked about.
    return sorted(found) == sorted([-(-height // 8), -(-width // 8)])


# The pixels stay where they are decoded.
@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _eighth(encoded: tf.Tensor) -> tf.Tensor:
    return tf.shape(tf.io.decode_jpeg(encoded, channels=3, ratio=8))[:2]
