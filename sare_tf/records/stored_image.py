"""What is stored of an image: its file, or a part of it, or a smaller copy.

The bytes of the file are kept where nothing is to be changed. New images are
upright and have no EXIF header, so that they are turned only once. Sizes are
those of upright images, as `image_decoding.decode` gives them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from sare_tf.dataset import (
    image_decoding,
    image_header,
    image_refusal,
    jpeg_damage,
)
from sare_tf.dataset.image_header import JPEG
from sare_tf.records.shard_plan import Preparation

# JPEG quality of smaller copies, if none is given. Ours.
_QUALITY = 95
# All coefficients are read, and transforming fewer of them cannot fail.
_SCALE = jpeg_damage.SCALE
# Left, top, right, bottom, in pixels of the upright image.
Box = tuple[float, float, float, float]


def prepare(
    encoded: bytes,
    *,
    box: Box | None,
    preparation: Preparation,
    size: tuple[int, int] | None = None,
) -> tuple[bytes, int, int]:
    """Makes the bytes that are stored of an image.

    Args:
        encoded: bytes of the file.
        box: the part that is the image, up to the border of the file's image;
            it is stored as PNG, without loss. None: all of the file's image.
        preparation: what is done to it.
        size: as `look` saw it, if it is known.

    Returns:
        The bytes to store, and their upright height and width.

    Raises:
        ValueError: the image is refused; says why in one line.
    """
    longest = preparation.longest_side
    quality = preparation.jpeg_quality
    if box is None and not quality:
        height, width = _size(encoded, size, verify=preparation.verify)
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


class Look(NamedTuple):
    """What is known of a file before the decoder has decided.

    Attributes:
        size: upright height and width; None if the decoder has to decide.
        complaint: libjpeg's complaint of a JPEG that may decode all the same;
            empty for none.
    """

    size: tuple[int, int] | None
    complaint: str


def look(batch: Sequence[bytes], *, verify: bool) -> list[Look]:
    """Looks at files together, which takes less time than one by one.

    Args:
        batch: bytes of files.
        verify: whether JPEGs are decoded, at an eighth of their size. Without
            it, their header is enough.

    Returns:
        A look at each. To verify, files that are no JPEGs are left to the
        decoder.
    """
    # Columns: height, width and orientation, or 0 where it is refused.
    headers = _in_header(tf.constant(batch)).numpy()
    looks = [
        _look(encoded, header, verify=verify)
        for encoded, header in zip(batch, headers, strict=True)
    ]
    if verify:
        rows = [row for row, seen in enumerate(looks) if seen.complaint]
        sizes = _decided([batch[row] for row in rows])
        for row, size in zip(rows, sizes, strict=True):
            looks[row] = looks[row]._replace(size=size)
    return looks


def _look(encoded: bytes, header: np.ndarray, *, verify: bool) -> Look:
    height, width, orientation = header.tolist()
    is_jpeg = encoded.startswith(JPEG)
    if not height or (verify and not is_jpeg):
        return Look(None, "")
    if verify:
        eighth, complaint = jpeg_damage.decode(encoded)
        expected = tuple(-(-side // _SCALE) for side in (height, width))
        if (
            complaint
            or eighth != expected
            or not jpeg_damage.is_common(encoded)
        ):
            return Look(None, complaint)
    return Look((width, height) if orientation >= 5 else (height, width), "")


def _decided(batch: Sequence[bytes]) -> list[tuple[int, int] | None]:
    """Returns upright sizes of JPEGs of which libjpeg complains.

    TensorFlow decides, which prints the complaint. Each image is None if one of
    them cannot be decoded.
    """
    try:
        sizes = _verified(tf.constant(batch, tf.string)).numpy().tolist()
    except tf.errors.InvalidArgumentError:
        return [None] * len(batch)
    return [(height, width) if height else None for height, width in sizes]


def _size(
    encoded: bytes, size: tuple[int, int] | None, *, verify: bool
) -> tuple[int, int]:
    """Returns upright height and width, once the image has passed."""
    size = size or look([encoded], verify=verify)[0].size
    # The decoder says why, or that there is nothing wrong.
    return size or image_decoding.pixels(encoded).shape[:2]


_in_a_graph = tf.function(
    input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
)


@_in_a_graph
def _in_header(batch: tf.Tensor) -> tf.Tensor:
    """Returns headers, string [B] -> int32 [B, 3].

    They are height and width as stored, and orientation, or 0 where the image
    is refused.
    """

    def read(encoded: tf.Tensor) -> tf.Tensor:
        header = image_header.read(encoded)
        values = tf.stack(header[:3])
        return tf.where(image_refusal.is_usable(encoded, header), values, 0)

    return _for_each(read, batch, columns=3)


# In one function, so that the pixels are not copied to Python.
@_in_a_graph
def _verified(batch: tf.Tensor) -> tf.Tensor:
    """Returns upright sizes of usable JPEGs, string [B] -> int32 [B, 2].

    They are 0 where the decoder sees another size, as in a file that has two
    headers.
    """

    def read(encoded: tf.Tensor) -> tf.Tensor:
        height, width, orientation, _ = image_header.read(encoded)
        scaled = tf.shape(tf.io.decode_jpeg(encoded, channels=3, ratio=_SCALE))[
            :2
        ]
        expected = -(-tf.stack([height, width]) // _SCALE)
        upright = tf.where(orientation >= 5, [width, height], [height, width])
        return tf.where(tf.reduce_all(scaled == expected), upright, [0, 0])

    return _for_each(read, batch, columns=2)


def _for_each(
    read: Callable[[tf.Tensor], tf.Tensor], batch: tf.Tensor, *, columns: int
) -> tf.Tensor:
    return tf.map_fn(
        read,
        batch,
        fn_output_signature=tf.TensorSpec([columns], tf.int32),
        parallel_iterations=32,
    )
