"""tf.data pipelines over records: image stream, tuples, place batches.

Images are uint8 until they are on the device. Orders are given by the caller
or drawn from a seed, never by the number of workers. Axis letters: B batch,
T images of a tuple, P places of a batch with K images each, H W C image.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging

from sare_tf import images, manifest, places
from sare_tf.records import Records
from sare_tf.tuple_records import TupleRecords


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
    part: tuple[int, int] = (0, 1),
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
        part: which of how many equal parts of each batch is read, for one of
            several workers.

    Returns:
        Dataset of (uint8 [B, T, height, width, 3], float32 zeros [B]); the
        zeros are there because Keras wants a target. B is that of the part.

    Raises:
        ValueError: wrong shape, or fewer tuples than one batch.
    """
    tuples = np.asarray(tuples)
    if tuples.ndim != 2 or tuples.shape[1] < 3:
        raise ValueError(
            "Expected tuples of shape [M, T] with a query, a positive and at "
            f"least one negative. Received: tuples.shape={tuples.shape}."
        )
    _check_batch(len(tuples), tuples_per_batch)
    whole = len(tuples) // tuples_per_batch * tuples_per_batch
    return _tuple_batches(
        source.encoded_dataset(source.manifest.iloc[tuples[:whole].ravel()]),
        tuples.shape[1],
        tuples_per_batch,
        height=height,
        width=width,
        augment=augment,
        seed=seed,
        part=part,
    )


