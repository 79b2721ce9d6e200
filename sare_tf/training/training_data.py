"""Everything that a run trains and validates on."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Self

import numpy as np
from absl import logging

from sare_tf.records.records import Records
from sare_tf.training import (
    datasets,
    folder_features,
    image_service,
    place_parts,
    place_plans,
    validation,
)
from sare_tf.training.frozen_features import FrozenFeatures
from sare_tf.training.memory_estimate import Workload
from sare_tf.training.miner import Miner
from sare_tf.training.options import TrainingOptions
from sare_tf.training.place_batches import PlaceBatches
from sare_tf.training.place_plans import PlacePlanner
from sare_tf.training.split import Split
from sare_tf.training.stored_tuples import StoredTuples
from sare_tf.training.validation import FolderValidations


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
        val: the val splits; None if there is none.
        places: planner of batches of places; None with a loss over tuples.
        folders: opened records of the places, `records` by default.
        source: what images are read from: the records, a service that reads
            them, or their features.
    """

    records: Records
    options: TrainingOptions
    bad: Collection[str]
    train: Split | StoredTuples
    miner: Miner | None
    stored: StoredTuples | None
    val: FolderValidations | None
    places: PlacePlanner | None
    folders: tuple[Records, ...]
    source: datasets.Source

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
        miner = stored = val = places = None
        folders = tuple(map(Records, options.train_records)) or (records,)
        if options.tuples is None:
            train = Split(folders[0], "train", options, bad=bad)
        else:
            train = stored = StoredTuples(records, options)
        if not stored and not options.is_over_places:
            miner = Miner(train, options)
        val_folders = tuple(map(Records, options.val_records)) or (records,)
        if options.val_records or (records.manifest["split"] == "val").any():
            val = validation.of_folders(val_folders, options, bad=bad)
        elif options.interpolation:
            raise ValueError(
                "Expected a val split, to choose between interpolated "
                f"networks. Received: interpolation={options.interpolation}, "
                "records without. Give --val_records, or leave "
                "--interpolation out."
            )
        else:
            logging.warning(
                "The records have no val split: the last epoch counts as the "
                "best."
            )
        if options.is_over_places:
            places = place_plans.of_folders(folders, options, bad=bad)
        data = cls(
            records,
            options,
            bad,
            train,
            miner,
            stored,
            val,
            places,
            folders,
            source=records,
        )
        if options.data_service is None or options.dry_run:
            return data
        return data._served()

    def _served(self) -> Self:
        """Returns the same data, read by the service from now on."""
        val_folders = self.val.folders if self.val else ()
        service = image_service.connect(
            self.options.data_service,
            list(dict.fromkeys([self.records, *self.folders, *val_folders])),
        )
        self.train.source = service.of(self.folders[0])
        if self.val:
            self.val.read_from([service.of(folder) for folder in val_folders])
        return dataclasses.replace(self, source=service.of(self.records))

    def images_used(self) -> list[tuple[Records, np.ndarray]]:
        """Returns the records of the run, each once, with the images it uses.

        See `folder_features.images_used`; with stored tuples also their images.
        """
        used = folder_features.images_used(
            self.folders, self.val.folders if self.val else ()
        )
        if self.stored:
            (records, positions), *others = used
            positions = np.union1d(positions, self.stored.positions())
            used = [(records, positions), *others]
        return used

    def read_from(self, features: Mapping[str, FrozenFeatures]) -> Self:
        """Returns the same data, read as features from now on.

        Args:
            features: fingerprint of records -> their features.
        """
        source = folder_features.of_folders(self.folders, features)
        self.train.source = source
        if self.val:
            self.val.read_from(
                [features[each.fingerprint] for each in self.val.folders]
            )
        return dataclasses.replace(self, source=source)

    def read_images(self) -> None:
        """Validates on images from now on, after `read_from`."""
        if self.val:
            self.val.read_from([self.source_of(r) for r in self.val.folders])

    def source_of(self, records: Records) -> datasets.Source:
        """Returns what images of a folder of the run are read from."""
        if isinstance(self.source, image_service.ServedImages):
            return self.source.of(records)
        return records

    @property
    def fingerprints(self) -> dict[str, str | list[str] | None]:
        """Fingerprints of the records, by which a run knows its data."""
        several = {"train_fingerprints": None, "val_fingerprints": None}
        if self.options.train_records:
            several["train_fingerprints"] = _fingerprints(self.folders)
        if self.options.val_records:
            several["val_fingerprints"] = _fingerprints(self.val.folders)
        if self.stored is None:
            return several | {
                "records_fingerprint": self.records.fingerprint,
                "tuples_fingerprint": None,
            }
        source = self.stored.tuple_records
        return several | {
            "records_fingerprint": source.records_fingerprint,
            "tuples_fingerprint": source.fingerprint,
        }

    def planned_places(self, *, epoch: int) -> PlaceBatches:
        """Returns the batches of places of an epoch, without descriptors."""
        return self.places.plan(epoch)

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Number of places of each group; () with a loss over tuples."""
        if self.places is None:
            return ()
        return place_parts.group_sizes(self.places.parts)

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """Name and images of each part of a batch; () if there is only one."""
        if self.places is None or len(self.places.parts) == 1:
            return ()
        count = self.options.images_per_place
        return tuple(
            (part.name, part.places_per_batch * count)
            for part in self.places.parts
        )

    def workload(self) -> Workload:
        """Returns the amount of work of an epoch, for a dry run."""
        validated = "none"
        if self.val:
            validated = (
                f"{self.val.num_queries} queries, {self.val.num_database} "
                "database images"
            )
        if self.options.is_over_places:
            steps, images = self.planned_places(epoch=1).images.shape
            embedded = len(self.places.embedded)
            return Workload(
                f"{steps} steps of {self.options.places_per_batch} places, "
                f"{images} images"
                + "".join(f", {count} of {name}" for name, count in self.parts)
                + (f"; {embedded} images embedded before" if embedded else ""),
                validated,
                steps=steps,
                images_per_step=images,
                places=sum(self.group_sizes) if self.options.has_classes else 0,
            )
        tuples = self.options.tuples_per_batch
        images = tuples * (2 + self.options.num_negatives)
        if self.stored:
            source, steps = self.stored.tuple_records, self.stored.steps
            return Workload(
                f"{steps} steps of {tuples} tuples, {images} images, of "
                f"{source.count} in {source.path}",
                validated,
                steps=steps,
                images_per_step=images,
            )
        rounds, steps = self.miner.rounds(1), self.miner.steps(1)
        database = len(self.train.database)
        return Workload(
            f"{sum(map(len, rounds))} queries, {database} database images; "
            f"{steps} steps of {tuples} tuples, {images} images, mined in "
            f"{len(rounds)} rounds",
            validated,
            steps=steps,
            images_per_step=images,
            queries=max(map(len, rounds)),
            database=database,
        )


def _fingerprints(folders: Collection[Records]) -> list[str]:
    return [records.fingerprint for records in folders]
