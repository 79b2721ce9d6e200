"""records/ -> checkpoints/: mine tuples, fit on them, validate; each epoch.

    python -m sare_tf.train --flagfile=configs/demo.flags

An epoch goes over the training queries once, in rounds. A round embeds its
queries and the training database with the current network, mines one tuple per
query from the descriptors, and calls Keras `fit` on the tuples. With a loss
over places there is no mining: an epoch goes over the places once. Nor is there
with --tuples, tuples that were built as records: an epoch goes over them once.
After it the validation recall is measured, by exact search over the val split.
Epoch 0 is the network before training. A run that was stopped continues after
its last whole epoch; what its folder holds, `checkpoints` says.

With --averaging_momentum the average of the weights is validated and saved;
training and mining go on from the weights themselves.
"""

import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging

from sare_tf import flags
from sare_tf.distributed import strategies, workers
from sare_tf.records.records import Records
from sare_tf.runtime import progress, run_lock
from sare_tf.training import (
    compiled_network,
    epoch_loop,
    memory_estimate,
    optimizers,
    tensorboard,
    train_data,
    unreadable_images,
)
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import Run
from sare_tf.training.tensorboard import TrainingLog

# A run may go on with other values of these; the rest must stay as it was.
_MAY_CHANGE = (
    "epochs",
    "patience",
    "batch_size",
    "max_bad_images",
    "tuples",
    "strategy",
    "chunk_images",
)


def run(options: TrainingOptions) -> Path:
    """Trains, or resumes a run that was stopped.

    Args:
        options: the records, with a train split unless there are `tuples`, and,
            to choose the best epoch, a val split; the folder of the run; and
            what is trained and how.

    Returns:
        The folder of the run.

    Raises:
        ValueError: data that cannot be trained on, values that are not finite,
            or a folder that holds a run with other options.
        OSError: an epoch could not be saved, one of several workers was
            lost, or another run trains in the folder.
    """
    records, checkpoints = options.records, options.checkpoints
    strategy = strategies.make(options.strategy)
    # Refuse what does not fit before a run begins.
    compiled_network.check_batch(strategy, options)
    compiled_network.build_loss(options)
    train_data.draws(options)
    opened = Records(records)
    if options.dry_run:
        _tell_plan(train_data.Data.of(opened, options, bad=()), options)
        return Path(checkpoints)
    # Several workers are one run, which is the chief's.
    with run_lock.only_run(
        checkpoints if strategies.is_chief(strategy) else None
    ):
        return _run_without_bad_images(opened, options, strategy)


def _run_without_bad_images(
    opened: Records,
    options: TrainingOptions,
    strategy: tf.distribute.Strategy,
) -> Path:
    """Trains, and again without an image that cannot be read."""
    checkpoints = options.checkpoints
    while True:
        try:
            with workers.lost_workers_named(strategy):
                return _run(opened, Path(checkpoints), options, strategy)
        except unreadable_images.ERRORS as error:
            unreadable_images.find(
                checkpoints, opened, error, limit=options.max_bad_images
            )
            if workers.is_used(strategy):
                raise ConnectionError(
                    "Expected images that can be read. Received: one that "
                    "cannot, which is left out from now on. Start all workers "
                    "again with the same command."
                ) from error


def _run(
    records: Records,
    checkpoints: Path,
    options: TrainingOptions,
    strategy: tf.distribute.Strategy,
) -> Path:
    chief = strategies.is_chief(strategy)
    data = train_data.Data.of(
        records, options, bad=unreadable_images.read(checkpoints)
    )
    past = Run(
        checkpoints,
        {
            **options.of_the_run(),
            "records_fingerprint": data.stored.source.records_fingerprint
            if data.stored
            else records.fingerprint,
            "tuples_fingerprint": data.stored
            and data.stored.source.fingerprint,
        },
        # The cosine has its end at the last epoch.
        may_change=set(_MAY_CHANGE)
        - ({"epochs"} if options.schedule == "cosine" else set()),
        writes=chief,
    )
    workers.check_same(
        strategy, f"{options.of_the_run()} {records.fingerprint} {past.last}"
    )
    keras.utils.set_random_seed(options.seed)
    with strategy.scope():
        if past.last is None:
            network = compiled_network.build(data.train, options)
            size = (0, 0)
            if data.miner:
                size = (len(data.train.queries), options.num_negatives)
            remembered = np.full(size, -1, np.int64)
        else:
            network, remembered = past.load()
            if options.is_over_places:
                network.chunk_images = options.chunk_images
            # Saved with the average in the place of the weights.
            optimizers.exchange_average(network)
            logging.info("Going on after %s.", past.last)
    strategies.check_network(network)
    workers.take_weights_of_chief(network)
    past.check_space(memory_estimate.checkpoint_bytes(network))
    # Other workers' curves are the chief's; theirs go when the run ends.
    unkept = None if chief else tempfile.TemporaryDirectory()
    log = TrainingLog(
        Path(unkept.name) if unkept else checkpoints / "tensorboard",
        epochs=len(past.history),
    )
    profiler = tensorboard.Profile(log.folder) if options.profile else None

    for epoch in range(len(past.history), options.epochs + 1):
        measured, mined = {"epoch": epoch}, None
        if epoch and 0 < options.patience <= past.epochs_since_best():
            logging.info("No better epoch in %d: done.", options.patience)
            break
        log.begin(epoch)
        if epoch:
            begin = time.monotonic()
            callbacks = [profiler] if profiler else []
            found, mined = epoch_loop.train(
                network,
                data,
                options,
                epoch,
                remembered,
                log=log,
                callbacks=callbacks,
            )
            measured |= found
            measured["epoch_s"] = round(time.monotonic() - begin, 3)
        with optimizers.averaged(network):
            measured["recall_at"] = _validate(
                network, data, options, measured, past=past, log=log
            )
            log.end()
            past.finish_epoch(
                measured, network=network, remembered=remembered, mined=mined
            )
        _tell(measured, options)
    logging.info(
        "%s\nNext: python -m sare_tf.export --flagfile=...", past.summary()
    )
    return checkpoints


