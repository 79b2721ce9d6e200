"""One epoch of training: over mined tuples, stored tuples, or places.

A value that is not finite ends the epoch.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from sare_tf.dataset import tuple_lists
from sare_tf.distributed import strategies, workers
from sare_tf.runtime import progress
from sare_tf.training import (
    bandwidth_schedule,
    datasets,
    optimizers,
    place_network,
)
from sare_tf.training.batches import draws_of
from sare_tf.training.epoch_batches import Batches
from sare_tf.training.options import TrainingOptions
from sare_tf.training.tensorboard import TrainingLog
from sare_tf.training.training_data import TrainingData


def train(
    network: keras.Model,
    data: TrainingData,
    epoch: int,
    *,
    remembered: np.ndarray,
    log: TrainingLog,
    callbacks: Sequence[keras.callbacks.Callback],
) -> tuple[dict[str, Any], pd.DataFrame | None, np.ndarray]:
    """Trains for an epoch.

    Args:
        network: network of `compiled_network.build`.
        data: data to train on.
        epoch: number of the epoch, from 1.
        remembered: what the epoch before left: negatives, int [queries, N], or
            batches of places that it planned, see `place_plans`.
        log: log of curves and pictures.
        callbacks: further callbacks of Keras.

    Returns:
        Measured values by name, the tuples if they were mined, and what the
        next epoch remembers.

    Raises:
        Diverged: a value is not finite; names the step and its images.
    """
    run = _Epoch(network, data, epoch, log, callbacks)
    if data.miner:
        remembered = remembered.copy()
        return *run.on_mined_tuples(remembered), remembered
    if data.stored:
        return run.on_stored_tuples(), None, remembered
    measured, remembered = run.on_places(remembered)
    return measured, None, remembered


def steps_taken(network: keras.Model) -> int:
    """Returns the steps of the optimizer since the run began."""
    # Python cannot convert a variable that several workers share.
    return int(keras.ops.convert_to_numpy(network.optimizer.iterations))


@dataclasses.dataclass(frozen=True)
class _Round:
    """Measured values of a round of mining and fitting."""

    queries: int
    loss: float
    violating: float
    mining_s: float
    fit_s: float


@dataclasses.dataclass(frozen=True)
class _Epoch:
    """An epoch, and what it takes part in."""

    network: keras.Model
    data: TrainingData
    number: int
    log: TrainingLog
    callbacks: Sequence[keras.callbacks.Callback]

    @property
    def _options(self) -> TrainingOptions:
        return self.data.options

    @property
    def _images_per_tuple_batch(self) -> int:
        return self._options.tuples_per_batch * (
            2 + self._options.num_negatives
        )

    def on_mined_tuples(
        self, remembered: np.ndarray
    ) -> tuple[dict[str, float], pd.DataFrame]:
        """Mines and fits, round by round."""
        rounds = self.data.miner.rounds(self.number)
        steps_of_epoch = self.data.miner.steps(self.number)
        image_ids = self.data.records.manifest["image_id"].to_numpy(object)
        measured, mined_tuples, steps = [], [], 0
        for number, queries in enumerate(rounds):
            title = f"epoch {self.number}, round {number + 1} of {len(rounds)}"
            tuples, violating, mining_s = self._mine(
                queries,
                remembered,
                title=title,
                is_last=number + 1 == len(rounds),
            )
            loss, fit_s = self._fit(
                Batches(
                    self._tuple_dataset(tuples, number),
                    names=image_ids[tuples[:, 0]],
                    names_per_batch=self._options.tuples_per_batch,
                    kind="queries",
                    images_per_batch=self._images_per_tuple_batch,
                    title=f"Training in {title}",
                    first_step=steps,
                    steps_of_epoch=steps_of_epoch,
                )
            )
            measured.append(
                _Round(len(queries), loss, violating, mining_s, fit_s)
            )
            mined_tuples.append(tuples)
            steps += len(tuples) // self._options.tuples_per_batch
        table = pd.DataFrame(measured)
        return {
            "loss": float(np.average(table["loss"], weights=table["queries"])),
            "learning_rate": self._rate(steps - 1, steps),
            **bandwidth_schedule.measured(self.network),
            "violating": float(
                np.average(table["violating"], weights=table["queries"])
            ),
            "mining_s": round(float(table["mining_s"].sum()), 3),
            "images_per_s": self._images_per_s(
                steps * self._images_per_tuple_batch, table["fit_s"].sum()
            ),
        }, tuple_lists.make(
            np.concatenate(mined_tuples), self.data.records.manifest
        )

    def on_stored_tuples(self) -> dict[str, float]:
        """Fits on tuple records."""
        stored, seed = self.data.stored, self._options.seed_of(self.number)
        part = workers.part(self.network.distribute_strategy)
        batches = Batches(
            stored.dataset(seed=seed, part=part),
            names=stored.queries(seed=seed),
            names_per_batch=self._options.tuples_per_batch,
            kind="queries",
            images_per_batch=self._images_per_tuple_batch,
            title=f"Training in epoch {self.number}",
            steps_of_epoch=stored.steps,
        )
        try:
            return self._fit_epoch(batches)
        except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
            raise stored.tuple_records.damaged(error) from error

    def on_places(
        self, remembered: np.ndarray
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Fits on batches of places; remembers those of later epochs."""
        places = self.data.places
        if len(places.embedded):
            plan, remembered = places.plan_by_descriptors(
                self.network, self.data.train, self.number, remembered
            )
        else:
            plan = places.plan(self.number)
        steps, images_per_batch = plan.images.shape
        dataset = datasets.planned_place_dataset(
            self.data.source,
            plan,
            height=self._options.image_height,
            width=self._options.image_width,
            with_positions=bool(self._options.memory_images),
            draws=draws_of(
                self._options, seed=self._options.seed_of(self.number)
            ),
            part=workers.part(self.network.distribute_strategy),
        )
        image_ids = plan.rows["image_id"].to_numpy(object)
        measured = self._fit_epoch(
            Batches(
                dataset,
                names=image_ids[plan.images.reshape(-1)],
                names_per_batch=images_per_batch,
                kind="images",
                images_per_batch=images_per_batch,
                title=f"Training in epoch {self.number}",
                steps_of_epoch=steps,
            )
        )
        return measured, remembered

    def _mine(
        self,
        queries: np.ndarray,
        remembered: np.ndarray,
        *,
        title: str,
        is_last: bool,
    ) -> tuple[np.ndarray, float, float]:
        """Mines tuples, which are the chief's on all workers.

        Returns:
            Tuples, the share of violating negatives, and the seconds.
        """
        data, options = self.data, self._options
        with progress.over_images(
            f"Mining for {title}", total=data.miner.images_to_embed(queries)
        ) as mining:
            tuples, mined = data.miner.mine(
                self.network.get_layer("embedder"),
                queries,
                remembered=remembered,
                seed=options.seed_of(self.number),
                shown=mining,
            )
        strategy = self.network.distribute_strategy
        tuples = workers.from_chief(strategy, tuples)
        remembered[:] = workers.from_chief(strategy, remembered)
        step = steps_taken(self.network)
        self.log.mined(step, mined)
        self.log.values(step, {"mining/images_per_s": mining.images_per_s})
        if is_last:
            self.log.hardest(
                step,
                data.records,
                tuples,
                mined,
                height=options.image_height,
                width=options.image_width,
            )
        return tuples, mined.violating, mining.seconds

    def _tuple_dataset(
        self, tuples: np.ndarray, round_number: int
    ) -> tf.data.Dataset:
        options = self._options
        return datasets.tuple_dataset(
            self.data.source,
            tuples,
            height=options.image_height,
            width=options.image_width,
            tuples_per_batch=options.tuples_per_batch,
            draws=draws_of(
                options, seed=options.seed_of(self.number, round_number)
            ),
            part=workers.part(self.network.distribute_strategy),
        )

    def _fit_epoch(self, batches: Batches) -> dict[str, Any]:
        """Fits on the batches of a whole epoch; returns measured values."""
        steps = batches.steps_of_epoch
        loss, seconds = self._fit(batches)
        by_part = place_network.losses_of_parts(self.network)
        return {
            "loss": loss,
            **({"loss_by_part": by_part} if by_part else {}),
            "learning_rate": self._rate(steps - 1, steps),
            **bandwidth_schedule.measured(self.network),
            "images_per_s": self._images_per_s(
                steps * batches.images_per_batch, seconds
            ),
        }

    def _fit(self, batches: Batches) -> tuple[float, float]:
        """Fits on batches once; returns the mean loss and the seconds."""
        network = self.network

        def rate_of(batch: int) -> float:
            return self._rate(
                batches.first_step + batch, batches.steps_of_epoch
            )

        def set_rate(batch: int, logs: dict[str, float]) -> None:
            network.optimizer.learning_rate.assign(rate_of(batch))
            bandwidth_schedule.set_of(
                network,
                self._epochs_done(
                    batches.first_step + batch, batches.steps_of_epoch
                ),
                self._options,
            )

        def check_loss(batch: int, logs: dict[str, float]) -> None:
            shown.advance(batches.images_per_batch, loss=logs["loss"])
            if not math.isfinite(logs["loss"]):
                raise batches.not_finite(batch, logs["loss"], epoch=self.number)

        with progress.over_images(
            batches.title, total=batches.steps * batches.images_per_batch
        ) as shown:
            history = strategies.fit(
                network,
                batches.dataset,
                shuffle=False,
                initial_epoch=self.number - 1,
                epochs=self.number,
                verbose=0,
                callbacks=[
                    keras.callbacks.LambdaCallback(
                        on_train_batch_begin=set_rate,
                        on_train_batch_end=check_loss,
                    ),
                    optimizers.KeepWeights(),
                    *self.callbacks,
                ],
            )
        optimizers.check_weights(network)
        loss = float(history.history["loss"][-1])
        values = {
            "loss": loss,
            "learning_rate": rate_of(batches.steps - 1),
            "images_per_s": shown.images_per_s,
            **bandwidth_schedule.measured(network),
        }
        for name, of_part in place_network.losses_of_parts(network).items():
            values[f"loss_{name}"] = of_part
        self.log.values(
            steps_taken(network),
            {f"train/{name}": value for name, value in values.items()},
        )
        return loss, shown.seconds

    def _rate(self, step: int, steps_of_epoch: int) -> float:
        """Returns the learning rate of a step of the epoch, from 0."""
        return optimizers.rate_at(
            self._epochs_done(step, steps_of_epoch),
            schedule=self._options.schedule,
            learning_rate=self._options.learning_rate,
            epochs=self._options.epochs,
            warmup_epochs=self._options.warmup_epochs,
            halve_every=self._options.halve_every,
        )

    def _epochs_done(self, step: int, steps_of_epoch: int) -> float:
        """Counts the epochs of the run before a step of this one, from 0."""
        return self.number - 1 + step / steps_of_epoch

    @staticmethod
    def _images_per_s(images: int, seconds: float) -> float:
        return round(float(images / seconds), 1)
