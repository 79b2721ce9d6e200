"""tf.data pipelines over records: image stream, tuples, place batches.

Images are uint8 until they are on the device. The order is given by the caller
or drawn from a seed; it never depends on the number of workers. Axis letters: B
batch, T images of a tuple, P places of a batch with K images each, R draws of
an image, H W C image.

Where the source is features of images, [F] each, they take their place. Where
it is `ServedImages`, other processes read and decode the same images.

With `draws`, a batch to train on is {"images": images, "draws": float32
[..., R]}, see `AugmentationDraws`.
"""

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging

from sare_tf.dataset import manifest
from sare_tf.records.records import Records
from sare_tf.records.tuple_records import TupleRecords
from sare_tf.training import batches, place_batches
from sare_tf.training.batches import AugmentationDraws, BatchLayout
from sare_tf.training.folder_features import Features
from sare_tf.training.image_service import ServedImages
from sare_tf.training.place_batches import PlaceBatches, PlaceBatchRule

# What images, or features of them, are read from.
Source = Records | Features | ServedImages


def image_dataset(
    source: Source,
    rows: pd.DataFrame,
    *,
    height: int,
    width: int,
    batch_size: int = 32,
) -> tf.data.Dataset:
    """Makes a dataset of decoded images, in the order of manifest rows.

    Args:
        source: opened records, their images read by a service, or features
            of their images.
        rows: rows of `source.manifest`.
        height: rows of an image.
        width: columns of an image.
        batch_size: images of a batch; the last batch may be shorter.

    Returns:
        Dataset of uint8 [B, height, width, 3].
    """
    images = _images(source, rows, height=height, width=width)
    return images.batch(batch_size).prefetch(batches.READY_BATCHES)


