"""tf.data pipelines over records: an image stream, and mined tuples.

Images are uint8 until they are on the device. Orders are given by the caller
or drawn from a seed, never by the number of workers. Axis letters: B batch,
T images of a tuple, H W C image.
"""

import numpy as np
import pandas as pd
import tensorflow as tf

from sare_tf import images
from sare_tf.records import Records


def image_dataset(
    source: Records,
    rows: pd.DataFrame,
    *,
    height: int,
    width: int,
    batch_size: int = 32,
) -> tf.data.Dataset:
    """Decoded images of manifest rows, in the order of the rows.

    Args:
        source: opened records.
        rows: rows of `source.manifest`.
        height: rows of an image.
        width: columns of an image.
        batch_size: images of a batch; the last one may be shorter.

    Returns:
        Dataset of uint8 [B, height, width, 3].
    """
    return (
        source.encoded_dataset(rows)
        .map(
            lambda encoded: images.load(encoded, height=height, width=width),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def tuple_dataset(
    source: Records,
    tuples: np.ndarray,
    *,
    height: int,
    width: int,
    tuples_per_batch: int = 4,
    augment: bool = False,
    seed: int = 0,
) -> tf.data.Dataset:
    """Batches of tuples to train on, ready for `model.fit`.

    Args:
        source: opened records.
        tuples: int [M, T], positions in `source.manifest`: query, positive,
            then the negatives. Batches follow this order.
        height: rows of an image.
        width: columns of an image.
        tuples_per_batch: B. A last batch that is not full is left out, so that
            all replicas always get the same number.
        augment: vary colour, crop and zoom of every image by itself.
        seed: of the augmentation.

    Returns:
        Dataset of (uint8 [B, T, height, width, 3], float32 zeros [B]); the
        zeros are there because Keras wants a target.

    Raises:
        ValueError: wrong shape, or fewer tuples than one batch.
    """
    tuples = np.asarray(tuples)
    if tuples.ndim != 2 or tuples.shape[1] < 3:
        raise ValueError(
            "Expected tuples of shape [M, T] with a query, a positive and at "
            f"least one negative. Received: tuples.shape={tuples.shape}."
        )
    if len(tuples) < tuples_per_batch:
        raise ValueError(
            "Expected at least one full batch of tuples. Received: "
            f"{len(tuples)} tuples, tuples_per_batch={tuples_per_batch}. Add "
            "queries with positives, or lower --tuples_per_batch."
        )
    rows = source.manifest.iloc[tuples.reshape(-1)]

    def load(index: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
        image = images.load(encoded, height=height, width=width)
        if augment:
            image = vary(
                image, seed=tf.stack([tf.cast(seed, index.dtype), index])
            )
        return image

    size = tuples.shape[1]
    return (
        source.encoded_dataset(rows)
        .enumerate()
        .map(load, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(size, drop_remainder=True)
        .batch(tuples_per_batch, drop_remainder=True)
        .map(lambda batch: (batch, tf.zeros(tuples_per_batch)))
        .prefetch(tf.data.AUTOTUNE)
    )


def vary(image: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """Varies colour, crop and zoom, uint8 [H, W, 3] -> the same.

    Args:
        image: the image.
        seed: int64 [2]; the same seed gives the same variation.
    """
    seeds = tf.random.split(seed, 5)
    height, width = image.shape[0], image.shape[1]

    def draw(index: int, count: int, low: float, high: float) -> tf.Tensor:
        return tf.random.stateless_uniform([count], seeds[index], low, high)

    side = draw(0, 1, 0.75, 1.0)[0]
    corner = draw(1, 2, 0.0, 1.0) * (1.0 - side)
    box = tf.concat([corner, corner + side], 0)[None]
    pixels = tf.image.crop_and_resize(
        tf.cast(image, tf.float32)[None], box, [0], (height, width)
    )[0]
    # A gain per channel, close to a common one: exposure and colour cast.
    gain = draw(2, 1, 0.7, 1.35) * draw(3, 3, 0.88, 1.12)
    contrast = draw(4, 1, 0.75, 1.3)
    mean = tf.reduce_mean(pixels)
    pixels = ((pixels - mean) * contrast + mean) * gain
    return tf.saturate_cast(tf.round(pixels), tf.uint8)
