"""Everything that a run trains and validates on."""

import dataclasses
from collections.abc import Collection
from typing import Self

import numpy as np
import pandas as pd
from absl import logging

from sare_tf.records.records import Records
from sare_tf.training import place_batches, positive_weights
from sare_tf.training.frozen_features import FrozenFeatures
from sare_tf.training.memory_estimate import Workload
from sare_tf.training.miner import Miner
from sare_tf.training.options import TrainingOptions
from sare_tf.training.split import Split
from sare_tf.training.stored_tuples import StoredTuples
from sare_tf.training.validation import Validation


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Everything that a run trains and validates on.

    Attributes:
        records: opened records.
        options: options of training.
        bad: image_id of images that cannot be read.
        train: the train split, or tuples in its place.
        miner: miner of tuples; None with a loss over places, or if the tuples
            are stored.
        stored: tuples that were built; None without.
        val: the val split; None if there is none.
        source: what images are read from: the records, or their features.
    """

    records: Records
    options: TrainingOptions
    bad: Collection[str]
    train: Split | StoredTuples
    miner: Miner | None
    stored: StoredTuples | None
    val: Validation | None
    source: Records | FrozenFeatures

    @classmethod
    def of(
        cls,
        records: Records,
        options: TrainingOptions,
        *,
        bad: Collection[str] = (),
    ) -> Self:
        """Opens the data.

        Args:
            records: opened records.
            options: options of training.
            bad: image_id of images that cannot be read.

        Raises:
            ValueError: it cannot be trained on.
        """
        miner = stored = val = None
        if options.tuples is None:
            train = Split(records, "train", options, bad=bad)
        else:
            train = stored = StoredTuples(records, options)
        if not stored and not options.is_over_places:
            miner = Miner(train, options)
        if (records.manifest["split"] == "val").any():
            val = Validation(records, options, bad=bad)
        else:
            logging.warning(
                "The records have no val split: the last epoch counts as the "
                "best."
            )
        data = cls(records, options, bad, train, miner, stored, val, records)
        if options.is_over_places:
            data.planned_places(epoch=1)
        return data

    def read_from(self, source: FrozenFeatures) -> Self:
        """Returns the same data, read as features from now on."""
        self.train.source = source
        if self.val:
            self.val.read_from(source)
        return dataclasses.replace(self, source=source)

    @property
    def fingerprints(self) -> dict[str, str | None]:
        """Fingerprints of the records, by which a run knows its data."""
        if self.stored is None:
            return {
                "records_fingerprint": self.records.fingerprint,
                "tuples_fingerprint": None,
            }
        source = self.stored.tuple_records
        return {
            "records_fingerprint": source.records_fingerprint,
            "tuples_fingerprint": source.fingerprint,
        }

    def planned_places(self, *, epoch: int) -> place_batches.PlaceBatches:
        """Returns the batches of places of an epoch."""
        options, (rows, numbers) = self.options, self._places()
        is_used = ~rows["image_id"].isin(self.bad)
        rule = place_batches.PlaceBatchRule(
            places_per_batch=options.places_per_batch,
            images_per_place=options.images_per_place,
            radius_m=options.train_positive_radius_m,
            separation_m=options.positive_radius_m,
        )
        plan = place_batches.plan_batches(
            rows[is_used],
            rule=rule,
            numbers=numbers[is_used],
            seed=options.seed_of(epoch),
        )
        return dataclasses.replace(
            plan,
            positive_weights=positive_weights.of_batches(
                plan,
                rule=options.positive_weights,
                radius_m=options.train_positive_radius_m,
            ),
        )

    @property
    def num_places(self) -> int:
        """Number of places of the train split; 0 with a loss over tuples."""
        if not self.options.is_over_places:
            return 0
        return int(self._places()[1].max()) + 1

    def _places(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Images of the train split, also bad ones, and numbers of places.

        So a place keeps its number if an image turns out to be unreadable.
        """
        manifest = self.records.manifest
        rows = manifest[manifest["split"] == "train"]
        return rows, place_batches.number_places(
            rows, radius_m=self.options.train_positive_radius_m
        )

    def workload(self) -> Workload:
        """Returns the amount of work of an epoch, for a dry run."""
        validation = "none"
        if self.val:
            validation = (
                f"{len(self.val.queries)} queries, {len(self.val.database)} "
                "database images"
            )
        if self.options.is_over_places:
            steps, images = self.planned_places(epoch=1).images.shape
            return Workload(
                f"{steps} steps of {self.options.places_per_batch} places, "
                f"{images} images",
                validation,
                steps=steps,
                images_per_step=images,
                places=self.num_places if self.options.has_classes else 0,
            )
        tuples = self.options.tuples_per_batch
        images = tuples * (2 + self.options.num_negatives)
        if self.stored:
            source, steps = self.stored.tuple_records, self.stored.steps
            return Workload(
                f"{steps} steps of {tuples} tuples, {images} images, of "
                f"{source.count} in {source.path}",
                validation,
                steps=steps,
                images_per_step=images,
            )
        rounds, steps = self.miner.rounds(1), self.miner.steps(1)
        database = len(self.train.database)
        return Workload(
            f"{sum(map(len, rounds))} queries, {database} database images; "
            f"{steps} steps of {tuples} tuples, {images} images, mined in "
            f"{len(rounds)} rounds",
            validation,
            steps=steps,
            images_per_step=images,
            queries=max(map(len, rounds)),
            database=database,
        )
