"""One epoch of training: over mined tuples, stored tuples, or places.

Each returns what was measured; a value that is not finite ends it.
"""

import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from sare_tf.dataset import tuple_lists
from sare_tf.distributed import strategies, workers
from sare_tf.runtime import progress
from sare_tf.training import datasets, optimizers, train_data
from sare_tf.training.options import TrainingOptions
from sare_tf.training.tensorboard import TrainingLog


def train(
    network: keras.Model,
    data: train_data.Data,
    options: TrainingOptions,
    epoch: int,
    remembered: np.ndarray,
    *,
    log: TrainingLog,
    callbacks: Sequence[keras.callbacks.Callback],
) -> tuple[dict[str, float], pd.DataFrame | None]:
    """Trains for an epoch.

    Args:
        network: of `training_network.build`.
        data: what to train on.
        options: of training.
        epoch: its number, from 1.
        remembered: int [queries, N], negatives of the epoch before; changed to
            those of this one. Not used without mining.
        log: where curves and pictures go.
        callbacks: further ones of Keras.

    Returns:
        What was measured, and the tuples that were mined, if any.

    Raises:
        ValueError: a value that is not finite; names the step and its images.
    """
    settings = {"log": log, "callbacks": callbacks}
    if data.miner:
        return _train_on_tuples(
            network, data, options, epoch, remembered, **settings
        )
    on = _train_on_stored if data.stored else _train_on_places
    return on(network, data, options, epoch, **settings), None


def steps_taken(network: keras.Model) -> int:
    """Steps of the optimizer since the run began."""
    # What several workers share is no number to Python.
    return int(keras.ops.convert_to_numpy(network.optimizer.iterations))


def _train_on_tuples(
    network: keras.Model,
    data: train_data.Data,
    options: TrainingOptions,
    epoch: int,
    remembered: np.ndarray,
    *,
    log: TrainingLog,
    callbacks: Sequence[keras.callbacks.Callback],
) -> tuple[dict[str, float], pd.DataFrame]:
    """Mines and fits, round by round; what was measured, and the tuples."""
    rounds = data.miner.rounds(epoch)
    names = data.records.manifest["image_id"].to_numpy(object)
    images_of_a_step = options.tuples_per_batch * (2 + options.num_negatives)
    steps_of_epoch = data.miner.steps(epoch)
    found, listed, steps = [], [], 0
    for number, queries in enumerate(rounds):
        where = f"epoch {epoch}, round {number + 1} of {len(rounds)}"
        with progress.over_images(
            f"Mining for {where}", total=data.miner.images_to_embed(queries)
        ) as mining:
            tuples, mined = data.miner.mine(
                network.get_layer("embedder"),
                queries,
                remembered=remembered,
                seed=options.seed_of(epoch),
                shown=mining,
            )
        strategy = network.distribute_strategy
        tuples = workers.from_chief(strategy, tuples)
        remembered[:] = workers.from_chief(strategy, remembered)
        listed.append(tuples)
        step = steps_taken(network)
        log.mined(step, mined)
        log.values(step, {"mining/images_per_s": mining.images_per_s})
        if number + 1 == len(rounds):
            log.hardest(
                step,
                data.records,
                tuples,
                mined,
                height=options.image_height,
                width=options.image_width,
            )
        dataset = datasets.tuple_dataset(
            data.records,
            tuples,
            height=options.image_height,
            width=options.image_width,
            tuples_per_batch=options.tuples_per_batch,
            **train_data.draws(options),
            seed=options.seed_of(epoch, number),
            part=workers.part(strategy),
        )
        loss, seconds = _fit(
            network,
            dataset,
            names[tuples[:, 0]],
            named="queries",
            per_batch=options.tuples_per_batch,
            images_of_a_step=images_of_a_step,
            epoch=epoch,
            described=f"Training in {where}",
            rate=_rate(options, epoch, steps, steps_of_epoch),
            steps_before=steps,
            log=log,
            callbacks=callbacks,
        )
        found.append((loss, mined.violating, mining.seconds, seconds))
        steps += len(tuples) // options.tuples_per_batch
    losses_of_rounds, violating, mining_s, fit_s = zip(*found, strict=True)
    sizes = [len(queries) for queries in rounds]
    measured = {
        "loss": float(np.average(losses_of_rounds, weights=sizes)),
        "learning_rate": _rate(options, epoch, 0, steps)(steps - 1),
        "violating": float(np.average(violating, weights=sizes)),
        "mining_s": round(sum(mining_s), 3),
        "images_per_s": round(steps * images_of_a_step / sum(fit_s), 1),
    }
    return measured, tuple_lists.make(
        np.concatenate(listed), data.records.manifest
    )