def tuple_record_dataset(
    source: TupleRecords,
    *,
    height: int,
    width: int,
    tuples_per_batch: int = 4,
    limit: int = 0,
    augment: bool = False,
    seed: int = 0,
    part: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Batches of tuples as `tuple_dataset` gives them, read in sequence.

    An epoch has every tuple once; the next one takes another seed. The batches
    are those of `tuple_dataset` with the tuples in the order
    `source.order(seed=seed)` and the same seed.

    Args:
        source: opened tuple records.
        height: rows of an image.
        width: columns of an image.
        tuples_per_batch: B. A last batch that is not full is left out.
        limit: leave out all tuples after this many; 0: none.
        augment: vary colour, crop and zoom of every image by itself.
        seed: of the order and of the augmentation.
        part: as in `tuple_dataset`.

    Returns:
        As `tuple_dataset`.

    Raises:
        ValueError: fewer tuples than one batch.
    """
    count = min(limit or source.count, source.count)
    _check_batch(count, tuples_per_batch)
    count = count // tuples_per_batch * tuples_per_batch
    size = source.images_per_tuple
    encoded = (
        source.encoded_dataset(seed=seed)
        .take(count)
        .unbatch()
        .apply(tf.data.experimental.assert_cardinality(count * size))
    )
    return _tuple_batches(
        encoded,
        size,
        tuples_per_batch,
        height=height,
        width=width,
        augment=augment,
        seed=seed,
        part=part,
    )


def place_dataset(
    source: Records,
    rows: pd.DataFrame,
    *,
    height: int,
    width: int,
    places_per_batch: int = 16,
    images_per_place: int = 4,
    radius_m: float = 10.0,
    separation_m: float = 25.0,
    augment: bool = False,
    seed: int = 0,
) -> tf.data.Dataset:
    """Batches of places to train on without mining, ready for `model.fit`.

    An epoch has every place at most once; the next one takes another seed.
    `places` says which images show one place, and which places may meet.

    Args:
        source: opened records.
        rows: rows of `source.manifest`, queries and database images alike.
        height: rows of an image.
        width: columns of an image.
        places_per_batch: P.
        images_per_place: K. Places with fewer images are left out.
        radius_m: no two images of a place are farther apart, where places are
            told by coordinates.
        separation_m: images of two places in a batch are farther apart, where
            every image has coordinates.
        augment: vary colour, crop and zoom of every image by itself.
        seed: of the batches and of the augmentation.

    Returns:
        Dataset of (uint8 [P * K, height, width, 3], int32 [P * K]): images,
        those of a place together, and labels, equal for one place.

    Raises:
        ValueError: see `places.plan_batches`.
    """
    plan = places.plan_batches(
        rows,
        places_per_batch=places_per_batch,
        images_per_place=images_per_place,
        radius_m=radius_m,
        separation_m=separation_m,
        seed=seed,
    )
    return planned_place_dataset(
        source,
        rows,
        plan,
        height=height,
        width=width,
        augment=augment,
        seed=seed,
    )


def planned_place_dataset(
    source: Records,
    rows: pd.DataFrame,
    plan: places.PlaceBatches,
    *,
    height: int,
    width: int,
    augment: bool = False,
    seed: int = 0,
    with_positions: bool = False,
    part: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """`place_dataset` of batches that `places.plan_batches` made of the rows.

    Args:
        source: opened records.
        rows: rows of `source.manifest`.
        plan: the batches.
        height: rows of an image.
        width: columns of an image.
        augment: vary colour, crop and zoom of every image by itself.
        seed: of the augmentation.
        with_positions: give targets {"labels", "positions"}, as a
            `PlaceNetwork` with a memory takes them: positions float32
            [P * K, 2] in metres from the middle of the rows, NaN where they
            are not known.
        part: which of how many equal parts of each batch is read, for one of
            several workers.

    Returns:
        As `place_dataset`, of the part.
    """
    logging.info(
        "%d batches of %d images; left out: %d places with too few images, %d "
        "that filled no batch.",
        *plan.images.shape,
        plan.small_places,
        plan.left_over,
    )
    part_size = plan.images.shape[1] // part[1]
    own = slice(part[0] * part_size, (part[0] + 1) * part_size)
    targets = plan.labels[:, own].astype(np.int32)
    if with_positions:
        positions = _positions(rows)[plan.images[:, own]]
        targets = {"labels": targets, "positions": positions}
    batches = _training_images(
        source.encoded_dataset(rows.iloc[plan.images.reshape(-1)]),
        height=height,
        width=width,
        augment=augment,
        seed=seed,
        part=part,
        part_images=part_size,
    ).batch(part_size, drop_remainder=True)
    return tf.data.Dataset.zip(
        batches, tf.data.Dataset.from_tensor_slices(targets)
    ).prefetch(tf.data.AUTOTUNE)


def similarity_example(
    *, height: int, width: int
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """How TensorFlow Similarity's `TFRecordDatasetSampler` reads records.

    The sampler takes `example_per_class` images at a time from each shard,
    which it expects to be of one place. Images of a place lie together in
    records, so that holds where the numbers of images of all places are
    multiples of it; elsewhere a place's remainder comes with the next place's
    first images. Labels stay right either way.

    Args:
        height: rows of an image.
        width: columns of an image.

    Returns:
        Function of a serialised Example, string [], that returns the image,
        uint8 [height, width, 3], and a label, int64 []: a hash of its place,
        below 2 ** 24, as Keras casts labels to float32. Two places share one
        with a probability of 6e-8.

    Example:

    ```python
    batches = tensorflow_similarity.samplers.TFRecordDatasetSampler(
        "runs/own/records",
        pipeline.similarity_example(height=240, width=320),
        example_per_class=4,
        batch_size=64,
        shard_suffix="train-*.tfrecord",
    )
    ```
    """
    names = ("image/encoded", "image/id", "image/place")
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in names}

    def read(serialised: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = tf.io.parse_single_example(serialised, features)
        place, image_id = example["image/place"], example["image/id"]
        # An image with neither place nor position is a place of its own.
        place = tf.where(place == "", image_id, place)
        image = images.load(
            example["image/encoded"], height=height, width=width
        )
        return image, tf.strings.to_hash_bucket_fast(place, 1 << 24)

    return read


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


def _check_batch(count: int, tuples_per_batch: int) -> None:
    if count < tuples_per_batch:
        raise ValueError(
            "Expected at least one full batch of tuples. Received: "
            f"{count} tuples, tuples_per_batch={tuples_per_batch}. Add "
            "queries with positives, or lower --tuples_per_batch."
        )


def _tuple_batches(
    encoded_images: tf.data.Dataset,
    size: int,
    tuples_per_batch: int,
    *,
    part: tuple[int, int],
    **options,
) -> tf.data.Dataset:
    """Batches of tuples of `size` images; options of `_training_images`."""
    part_size = tuples_per_batch // part[1]
    return (
        _training_images(
            encoded_images, part=part, part_images=part_size * size, **options
        )
        .batch(size, drop_remainder=True)
        .batch(part_size, drop_remainder=True)
        .map(lambda batch: (batch, tf.zeros(part_size)))
        .prefetch(tf.data.AUTOTUNE)
    )


def _positions(rows: pd.DataFrame) -> np.ndarray:
    """float32 [len(rows), 2] in metres from their middle; NaN: not known."""
    if not manifest.has_coordinates(rows):
        return np.full((len(rows), 2), np.nan, np.float32)
    metres = rows[["utm_east_m", "utm_north_m"]].to_numpy(np.float64)
    return (metres - metres.mean(axis=0)).astype(np.float32)


def _training_images(
    encoded_images: tf.data.Dataset,
    *,
    height: int,
    width: int,
    augment: bool,
    seed: int,
    part: tuple[int, int],
    part_images: int,
) -> tf.data.Dataset:
    """Images in the order given, each varied by seed and position.

    Of every `part_images` times the number of parts, those of the part.
    """

    def load(index: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
        image = images.load(encoded, height=height, width=width)
        if augment:
            image = vary(
                image, seed=tf.stack([tf.cast(seed, index.dtype), index])
            )
        return image

    encoded_images = encoded_images.enumerate()
    which, parts = part
    if parts > 1:
        count = encoded_images.cardinality() // parts
        encoded_images = encoded_images.filter(
            lambda index, _: index // part_images % parts == which
        ).apply(tf.data.experimental.assert_cardinality(count))
    return encoded_images.map(load, num_parallel_calls=tf.data.AUTOTUNE)
