"""Tuples that were built as records, to train on without mining."""

import numpy as np
import tensorflow as tf
from absl import logging

from sare_tf.dataset import tuple_lists
from sare_tf.records.records import Records
from sare_tf.records.tuple_records import TupleRecords
from sare_tf.training import datasets
from sare_tf.training.batches import draws_of
from sare_tf.training.frozen_features import FrozenFeatures
from sare_tf.training.options import TrainingOptions
from sare_tf.training.split import FIRST_IMAGES


class StoredTuples:
    """Tuples that were built as records, to train on without mining.

    Args:
        records: records to validate on: those that the tuples were made of, or
            others with no image of the tuples in their val split.
        options: options of training, with `tuples`.

    Attributes:
        tuple_records: the tuples, and where their images are stored.
        source: what images are read from: the tuple records, or features.

    Raises:
        FileNotFoundError: no tuple records.
        ValueError: they are damaged, or do not fit the options or the records.
    """

    def __init__(self, records: Records, options: TrainingOptions):
        self.tuple_records = source = TupleRecords(options.tuples)
        self.source: TupleRecords | FrozenFeatures = source
        self._options = options
        self._records = records
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
        count = self.tuple_records.count
        return min(self._options.queries_per_epoch or count, count)

    @property
    def steps(self) -> int:
        """The steps of an epoch."""
        return self.tuples_per_epoch // self._options.tuples_per_batch

    def dataset(
        self, *, seed: int, part: tuple[int, int] = (0, 1)
    ) -> tf.data.Dataset:
        """Returns the batches of one epoch, in the order of the seed."""
        settings = {
            "height": self._options.image_height,
            "width": self._options.image_width,
            "tuples_per_batch": self._options.tuples_per_batch,
            "draws": draws_of(self._options, seed=seed),
            "part": part,
        }
        if self.source is self.tuple_records:
            batches = datasets.tuple_record_dataset(
                self.source, seed=seed, **settings
            )
        else:
            order = self.tuple_records.order(seed=seed)
            batches = datasets.tuple_dataset(
                self.source, self.positions()[order], **settings
            )
        return batches.take(self.steps)

    def positions(self) -> np.ndarray:
        """Returns the tuples as rows of the records' manifest, int [M, T].

        Raises:
            ValueError: the tuples were made of other records.
        """
        if self.tuple_records.records_fingerprint != self._records.fingerprint:
            raise ValueError(
                "Expected --records that the tuples were made of, with "
                "--cache_frozen. Received: records="
                f"{str(self._records.path)!r}, tuples="
                f"{self.tuple_records.path!r} of others. Give those --records, "
                "or leave --cache_frozen out."
            )
        return tuple_lists.find(
            self.tuple_records.table(), self._records.manifest
        )

    def queries(self, *, seed: int) -> np.ndarray:
        """Returns the image_ids of the queries in the order of the seed."""
        return self._queries[self.tuple_records.order(seed=seed)]

    def first_images(self) -> tf.data.Dataset:
        """Returns positives and first negatives of tuples, [B, H, W, 3]."""
        options = self._options
        tuples = datasets.tuple_record_dataset(
            self.tuple_records,
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
                f"in tuples={self.tuple_records.path!r}. Give the --records "
                "that the tuples were made of."
            )