def _train_on_stored(
    network: keras.Model,
    data: train_data.Data,
    options: TrainingOptions,
    epoch: int,
    *,
    log: TrainingLog,
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict[str, float]:
    """Fits on tuple records; returns what was measured."""
    seed = options.seed_of(epoch)
    dataset = data.stored.dataset(
        seed=seed, part=workers.part(network.distribute_strategy)
    )
    steps = int(dataset.cardinality())
    images_of_a_step = options.tuples_per_batch * (2 + options.num_negatives)
    rate = _rate(options, epoch, 0, steps)
    try:
        loss, seconds = _fit(
            network,
            dataset,
            data.stored.queries(seed=seed),
            named="queries",
            per_batch=options.tuples_per_batch,
            images_of_a_step=images_of_a_step,
            epoch=epoch,
            described=f"Training in epoch {epoch}",
            rate=rate,
            log=log,
            callbacks=callbacks,
        )
    except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        raise data.stored.source.damaged(error) from error
    return {
        "loss": loss,
        "learning_rate": rate(steps - 1),
        "images_per_s": round(steps * images_of_a_step / seconds, 1),
    }


def _train_on_places(
    network: keras.Model,
    data: train_data.Data,
    options: TrainingOptions,
    epoch: int,
    *,
    log: TrainingLog,
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict[str, float]:
    """Fits on batches of places; returns what was measured."""
    rows, plan = train_data.planned_batches(
        data.records, options, epoch=epoch, bad=data.bad
    )
    dataset = datasets.planned_place_dataset(
        data.records,
        rows,
        plan,
        height=options.image_height,
        width=options.image_width,
        **train_data.draws(options),
        seed=options.seed_of(epoch),
        with_positions=bool(options.memory_images),
        part=workers.part(network.distribute_strategy),
    )
    steps, images_of_a_step = plan.images.shape
    rate = _rate(options, epoch, 0, steps)
    loss, seconds = _fit(
        network,
        dataset,
        rows["image_id"].to_numpy(object)[plan.images.reshape(-1)],
        named="images",
        per_batch=images_of_a_step,
        images_of_a_step=images_of_a_step,
        epoch=epoch,
        described=f"Training in epoch {epoch}",
        rate=rate,
        log=log,
        callbacks=callbacks,
    )
    return {
        "loss": loss,
        "learning_rate": rate(steps - 1),
        "images_per_s": round(plan.images.size / seconds, 1),
    }


def _rate(
    options: TrainingOptions, epoch: int, steps_before: int, steps_of_epoch: int
) -> Callable[[int], float]:
    """The learning rate by step, from 0 at `steps_before` of an epoch."""

    def rate(step: int) -> float:
        return optimizers.rate_at(
            epoch - 1 + (steps_before + step) / steps_of_epoch,
            schedule=options.schedule,
            learning_rate=options.learning_rate,
            epochs=options.epochs,
            warmup_epochs=options.warmup_epochs,
            halve_every=options.halve_every,
        )

    return rate


def _fit(
    network: keras.Model,
    dataset: tf.data.Dataset,
    names: Sequence[str],
    *,
    named: str,
    per_batch: int,
    images_of_a_step: int,
    epoch: int,
    described: str,
    rate: Callable[[int], float],
    log: TrainingLog,
    callbacks: Sequence[keras.callbacks.Callback],
    steps_before: int = 0,
) -> tuple[float, float]:
    """Fits on a dataset once; returns the mean loss and the seconds.

    The names, `per_batch` of each batch in their order, and what they name are
    for messages.
    """

    def set_rate(batch: int, logs: dict[str, float]) -> None:
        network.optimizer.learning_rate.assign(rate(batch))

    def check_loss(batch: int, logs: dict[str, float]) -> None:
        shown.advance(images_of_a_step, loss=logs["loss"])
        if not math.isfinite(logs["loss"]):
            raise ValueError(
                f"Expected a finite loss. Received: loss={logs['loss']} at "
                f"step {steps_before + batch + 1} of epoch {epoch}, {named} "
                f"{list(names[batch * per_batch :][:per_batch])}. The last "
                f"checkpoint, epoch-{epoch - 1:04d}, is untouched; lower "
                "--learning_rate."
            )

    steps = int(dataset.cardinality())
    with progress.over_images(
        described, total=steps * images_of_a_step
    ) as shown:
        history = strategies.fit(
            network,
            dataset,
            shuffle=False,
            initial_epoch=epoch - 1,
            epochs=epoch,
            verbose=0,
            callbacks=[
                keras.callbacks.LambdaCallback(
                    on_train_batch_begin=set_rate,
                    on_train_batch_end=check_loss,
                ),
                optimizers.KeepWeights(),
                *callbacks,
            ],
        )
    _check_weights(network)
    loss = float(history.history["loss"][-1])
    log.values(
        steps_taken(network),
        {
            "train/loss": loss,
            "train/learning_rate": rate(steps - 1),
            "train/images_per_s": shown.images_per_s,
        },
    )
    return loss, shown.seconds


def _check_weights(network: keras.Model) -> None:
    """A gradient that is not finite shows in the weights before the loss."""
    for variable in network.trainable_variables:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise ValueError(
                "Expected finite weights. Received: a value that is not, in "
                f"{variable.path}. The last checkpoint is untouched; lower "
                "--learning_rate."
            )
