"""What is stored of an image: its file, or a part of it, or a smaller copy.

The bytes of the file are kept where nothing is to be changed. New images are
upright and have no EXIF header, so that they are turned only once. Sizes are
those of upright images, as `image_decoding.decode` gives them.
"""

import struct
from collections.abc import Sequence

import tensorflow as tf

from sare_tf.dataset import exif_orientation, image_decoding, image_refusal
from sare_tf.dataset.image_refusal import JPEG, PNG
from sare_tf.records.shard_plan import Preparation

# JPEG quality of smaller copies, if none is given. Ours.
_QUALITY = 95
# To check a JPEG, each block of 8 x 8 coefficients is transformed to one pixel.
# All coefficients are read, and transforming fewer of them cannot fail.
_DCT_SCALE = 8
# Left, top, right, bottom, in pixels of the upright image.
Box = tuple[float, float, float, float]

# Markers of a frame, which holds the size: ITU-T T.81, table B.1, without those
# of tables and the reserved JPG.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a segment: TEM, RSTn and SOI.
_WITHOUT_SEGMENT = frozenset({0x01, *range(0xD0, 0xD9)})
# End of image and start of scan: the size comes before either.
_ENDS = frozenset({0xD9, 0xDA})


def prepare(
    encoded: bytes,
    *,
    box: Box | None,
    preparation: Preparation,
    dct_scaled: tuple[int, int] | None = None,
) -> tuple[bytes, int, int]:
    """Makes the bytes that are stored of an image.

    Args:
        encoded: bytes of the file.
        box: the part that is the image, up to the border of the file's image;
            it is stored as PNG, without loss. None: all of the file's image.
        preparation: what is done to it.
        dct_scaled: the result of `dct_scaled_sizes` for it, if it is known.

    Returns:
        The bytes to store, and their upright height and width.

    Raises:
        ValueError: the image is refused; says why in one line.
    """
    longest = preparation.longest_side
    quality = preparation.jpeg_quality
    if box is None and not quality:
        height, width = _checked_size(encoded, preparation, dct_scaled)
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


def dct_scaled_sizes(batch: Sequence[bytes]) -> list[tuple[int, int] | None]:
    """Decodes JPEGs at an eighth of their size, to see whether they decode.

    One call for all takes half the time of one call for each.

    Args:
        batch: bytes of files.

    Returns:
        For each file the scaled height and width, before EXIF turns it. None
        for a file that is no JPEG or is too large. None for all files, if one
        cannot be decoded.
    """
    sizes = [None] * len(batch)
    rows = [row for row, encoded in enumerate(batch) if _is_scalable(encoded)]
    try:
        scaled = _decode_scaled(
            tf.constant([batch[row] for row in rows], tf.string)
        )
    except tf.errors.InvalidArgumentError:
        return sizes
    for row, (height, width) in zip(rows, scaled.numpy().tolist(), strict=True):
        sizes[row] = (height, width)
    return sizes


def header_size(encoded: bytes) -> tuple[int, int]:
    """Reads the upright height and width in the header.

    Ten times as fast as Pillow, which opens each file as an image.

    Raises:
        ValueError: the file is neither a JPEG nor a PNG with a size.
    """
    if encoded.startswith(PNG):
        size = _png_size(encoded)
    elif encoded.startswith(JPEG):
        size = _jpeg_size(encoded)
    else:
        size = None
    if size is None or 0 in size:
        raise ValueError(image_refusal.why_not(encoded))
    return size


def _png_size(encoded: bytes) -> tuple[int, int] | None:
    """Reads the first chunk, IHDR: PNG specification, section 11.2.2."""
    if len(encoded) < 24 or encoded[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", encoded, 16)
    return height, width


def _jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """Reads the frame: ITU-T T.81, sections B.1.1 and B.2.2."""
    offset = 2
    while offset + 9 <= len(encoded) and encoded[offset] == 0xFF:
        marker = encoded[offset + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", encoded, offset + 5)
            # Cheaper than asking for the orientation of every image.
            has_exif = encoded.find(b"Exif\0\0", 0, offset) >= 0
            if has_exif and exif_orientation.read(encoded) >= 5:
                return width, height
            return height, width
        if marker in _ENDS:
            break
        if marker == 0xFF:  # fill
            offset += 1
        elif marker in _WITHOUT_SEGMENT:
            offset += 2
        else:
            offset += 2 + struct.unpack_from(">H", encoded, offset + 2)[0]
    return None


def _checked_size(
    encoded: bytes,
    preparation: Preparation,
    dct_scaled: tuple[int, int] | None,
) -> tuple[int, int]:
    """Returns upright height and width, once the image has passed."""
    try:
        height, width = header_size(encoded)
    except ValueError:
        if not preparation.verify:
            raise
        height = width = 0
    if 0 < height * width <= image_refusal.MOST_PIXELS:
        if not preparation.verify:
            return height, width
        scaled = dct_scaled or dct_scaled_sizes([encoded])[0]
        expected = [-(-side // _DCT_SCALE) for side in (height, width)]
        # They differ if the file has two headers, for example.
        if scaled and sorted(scaled) == sorted(expected):
            return height, width
    # The decoder decides, and says why.
    height, width, _ = image_decoding.pixels(encoded).shape
    return height, width


def _is_scalable(encoded: bytes) -> bool:
    if not encoded.startswith(JPEG):
        return False
    try:
        height, width = header_size(encoded)
    except ValueError:
        return False
    return height * width <= image_refusal.MOST_PIXELS


# In one function, so that the pixels are not copied to Python.
@tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
def _decode_scaled(encoded: tf.Tensor) -> tf.Tensor:
    """Returns scaled heights and widths, string [B] -> int32 [B, 2]."""
    return tf.map_fn(
        lambda one: tf.shape(
            tf.io.decode_jpeg(one, channels=3, ratio=_DCT_SCALE)
        )[:2],
        encoded,
        fn_output_signature=tf.TensorSpec([2], tf.int32),
        parallel_iterations=32,
    )