def tuple_dataset(
    source: Source,
    tuples: np.ndarray,
    *,
    height: int,
    width: int,
    tuples_per_batch: int = 4,
    draws: AugmentationDraws | None = None,
    part: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Makes batches of tuples to train on, ready for `model.fit`.

    Args:
        source: opened records, their images read by a service, or features
            of their images.
        tuples: int [M, T], positions in `source.manifest`: query, positive,
            then the negatives. Batches follow this order.
        height: rows of an image.
        width: columns of an image.
        tuples_per_batch: B. A last batch that is not full is left out, so that
            all replicas always get the same number.
        draws: draws of the augmentation; None for none.
        part: (worker, workers): which of how many equal parts of each batch is
            read, for one of several workers.

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
    steps = len(tuples) // tuples_per_batch
    layout = BatchLayout(tuples_per_batch, tuples.shape[1], part)
    of_steps = tuples[: steps * tuples_per_batch].reshape(steps, -1)
    rows = source.manifest.iloc[of_steps[:, layout.own].reshape(-1)]
    images = _images(source, rows, height=height, width=width)
    return _tuple_batches(images, layout, draws)


def tuple_record_dataset(
    source: TupleRecords,
    *,
    height: int,
    width: int,
    tuples_per_batch: int = 4,
    seed: int = 0,
    draws: AugmentationDraws | None = None,
    part: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Makes batches of tuple records, which are read in sequence.

    An epoch has every tuple once; the next one takes another seed. The batches
    are those of `tuple_dataset` with the tuples in the order
    `source.order(seed=seed)`.

    Args:
        source: opened tuple records.
        height: rows of an image.
        width: columns of an image.
        tuples_per_batch: B. A last batch that is not full is left out.
        seed: seed of the order.
        draws: draws of the augmentation; None for none.
        part: as in `tuple_dataset`.

    Returns:
        As `tuple_dataset`.

    Raises:
        ValueError: fewer tuples than one batch.
    """
    _check_batch(source.count, tuples_per_batch)
    steps = source.count // tuples_per_batch
    layout = BatchLayout(tuples_per_batch, source.images_per_tuple, part)
    own = batches.own_slice(part, tuples_per_batch)
    encoded = (
        source.encoded_dataset(seed=seed)
        .batch(tuples_per_batch)
        .take(steps)
        .map(lambda batch: tf.reshape(batch[own], [-1]))
        .unbatch()
    )
    count = steps * (own.stop - own.start) * source.images_per_tuple
    images = batches.decoded(
        encoded.apply(tf.data.experimental.assert_cardinality(count)),
        height=height,
        width=width,
    )
    return _tuple_batches(images, layout, draws)


def place_dataset(
    source: Source,
    rows: pd.DataFrame,
    *,
    height: int,
    width: int,
    rule: PlaceBatchRule | None = None,
    seed: int = 0,
    draws: AugmentationDraws | None = None,
) -> tf.data.Dataset:
    """Makes batches of places to train on without mining, for `model.fit`.

    An epoch has every place at most once; the next one takes another seed.
    `place_batches` says which images show one place, and which places may be in
    one batch.

    Args:
        source: opened records, their images read by a service, or features
            of their images.
        rows: rows of `source.manifest`; their roles do not matter.
        height: rows of an image.
        width: columns of an image.
        rule: which places and images make a batch; None for the defaults of
            `PlaceBatchRule`.
        seed: seed of the batches.
        draws: draws of the augmentation; None for none.

    Returns:
        Dataset of (uint8 [P * K, height, width, 3], int32 [P * K]): images,
        those of a place together, and labels, equal for one place. With draws
        the images are in a dictionary, see the module.

    Raises:
        ValueError: see `place_batches.plan_batches`.
    """
    plan = place_batches.plan_batches(
        rows, rule=rule or PlaceBatchRule(), seed=seed
    )
    return planned_place_dataset(
        source, plan, height=height, width=width, draws=draws
    )


def planned_place_dataset(
    source: Source,
    plan: PlaceBatches,
    *,
    height: int,
    width: int,
    with_positions: bool = False,
    draws: AugmentationDraws | None = None,
    part: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Makes the dataset of batches that were planned, see `place_dataset`.

    Args:
        source: opened records, their images read by a service, or features
            of their images.
        plan: batches of rows of `source.manifest`.
        height: rows of an image.
        width: columns of an image.
        with_positions: give targets {"labels", "positions"}, as a
            `PlaceNetwork` with a memory takes them: positions float32
            [P * K, 2] in metres from the middle of the rows, NaN where they
            are not known.
        draws: draws of the augmentation; None for none.
        part: as in `tuple_dataset`.

    Returns:
        As `place_dataset`, of the part. Where the plan has weights of
        positives, the targets are {"labels", "positive_weights"}.
    """
    logging.info(
        "%d batches of %d images; left out: %d places with too few images, %d "
        "that filled no batch.",
        *plan.images.shape,
        plan.small_places,
        plan.left_over,
    )
    images_per_place = plan.images_per_place
    layout = BatchLayout(
        plan.images.shape[1] // images_per_place, images_per_place, part
    )
    positions = plan.images[:, layout.own]
    targets = plan.labels[:, layout.own].astype(np.int32)
    if with_positions:
        metres = _metres_from_the_middle(plan.rows)
        targets = {"labels": targets, "positions": metres[positions]}
    if plan.positive_weights is not None:
        weights = plan.positive_weights[:, layout.own]
        targets = {"labels": targets, "positive_weights": weights}
    rows = plan.rows.iloc[positions.reshape(-1)]
    return batches.with_targets(
        _images(source, rows, height=height, width=width),
        tf.data.Dataset.from_tensor_slices(targets),
        shape=(positions.shape[1],),
        layout=layout,
        draws=draws,
    )


def _images(
    source: Source,
    rows: pd.DataFrame,
    *,
    height: int,
    width: int,
) -> tf.data.Dataset:
    """Makes a dataset of decoded images, or of their features."""
    if isinstance(source, Features):
        return source.dataset(rows)
    if isinstance(source, ServedImages):
        return source.decoded_dataset(rows, height=height, width=width)
    return batches.decoded(
        source.encoded_dataset(rows), height=height, width=width
    )


def _metres_from_the_middle(rows: pd.DataFrame) -> np.ndarray:
    """float32 [len(rows), 2], from the rows' middle; NaN: not known."""
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


def _tuple_batches(
    images: tf.data.Dataset,
    layout: BatchLayout,
    draws: AugmentationDraws | None,
) -> tf.data.Dataset:
    count = layout.groups // layout.part[1]
    return batches.with_targets(
        images,
        tf.data.Dataset.from_tensors(tf.zeros(count)).repeat(),
        shape=(count, layout.images_per_group),
        layout=layout,
        draws=draws,
    )
