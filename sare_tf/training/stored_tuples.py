"""Tuples that were built as records, to train on without mining."""

import numpy as np
import tensorflow as tf
from absl import logging

from sare_tf.records.records import Records
from sare_tf.records.tuple_records import TupleRecords
from sare_tf.training import datasets
from sare_tf.training.batches import draws_of
from sare_tf.training.options import TrainingOptions
from sare_tf.training.split import FIRST_IMAGES


class StoredTuples:
    """Tuples that were built as records, to train on without mining.

    Args:
        records: records to validate on: those that the tuples were made of, or
            others with no image of the tuples in their val split.
        options: options of training, with `tuples`.

    Attributes:
        source: the tuple records.

    Raises:
        FileNotFoundError: no tuple records.
        ValueError: they are damaged, or do not fit the options or the records.
    """

    def __init__(self, records: Records, options: TrainingOptions):
        self.source = source = TupleRecords(options.tuples)
        self._options = options
        if source.images_per_tuple != 2 + options.num_negatives:
            raise ValueError(
                "Expected tuples with --num_negatives negatives. Received: "
                f"tuples={source.path!r} with {source.images_per_tuple - 2}, "
                f"num_negatives={options.num_negatives}."
            )
        table = source.table()
        self._queries = table["query"].to_numpy(object)
        if source.records_fingerprint != records.fingerprint:
            logging.warning(
                "Validating on other records than the tuples were made of."
            )
            self._check_apart(np.unique(table), records)
        if self.steps < 1:
            raise ValueError(
                "Expected tuples for at least one full batch. Received: "
                f"{self.tuples_per_epoch} tuples in an epoch, "
                f"tuples_per_batch={options.tuples_per_batch}. Lower "
                "--tuples_per_batch."
            )
        logging.info("Training on %d tuples of %s.", source.count, source.path)

    @property
    def tuples_per_epoch(self) -> int:
        """The tuples of an epoch, with those of a batch that is not full."""
        count = self.source.count
        return min(self._options.queries_per_epoch or count, count)

    @property
    def steps(self) -> int:
        """The steps of an epoch."""
        return self.tuples_per_epoch // self._options.tuples_per_batch

    def dataset(
        self, *, seed: int, part: tuple[int, int] = (0, 1)
    ) -> tf.data.Dataset:
        """Returns the batches of one epoch, in the order of the seed."""
        options = self._options
        return datasets.tuple_record_dataset(
            self.source,
            height=options.image_height,
            width=options.image_width,
            tuples_per_batch=options.tuples_per_batch,
            seed=seed,
            draws=draws_of(options, seed=seed),
            part=part,
        ).take(self.steps)

    def queries(self, *, seed: int) -> np.ndarray:
        """Returns the image_ids of the queries in the order of the seed."""
        return self._queries[self.source.order(seed=seed)]

    def first_images(self) -> tf.data.Dataset:
        """Returns positives and first negatives of tuples, [B, H, W, 3]."""
        options = self._options
        tuples = datasets.tuple_record_dataset(
            self.source,
            height=options.image_height,
            width=options.image_width,
            tuples_per_batch=1,
            seed=options.seed,
        )
        return tuples.take(FIRST_IMAGES // 2).map(
            lambda images, _: images[0, 1:3]
        )

    def _check_apart(self, trained_on: np.ndarray, records: Records) -> None:
        val = records.manifest[records.manifest["split"] == "val"]
        both = val["image_id"][val["image_id"].isin(trained_on)]
        if len(both):
            raise ValueError(
                "Expected to validate on images that are not trained on. "
                f"Received: {both.iloc[0]!r} and {len(both) - 1} others "
                f"of the val split of records={str(records.path)!r} are "
                f"in tuples={self.source.path!r}. Give the --records that the "
                "tuples were made of."
            )
