"""Encoded bytes -> image tensor: the one preprocessing of the project.

Training, indexing and the exported graph all call `load`, so that an export
sees what training saw. Images are RGB, uint8, [H, W, 3], upright: one whose
EXIF header says how the camera was held is turned, as viewers do. The original
code, and most others of this field, leave such images as they are stored.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sare_tf.dataset import exif_orientation, image_header, image_refusal
from sare_tf.dataset.image_header import Header
from sare_tf.dataset.image_refusal import why_not
from sare_tf.dataset.interpolation import BILINEAR, Interpolation
from sare_tf.dataset.png_header import PNG

# Properties of usable images that a check reports.
TRAITS = ("turned", "cmyk", "16_bit", "animated")
# Kind of an interpolation -> name of TensorFlow's kernel.
_KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}


def decode(image_bytes: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG or PNG, string [] -> uint8 [H, W, 3], upright.

    Other formats that TensorFlow decodes (GIF, WebP), and images beyond the
    limits of `image_refusal`, are an InvalidArgumentError. A PNG with 16 bits
    gives its high bytes, an animated one its first image. Transparency is
    ignored.
    """
    return _decode(image_bytes, image_header.read(image_bytes))


def pixels(encoded: bytes) -> np.ndarray:
    """Decodes one image now, as `decode` does: uint8 [H, W, 3].

    Raises:
        ValueError: it cannot be decoded; says why in one line.
    """
    try:
        return decode(encoded).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(why_not(encoded)) from error


def cut(
    image: np.ndarray, box: tuple[float, float, float, float]
) -> np.ndarray:
    """Returns the part of an image inside a box, up to the image's border.

    Args:
        image: [H, W, 3].
        box: left, top, right and bottom, in pixels, rounded.

    Raises:
        ValueError: the box lies outside the image.
    """
    height, width, _ = image.shape
    left, top, right, bottom = (round(edge) for edge in box)
    part = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if not part.size:
        raise ValueError(
            f"the part {box} lies outside the image, {width} x {height} pixels"
        )
    return part


def examine(encoded: bytes) -> tuple[int, int, list[str]]:
    """Decodes one image now; returns height, width and its `TRAITS`.

    Raises:
        ValueError: it cannot be decoded; says why in one line.
    """
    try:
        height, width, turned = _examined(encoded).numpy().tolist()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(why_not(encoded)) from error
    is_png = encoded.startswith(PNG)
    has = {
        "turned": turned != 1,
        "cmyk": not is_png and tf.io.extract_jpeg_shape(encoded)[2] == 4,
        # Width and height, then the bits of a channel.
        "16_bit": is_png and encoded[24] == 16,
        # This chunk comes before the first one of the image.
        "animated": is_png and b"acTL" in encoded[: encoded.find(b"IDAT")],
    }
    return height, width, [name for name in TRAITS if has[name]]


def resize(
    image: tf.Tensor,
    *,
    height: int,
    width: int,
    interpolation: Interpolation = BILINEAR,
) -> tf.Tensor:
    """Resizes with an antialiased interpolation.

    Equals `tf.image.resize` bit for bit, in less than half of its time: its
    kernel is quick where whole rows are moved, so each axis in turn is the
    rows.

    Args:
        image: [H, W, 3] or [B, H, W, 3].
        height: rows of the result.
        width: columns of the result.
        interpolation: how pixels are interpolated.

    Returns:
        [height, width, 3] or [B, height, width, 3]: uint8, rounded to nearest;
        or float32, see `Interpolation`.
    """
    image = tf.convert_to_tensor(image)
    batch = image if image.shape.rank == 4 else image[None]
    turn = (0, 2, 1, 3)
    kernel = _KERNELS[interpolation.kind]
    lower = tf.transpose(_with_rows(batch, height, kernel), turn)
    resized = tf.transpose(_with_rows(lower, width, kernel), turn)
    if interpolation.rounded:
        resized = tf.saturate_cast(tf.round(resized), tf.uint8)
    return resized if image.shape.rank == 4 else resized[0]


def _with_rows(batch: tf.Tensor, rows: int, kernel: str) -> tf.Tensor:
    """Resizes one axis, [B, H, W, C] -> float32 [B, rows, W, C]."""
    shape = tf.shape(batch)
    height = tf.cast(shape[1], tf.float32)
    resized = tf.raw_ops.ScaleAndTranslate(
        # A pixel is a whole row: the kernel takes any number of channels.
        images=tf.reshape(batch, (shape[0], shape[1], 1, shape[2] * shape[3])),
        size=tf.stack([rows, 1]),
        scale=tf.stack([tf.cast(rows, tf.float32) / height, 1.0]),
        translation=tf.zeros(2),
        kernel_type=kernel,
        antialias=True,
    )
    return tf.reshape(resized, (shape[0], rows, shape[2], shape[3]))


# AutoGraph would take seconds to read the source of all that it calls.
@tf.autograph.experimental.do_not_convert
def load(
    image_bytes: tf.Tensor,
    *,
    height: int,
    width: int,
    interpolation: Interpolation = BILINEAR,
) -> tf.Tensor:
    """Decodes and resizes, string [] -> [height, width, 3], see `resize`.

    An image that has the size already keeps its pixels exactly.
    """
    image = decode(image_bytes)
    # Resizing takes three times as long as decoding, also to the same size.
    image = tf.cond(
        tf.reduce_all(tf.shape(image)[:2] == [height, width]),
        lambda: tf.cast(image, _dtype(interpolation)),
        lambda: resize(
            image, height=height, width=width, interpolation=interpolation
        ),
    )
    return tf.ensure_shape(image, (height, width, 3))


