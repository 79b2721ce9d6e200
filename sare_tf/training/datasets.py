"""tf.data pipelines over records: image stream, tuples, place batches.

Images are uint8 until they are on the device. Orders are given by the caller
or drawn from a seed, never by the number of workers. Axis letters: B batch,
T images of a tuple, P places of a batch with K images each, R draws of an
image, H W C image.

Batches to train on may have draws: uniform numbers in 0..1 by which
`Augmentation` varies images on the device. Then a batch is {"images": images,
"draws": float32 [..., R]}, with R numbers for each image. They depend on seed,
step, and position in the batch alone.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging

from sare_tf.dataset import image_decoding, manifest
from sare_tf.records.records import Records
from sare_tf.records.tuple_records import TupleRecords
from sare_tf.runtime import tfdata_threads
from sare_tf.training import place_batches

# Made while the device is at work.
_READY_BATCHES = 2


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
    decoded = _decoded(source.encoded_dataset(rows), height, width)
    return decoded.batch(batch_size).prefetch(_READY_BATCHES)


def tuple_dataset(
    source: Records,
    tuples: np.ndarray,
    *,
    height: int,
    width: int,
    tuples_per_batch: int = 4,
    draws: int = 0,
    same_draws: bool = False,
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
        draws: R, of `Augmentation.num_draws`; 0 for none.
        same_draws: all images of a tuple have the same draws.
        seed: of the draws.
        part: which of how many equal parts of each batch is read, for one of
            several workers.

    Returns:
        Dataset of (uint8 [B, T, height, width, 3], float32 zeros [B]); the
        zeros are there because Keras wants a target. B is that of the part.
        With draws the images are in a dictionary, see the module.

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
    size = tuples.shape[1]
    steps = len(tuples) // tuples_per_batch
    batches = tuples[: steps * tuples_per_batch].reshape(steps, -1)
    own = _own(part, batches.shape[1])
    rows = source.manifest.iloc[batches[:, own].reshape(-1)]
    return _tuple_batches(
        _decoded(source.encoded_dataset(rows), height, width),
        (tuples_per_batch, size, draws),
        same_draws=same_draws,
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
    draws: int = 0,
    same_draws: bool = False,
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
        draws: R, of `Augmentation.num_draws`; 0 for none.
        same_draws: all images of a tuple have the same draws.
        seed: of the order and of the draws.
        part: as in `tuple_dataset`.

    Returns:
        As `tuple_dataset`.

    Raises:
        ValueError: fewer tuples than one batch.
    """
    count = min(limit or source.count, source.count)
    _check_batch(count, tuples_per_batch)
    size = source.images_per_tuple
    steps = count // tuples_per_batch
    own = _own(part, tuples_per_batch)
    encoded = (
        source.encoded_dataset(seed=seed)
        .batch(tuples_per_batch)
        .take(steps)
        .map(lambda batch: tf.reshape(batch[own], [-1]))
        .unbatch()
    )
    own_images = steps * (own.stop - own.start) * size
    return _tuple_batches(
        _decoded(
            encoded.apply(tf.data.experimental.assert_cardinality(own_images)),
            height,
            width,
        ),
        (tuples_per_batch, size, draws),
        same_draws=same_draws,
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
    draws: int = 0,
    same_draws: bool = False,
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
        draws: R, of `Augmentation.num_draws`; 0 for none.
        same_draws: all images of a place have the same draws.
        seed: of the batches and of the draws.

    Returns:
        Dataset of (uint8 [P * K, height, width, 3], int32 [P * K]): images,
        those of a place together, and labels, equal for one place. With draws
        the images are in a dictionary, see the module.

    Raises:
        ValueError: see `places.plan_batches`.
    """
    plan = place_batches.plan_batches(
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
        draws=draws,
        same_draws=same_draws,
        seed=seed,
    )


def planned_place_dataset(
    source: Records,
    rows: pd.DataFrame,
    plan: place_batches.PlaceBatches,
    *,
    height: int,
    width: int,
    draws: int = 0,
    same_draws: bool = False,
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
        draws: R, of `Augmentation.num_draws`; 0 for none.
        same_draws: all images of a place have the same draws.
        seed: of the draws.
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
    own = _own(part, plan.images.shape[1])
    chosen = plan.images[:, own]
    targets = plan.labels[:, own].astype(np.int32)
    if with_positions:
        targets = {"labels": targets, "positions": _positions(rows)[chosen]}
    decoded = _decoded(
        source.encoded_dataset(rows.iloc[chosen.reshape(-1)]), height, width
    )
    # A place's images stand together, all places have as many.
    images_per_place = int((plan.labels[0] == plan.labels[0, 0]).sum())
    return _batches(
        decoded,
        tf.data.Dataset.from_tensor_slices(targets),
        (chosen.shape[1],),
        (plan.images.shape[1] // images_per_place, images_per_place, draws),
        same_draws=same_draws,
        seed=seed,
        part=part,
    )


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
        image = image_decoding.load(
            example["image/encoded"], height=height, width=width
        )
        return image, tf.strings.to_hash_bucket_fast(place, 1 << 24)

    return read


def _positions(rows: pd.DataFrame) -> np.ndarray:
    """float32 [len(rows), 2] in metres from their middle; NaN: not known."""
    if not manifest.has_coordinates(rows):
        return np.full((len(rows), 2), np.nan, np.float32)
    metres = rows[["utm_east_m", "utm_north_m"]].to_numpy(np.float64)
    return (metres - metres.mean(axis=0)).astype(np.float32)


def _check_batch(count: int, tuples_per_batch: int) -> None:
    if count < tuples_per_batch:
        raise ValueError(
            "Expected at least one full batch of tuples. Received: "
            f"{count} tuples, tuples_per_batch={tuples_per_batch}. Add "
            "queries with positives, or lower --tuples_per_batch."
        )


def _own(part: tuple[int, int], size: int) -> slice:
    """Where a part of `size` things is."""
    which, parts = part
    return slice(which * size // parts, (which + 1) * size // parts)


def _decoded(
    encoded_images: tf.data.Dataset, height: int, width: int
) -> tf.data.Dataset:
    return encoded_images.map(
        lambda encoded: image_decoding.load(
            encoded, height=height, width=width
        ),
        num_parallel_calls=tfdata_threads.THREADS,
    )


def _tuple_batches(
    decoded: tf.data.Dataset,
    draws_shape: tuple[int, int, int],
    *,
    same_draws: bool,
    seed: int,
    part: tuple[int, int],
) -> tf.data.Dataset:
    tuples_per_batch, size, _ = draws_shape
    own_size = tuples_per_batch // part[1]
    return _batches(
        decoded,
        tf.data.Dataset.from_tensors(tf.zeros(own_size)).repeat(),
        (own_size, size),
        draws_shape,
        same_draws=same_draws,
        seed=seed,
        part=part,
    )


def _batches(
    decoded: tf.data.Dataset,
    targets: tf.data.Dataset,
    shape: tuple[int, ...],
    draws_shape: tuple[int, int, int],
    *,
    same_draws: bool,
    seed: int,
    part: tuple[int, int],
) -> tf.data.Dataset:
    """Batches with their targets, and draws if there are any.

    Args:
        decoded: images of the part, uint8 [H, W, 3].
        targets: of each batch.
        shape: of a batch's images before H W C.
        draws_shape: groups of the whole batch, images of a group, draws.
        same_draws: all images of a group have the same.
        seed: of the draws.
        part: of the batch.
    """
    groups, members, count = draws_shape
    own = _own(part, groups * members)

    def give(number: tf.Tensor, batch: tuple) -> tuple:
        images_of_batch, targets_of_batch = batch
        images_of_batch = tf.reshape(
            images_of_batch, (*shape, *images_of_batch.shape[1:])
        )
        if not count:
            return images_of_batch, targets_of_batch
        # Of the whole batch, so that any number of workers draws alike.
        draws = tf.random.stateless_uniform(
            (groups, 1 if same_draws else members, count),
            tf.stack([tf.constant(seed, tf.int64), number]),
        )
        draws = tf.broadcast_to(draws, draws_shape)
        draws = tf.reshape(draws, (-1, count))[own]
        draws = tf.reshape(draws, (*shape, count))
        return {
            "images": images_of_batch,
            "draws": draws,
        }, targets_of_batch

    batches = decoded.batch(int(np.prod(shape)), drop_remainder=True)
    numbered = tf.data.Dataset.zip(batches, targets).enumerate()
    return numbered.map(give).prefetch(_READY_BATCHES)
