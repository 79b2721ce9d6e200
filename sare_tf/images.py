"""Encoded bytes -> image tensor: the one preprocessing of the project.

Training, indexing and the exported graph all call `load`, so that what is
served is what was trained. Images are RGB, uint8, [H, W, 3], upright: a JPEG
whose EXIF header says how the camera was held is turned by it, as viewers do.
The original code, and most others of this field, leave such images as they
were stored.
"""

import tensorflow as tf

from sare_tf import orientation


def decode(image_bytes: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG or PNG, string [] -> uint8 [H, W, 3], upright.

    INTEGER_ACCURATE equals PIL bit for bit; TensorFlow's default does not.
    """
    image = tf.io.decode_jpeg(
        image_bytes, channels=3, dct_method="INTEGER_ACCURATE"
    )
    return orientation.apply(image, orientation.read(image_bytes))


def resize(image: tf.Tensor, *, height: int, width: int) -> tf.Tensor:
    """Resizes with antialiased bilinear interpolation.

    Args:
        image: uint8 [..., H, W, 3].
        height: rows of the result.
        width: columns of the result.

    Returns:
        uint8 [..., height, width, 3], rounded to nearest.
    """
    resized = tf.image.resize(image, (height, width), antialias=True)
    return tf.saturate_cast(tf.round(resized), tf.uint8)


def load(image_bytes: tf.Tensor, *, height: int, width: int) -> tf.Tensor:
    """Decodes and resizes, string [] -> uint8 [height, width, 3].

    An image that has the size already keeps its pixels exactly.
    """
    image = resize(decode(image_bytes), height=height, width=width)
    return tf.ensure_shape(image, (height, width, 3))


def load_batch(
    image_bytes: tf.Tensor, *, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and resizes a batch of which some images may be damaged.

    An image's error stays its own because a tf.data pipeline leaves it out,
    which also works in a graph that is served: its ops are part of every
    TensorFlow.

    Args:
        image_bytes: string [B]; B may be 0.
        height: rows of an image.
        width: columns of an image.

    Returns:
        uint8 [B, height, width, 3], zeros where an image cannot be decoded,
        and bool [B], whether it can.
    """
    count = tf.size(image_bytes, out_type=tf.int64)
    # In row B, so that the pipeline never is without an element.
    last = tf.data.Dataset.from_tensors(
        (count, tf.zeros((height, width, 3), tf.uint8))
    )
    dataset = (
        tf.data.Dataset.from_tensor_slices(image_bytes)
        .enumerate()
        .map(
            lambda row, encoded: (
                row,
                load(encoded, height=height, width=width),
            ),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .ignore_errors()
        .concatenate(last)
        .batch(count + 1)
    )
    # Without tuning, which one batch is too short for, all cores decode.
    options = tf.data.Options()
    options.autotune.enabled = False
    rows, loaded = dataset.with_options(options).get_single_element()
    rows = rows[:, None]
    shape = tf.stack([count + 1, height, width, 3])
    loaded = tf.scatter_nd(rows, loaded, shape)[:-1]
    valid = tf.scatter_nd(rows, tf.ones_like(rows[:, 0], tf.bool), [count + 1])
    return tf.ensure_shape(loaded, (None, height, width, 3)), valid[:-1]