def _dtype(interpolation: Interpolation) -> tf.DType:
    return tf.uint8 if interpolation.rounded else tf.float32


def load_batch(
    image_bytes: tf.Tensor,
    *,
    height: int,
    width: int,
    interpolation: Interpolation = BILINEAR,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and resizes a batch; some of its images may be damaged.

    A tf.data pipeline leaves out images with an error. Its ops are part of
    every TensorFlow, so it also works in an exported graph.

    Args:
        image_bytes: string [B]; B may be 0.
        height: rows of an image.
        width: columns of an image.
        interpolation: how pixels are interpolated.

    Returns:
        [B, height, width, 3], see `resize`, zeros where an image cannot be
        decoded, and bool [B], whether it can.
    """
    nothing = tf.zeros((height, width, 3), _dtype(interpolation))
    (loaded,), valid = _of_each(
        image_bytes,
        lambda encoded: [
            load(
                encoded,
                height=height,
                width=width,
                interpolation=interpolation,
            )
        ],
        nothing=[nothing],
        in_batches_of=tf.data.Dataset.batch,
    )
    return tf.ensure_shape(loaded, (None, height, width, 3)), valid


def load_within(
    image_bytes: tf.Tensor, *, longest_side: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decodes a batch of images of different sizes, and reduces large ones.

    Args:
        image_bytes: string [B]; B may be 0.
        longest_side: pixels that the longer side has at most.

    Returns:
        uint8 [B, H, W, 3], filled up with zeros at the bottom and on the right;
        int32 [B, 2], height and width of each image in it; and int32 [B, 2],
        height and width before it was reduced. An image that cannot be decoded
        has sizes of 0.
    """

    def reduced(encoded: tf.Tensor) -> list[tf.Tensor]:
        image = decode(encoded)
        size = tf.shape(image)[:2]
        scale = longest_side / tf.reduce_max(size)
        height, width = tf.unstack(
            tf.maximum(
                tf.cast(tf.round(tf.cast(size, tf.float64) * scale), tf.int32),
                1,
            )
        )
        image = tf.cond(
            scale < 1,
            lambda: resize(image, height=height, width=width),
            lambda: image,
        )
        return [image, tf.shape(image)[:2], size]

    size = tf.zeros(2, tf.int32)
    (images, sizes, originals), _ = _of_each(
        image_bytes,
        reduced,
        nothing=[tf.zeros((1, 1, 3), tf.uint8), size, size],
        in_batches_of=tf.data.Dataset.padded_batch,
    )
    return images, sizes, originals


def _of_each(
    image_bytes: tf.Tensor,
    function: Callable[[tf.Tensor], list[tf.Tensor]],
    *,
    nothing: list[tf.Tensor],
    in_batches_of: Callable[[tf.data.Dataset, tf.Tensor], tf.data.Dataset],
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Computes something of each image of a batch, on all cores.

    Args:
        image_bytes: string [B]; B may be 0.
        function: encoded image, string [] -> tensors.
        nothing: such tensors of no image.
        in_batches_of: batches a dataset.

    Returns:
        The tensors of all images, [B, ...] each, zeros where an image cannot be
        decoded; and bool [B], whether it can.
    """
    count = tf.size(image_bytes, out_type=tf.int64)

    # AutoGraph would take seconds to read the source of all that it calls.
    @tf.autograph.experimental.do_not_convert
    def numbered(row: tf.Tensor, encoded: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return row, *function(encoded)

    dataset = (
        tf.data.Dataset.from_tensor_slices(image_bytes)
        .enumerate()
        .map(numbered, num_parallel_calls=tf.data.AUTOTUNE)
        .ignore_errors()
        # Row B, so that the pipeline is never without an element.
        .concatenate(tf.data.Dataset.from_tensors((count, *nothing)))
    )
    # One batch is too short for tuning; without it, all cores decode.
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = in_batches_of(dataset, count + 1).with_options(options)
    rows, *values = dataset.get_single_element()

    def placed(of_rows: tf.Tensor) -> tf.Tensor:
        rest = tf.shape(of_rows, tf.int64)[1:]
        shape = tf.concat([[count + 1], rest], axis=0)
        return tf.scatter_nd(rows[:, None], of_rows, shape)[:-1]

    valid = placed(tf.ones_like(rows, tf.bool))
    return [placed(one) for one in values], valid


def _decode(image_bytes: tf.Tensor, header: Header) -> tf.Tensor:
    """Decodes an image whose header has been read.

    INTEGER_ACCURATE equals PIL bit for bit; TensorFlow's default does not.
    """
    # The op itself, because tf.debugging.Assert adds a condition around it.
    passed = tf.raw_ops.Assert(
        condition=image_refusal.is_usable(image_bytes, header),
        data=[
            "not a JPEG or PNG image, or beyond the limits",
            tf.stack(header),
        ],
    )
    with tf.control_dependencies([passed]):
        image_bytes = tf.identity(image_bytes)
    image = tf.io.decode_jpeg(
        image_bytes, channels=3, dct_method="INTEGER_ACCURATE"
    )
    return exif_orientation.apply(image, header.orientation)


# In one function, so that the pixels are not copied to Python.
@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def _examined(image_bytes: tf.Tensor) -> tf.Tensor:
    """Returns height, width and orientation, string [] -> int32 [3]."""
    header = image_header.read(image_bytes)
    height, width, _ = tf.unstack(tf.shape(_decode(image_bytes, header)))
    return tf.stack([height, width, header.orientation])