def _validate(
    network: keras.Model,
    data: train_data.Data,
    options: TrainingOptions,
    measured: dict,
    *,
    past: Run,
    log: TrainingLog,
) -> dict[int, float] | None:
    """Measures recall; the projector shows the best epoch's descriptors."""
    step = epoch_loop.steps_taken(network)
    log.values(step, {"epoch": measured["epoch"]})
    val = data.val
    if val is None:
        return None
    with progress.over_images(
        f"Validation of epoch {measured['epoch']}",
        total=len(val.queries) + len(val.database),
    ) as shown:
        queries, database = val.embed(
            network.get_layer("embedder"), shown=shown
        )
    recall = _of_chief(
        network.distribute_strategy, val.recall(queries, database)
    )
    log.values(step, {f"val/recall_at_{k}": v for k, v in recall.items()})
    chosen, answers = val.sample(tensorboard.PROJECTOR_IMAGES)
    if past.would_be_best({**measured, "recall_at": recall}) and len(chosen):
        log.projector(
            data.records,
            pd.concat([val.queries.iloc[chosen], val.database.iloc[answers]]),
            np.concatenate([queries[chosen], database[answers]]),
            height=options.image_height,
            width=options.image_width,
        )
    return recall


def _of_chief(
    strategy: tf.distribute.Strategy, recall: dict[int, float]
) -> dict[int, float]:
    """One recall for all workers, by which they choose the best epoch."""
    values = workers.from_chief(strategy, np.array(list(recall.values())))
    return dict(zip(recall, values.tolist(), strict=True))


def _tell(measured: dict, options: TrainingOptions) -> None:
    recall = measured["recall_at"] or {}
    names = ("loss", "learning_rate", "violating", "images_per_s")
    logging.info(
        "Epoch %d of %d: %s",
        measured["epoch"],
        options.epochs,
        ", ".join(
            [
                f"{name} {measured[name]:.4g}"
                for name in names
                if name in measured
            ]
            + [f"val recall@{k} {value:.3f}" for k, value in recall.items()]
        ),
    )


def _tell_plan(data: train_data.Data, options: TrainingOptions) -> None:
    """What a run would do and need."""
    if data.miner:
        rounds = data.miner.rounds(1)
        steps, longest = data.miner.steps(1), max(map(len, rounds))
        images = options.tuples_per_batch * (2 + options.num_negatives)
        database = len(data.train.database)
        epoch = (
            f"{sum(map(len, rounds))} queries, {database} database images; "
            f"{steps} steps of {options.tuples_per_batch} tuples, {images} "
            f"images, mined in {len(rounds)} rounds"
        )
    elif data.stored:
        steps = int(data.stored.dataset(seed=0).cardinality())
        images = options.tuples_per_batch * (2 + options.num_negatives)
        longest, database = 0, 0
        epoch = (
            f"{steps} steps of {options.tuples_per_batch} tuples, {images} "
            f"images, of {data.train.source.count} in {data.train.source.path}"
        )
    else:
        _, plan = train_data.planned_batches(
            data.records, options, epoch=1, bad=data.bad
        )
        (steps, images), longest, database = plan.images.shape, 0, 0
        epoch = (
            f"{steps} steps of {options.places_per_batch} places, {images} "
            "images"
        )
    validation = "none"
    if data.val:
        validation = (
            f"{len(data.val.queries)} queries, {len(data.val.database)} "
            "database images"
        )
    logging.info(
        "What would be trained:\n%s",
        memory_estimate.describe(
            compiled_network.build_embedder(options),
            options,
            epoch=epoch,
            steps=steps,
            validation=validation,
            images_per_step=images,
            queries=longest,
            database=database,
        ),
    )


def main(argv) -> None:
    del argv
    run(TrainingOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
