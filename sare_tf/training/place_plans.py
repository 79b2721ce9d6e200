"""The batches of places of an epoch: the parts of each batch put together.

A sampler draws each place once, which is a pass. An epoch ends with the pass of
the largest part, or after `steps_per_epoch`; other parts begin again.

Plans by descriptors are made for `descriptors_every` epochs together, when the
images have been embedded. Those of later epochs are remembered in the folder of
the epoch, as a table of int64 [M, 1 + B]: the number of the epoch, then the
positions of the images of a batch among the rows of all parts. So a stopped run
resumes with the batches that it had planned.
"""

import dataclasses
import functools
from collections.abc import Collection

import keras
import numpy as np
import pandas as pd
from absl import logging

from sare_tf.distributed import workers
from sare_tf.runtime import progress
from sare_tf.training import place_batches, place_parts, positive_weights
from sare_tf.training.options import TrainingOptions
from sare_tf.training.place_batches import PlaceBatches
from sare_tf.training.place_parts import Part
from sare_tf.training.place_samplers import Places
from sare_tf.training.sampling_options import WITH_DESCRIPTORS
from sare_tf.training.split import Split


@dataclasses.dataclass(frozen=True)
class PlacePlanner:
    """Plans epochs over places.

    Attributes:
        parts: parts of a batch.
        options: options of training.
        bad: image_id of images that cannot be read.
    """

    parts: tuple[Part, ...]
    options: TrainingOptions
    bad: Collection[str] = ()

    @functools.cached_property
    def rows(self) -> pd.DataFrame:
        """The rows of all folders, also those of bad images."""
        by_start = {part.first_row: part.rows for part in self.parts}
        tables = list(by_start.values())
        return tables[0] if len(tables) == 1 else pd.concat(tables)

    @functools.cached_property
    def embedded(self) -> np.ndarray:
        """Positions in `rows` of the images whose descriptors are looked at."""
        parts = [
            part.first_row + np.arange(len(part.rows))
            for part in self.parts
            if part.sampler in WITH_DESCRIPTORS
        ]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def plan(
        self, epoch: int, descriptors: np.ndarray | None = None
    ) -> PlaceBatches:
        """Plans the batches of an epoch.

        Args:
            epoch: number of the epoch, from 1.
            descriptors: [len(self.rows), D]; None: as if all were alike.

        Raises:
            ValueError: a part that fills no batch.
        """
        firsts = [
            self._pass(number, epoch, 0, descriptors)
            for number in range(len(self.parts))
        ]
        steps = self.options.steps_per_epoch
        steps = steps or max(len(drawn.images) for drawn in firsts)
        images = []
        for number, first in enumerate(firsts):
            passes = [first.images]
            while sum(map(len, passes)) < steps:
                again = self._pass(number, epoch, len(passes), descriptors)
                passes.append(again.images)
            images.append(np.concatenate(passes)[:steps])
        return self._whole(
            np.concatenate(images, axis=1),
            small_places=sum(drawn.small_places for drawn in firsts),
            left_over=sum(drawn.left_over for drawn in firsts),
        )

    def plan_by_descriptors(
        self, network: keras.Model, split: Split, epoch: int, remembered
    ) -> tuple[PlaceBatches, np.ndarray]:
        """Plans an epoch by descriptors of the network, or as remembered.

        Args:
            network: the network as it is.
            split: embeds images.
            epoch: number of the epoch, from 1.
            remembered: batches of this and later epochs, see the module.

        Returns:
            The batches, and those of later epochs.
        """
        table = remembered
        if (epoch - 1) % self.options.descriptors_every == 0:
            descriptors = self._embed(network, split, epoch)
            plans = {
                number: self.plan(number, descriptors).images
                for number in range(
                    epoch, epoch + self.options.descriptors_every
                )
            }
            table = np.concatenate(
                [
                    np.insert(images, 0, number, axis=1)
                    for number, images in plans.items()
                ]
            )
            table = workers.from_chief(network.distribute_strategy, table)
        images = table[table[:, 0] == epoch, 1:]
        is_bad = self.rows["image_id"].isin(self.bad).to_numpy()
        whole = ~is_bad[images].any(axis=1)
        if not whole.any():
            raise ValueError(
                "Expected batches without images that cannot be read. "
                f"Received: {len(images)} batches planned for epoch {epoch}, "
                "none without. Build the records again."
            )
        if not whole.all():
            logging.warning(
                "Left out: %d batches that were planned with images that "
                "cannot be read.",
                (~whole).sum(),
            )
        return self._whole(images[whole]), table[table[:, 0] > epoch]

    def _pass(
        self,
        number: int,
        epoch: int,
        pass_number: int,
        descriptors: np.ndarray | None,
    ) -> PlaceBatches:
        """Draws each place of a part once; images as in `self.rows`."""
        part, options = self.parts[number], self.options
        is_used = ~part.rows["image_id"].isin(self.bad).to_numpy()
        positions = np.flatnonzero(is_used) + part.first_row
        later = (number, pass_number) if number or pass_number else ()
        drawn = part.sample(
            Places(
                part.rows[is_used],
                part.classes.numbers[is_used],
                place_batches.PlaceBatchRule(
                    places_per_batch=part.places_per_batch,
                    images_per_place=options.images_per_place,
                    radius_m=options.train_positive_radius_m,
                    separation_m=options.positive_radius_m,
                ),
                options.seed_of(epoch, *later),
                None if part.regions is None else part.regions[is_used],
                part.classes.group(epoch - 1),
                None if descriptors is None else descriptors[positions],
                options.similar_places,
            )
        )
        return dataclasses.replace(drawn, images=positions[drawn.images])

    def _whole(
        self, images: np.ndarray, *, small_places: int = 0, left_over: int = 0
    ) -> PlaceBatches:
        """Makes the batches of images of all parts, with labels and weights."""
        options = self.options
        plan = PlaceBatches(
            self.rows,
            images,
            self._labels(images),
            options.images_per_place,
            small_places,
            left_over,
        )
        weights = positive_weights.of_batches(
            plan,
            rule=options.positive_weights,
            radius_m=options.train_positive_radius_m,
        )
        return dataclasses.replace(plan, positive_weights=weights)

    def _labels(self, images: np.ndarray) -> np.ndarray:
        """Returns the numbers of places, which differ between parts."""
        count = self.options.images_per_place
        labels, column, first = [], 0, 0
        for part in self.parts:
            size = part.places_per_batch * count
            own = images[:, column : column + size] - part.first_row
            if part.sampler == "cliques":
                of_part = np.arange(part.places_per_batch).repeat(count)
                labels.append(np.tile(first + of_part, (len(images), 1)))
                first += part.places_per_batch
            else:
                labels.append(first + part.classes.numbers[own])
                first += sum(part.classes.group_sizes)
            column += size
        return np.concatenate(labels, axis=1)

    def _embed(
        self, network: keras.Model, split: Split, epoch: int
    ) -> np.ndarray:
        """Embeds the images that samplers look at; zeros for the others."""
        with progress.over_images(
            f"Embedding for epoch {epoch}", total=len(self.embedded)
        ) as shown:
            embedded = split.embed(
                network.get_layer("embedder"),
                self.rows.iloc[self.embedded],
                shown=shown,
            )
        if len(embedded) == len(self.rows):
            return embedded
        shape = (len(self.rows), embedded.shape[1])
        descriptors = np.zeros(shape, embedded.dtype)
        descriptors[self.embedded] = embedded
        return descriptors


def of_folders(folders, options: TrainingOptions, *, bad) -> PlacePlanner:
    """Makes the planner of epochs over folders of records.

    Raises:
        ValueError: data that a sampler cannot draw from.
    """
    planner = PlacePlanner(
        place_parts.of_folders(folders, options), options, bad
    )
    planner.plan(1)
    return planner
