"""What is stored of an image: its file, or a part of it, or a smaller copy.

The bytes of the file are kept where nothing is to be changed. New images are
upright and have no EXIF header, so that they are turned only once. Sizes are
those of upright images, as `image_decoding.decode` gives them.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from sare_tf.dataset import image_decoding, image_header, image_refusal
from sare_tf.dataset.image_header import JPEG
from sare_tf.records.shard_plan import Preparation

# JPEG quality of smaller copies, if none is given. Ours.
_QUALITY = 95
# To check a JPEG, each block of 8 x 8 coefficients is transformed to one pixel.
# All coefficients are read, and transforming fewer of them cannot fail.
_DCT_SCALE = 8
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
        size: the result of `upright_sizes` for it, if it is known.

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


def upright_sizes(
    batch: Sequence[bytes], *, verify: bool
) -> list[tuple[int, int] | None]:
    """Returns upright heights and widths of images that pass a check.

    One call for all takes half the time of one call for each.

    Args:
        batch: bytes of files.
        verify: whether JPEGs are decoded, at an eighth of their size. Without
            it, their header is enough.

    Returns:
        None for a file that does not pass or, to verify, is no JPEG, so that
        the decoder has to decide. None for all files if one cannot be decoded.
    """
    try:
        sizes = (_verified if verify else _in_header)(tf.constant(batch))
    except tf.errors.InvalidArgumentError:
        return [None] * len(batch)
    return [
        (height, width) if height else None
        for height, width in sizes.numpy().tolist()
    ]


def _size(
    encoded: bytes, size: tuple[int, int] | None, *, verify: bool
) -> tuple[int, int]:
    """Returns upright height and width, once the image has passed."""
    size = size or upright_sizes([encoded], verify=verify)[0]
    # The decoder says why, or that there is nothing wrong.
    return size or image_decoding.pixels(encoded).shape[:2]


_in_a_graph = tf.function(
    input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
)


@_in_a_graph
def _in_header(batch: tf.Tensor) -> tf.Tensor:
    """Returns upright sizes by the header, string [B] -> int32 [B, 2].

    They are 0 where the image is refused.
    """

    def read(encoded: tf.Tensor) -> tf.Tensor:
        header = image_header.read(encoded)
        return tf.where(
            image_refusal.is_usable(header), _upright(header), [0, 0]
        )

    return _for_each(read, batch)


# In one function, so that the pixels are not copied to Python.
@_in_a_graph
def _verified(batch: tf.Tensor) -> tf.Tensor:
    """Returns upright sizes, string [B] -> int32 [B, 2].

    They are 0 where the image is refused or is no JPEG, and where the decoder
    sees another size, as in a file that has two headers.
    """

    def read(encoded: tf.Tensor) -> tf.Tensor:
        header = image_header.read(encoded)
        is_jpeg = tf.strings.substr(encoded, 0, len(JPEG)) == JPEG
        scaled = tf.cond(
            is_jpeg & image_refusal.is_usable(header),
            lambda: tf.shape(
                tf.io.decode_jpeg(encoded, channels=3, ratio=_DCT_SCALE)
            )[:2],
            lambda: tf.constant([0, 0]),
        )
        expected = -(-tf.stack([header.height, header.width]) // _DCT_SCALE)
        return tf.where(
            tf.reduce_all(scaled == expected), _upright(header), [0, 0]
        )

    return _for_each(read, batch)


def _for_each(
    read: Callable[[tf.Tensor], tf.Tensor], batch: tf.Tensor
) -> tf.Tensor:
    return tf.map_fn(
        read,
        batch,
        fn_output_signature=tf.TensorSpec([2], tf.int32),
        parallel_iterations=32,
    )


def _upright(header: image_header.Header) -> tf.Tensor:
    """Returns height and width once EXIF has turned the image, int32 [2]."""
    height, width, orientation, _ = header
    return tf.where(orientation >= 5, [width, height], [height, width])
