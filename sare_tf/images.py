"""Encoded bytes -> image tensor: the one preprocessing of the project.

Training, indexing and the exported graph all call `load`, so that what is
served is what was trained. Images are RGB, uint8, [H, W, 3]. EXIF rotation is
not applied: the stored pixels are used as they are.
"""

import tensorflow as tf


def decode(image_bytes: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG or PNG, string [] -> uint8 [H, W, 3].

    INTEGER_ACCURATE equals PIL bit for bit; TensorFlow's default does not.
    """
    return tf.io.decode_jpeg(
        image_bytes, channels=3, dct_method="INTEGER_ACCURATE"
    )


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
