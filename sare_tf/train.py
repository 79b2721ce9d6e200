"""records/ -> checkpoints/: mine tuples, fit on them, validate; each epoch.

    python -m sare_tf.train --flagfile=sare_tf:demo

An epoch goes over the training queries once, in rounds. A round embeds its
queries and the training database with the current network, mines one tuple per
query from the descriptors, and calls Keras `fit` on the tuples. A loss over
places needs no mining: an epoch goes over the places once. With --tuples, an
epoch goes once over tuples that were built as records.

After each epoch, validation measures recall on the val split by exact search.
Epoch 0 is the network before training. A run that was stopped resumes after its
last whole epoch; `run_folder` describes the files that it leaves.

With --averaging_momentum, the average of the weights is validated and saved;
training and mining continue with the weights themselves. With --interpolation,
weights between those of epoch 0 and of the last epoch are validated at the end,
see `interpolation`.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from sare_tf import flags
from sare_tf.distributed import strategies, workers
from sare_tf.records.records import Records
from sare_tf.runtime import (
    dataset_errors,
    flagfiles,
    run_lock,
    stage_results,
)
from sare_tf.training import (
    compiled_network,
    epoch_choice,
    epoch_loop,
    epoch_validation,
    frozen_features,
    interpolation,
    memory_estimate,
    optimizers,
    tensorboard,
    training_form,
    unreadable_images,
)
from sare_tf.training.divergence import Diverged
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import RunFolder
from sare_tf.training.tensorboard import TrainingLog
from sare_tf.training.training_data import TrainingData

# A run may be resumed with other values of these; the rest must stay the same.
_MAY_CHANGE = (
    "epochs",
    "patience",
    # After a divergence.
    "learning_rate",
    "batch_size",
    "max_bad_images",
    "tuples",
    "strategy",
    "chunk_images",
    "interpolation",
    "cache_frozen",
    "recompute_blocks",
)


def run(options: TrainingOptions) -> Path:
    """Trains, or resumes a run that was stopped.

    Args:
        options: options of training. The records need a train split, unless
            there are `tuples`, and a val split to choose the best epoch.

    Returns:
        The folder of the run.

    Raises:
        Diverged: a value is not finite; all epochs before are kept, and
            reported.
        ValueError: data that cannot be trained on, or a folder that holds a run
            with other options.
        OSError: an epoch could not be saved, one of several workers was
            lost, or another run trains in the folder.
    """
    strategy = strategies.make(options.strategy)
    # Refused before a run begins.
    compiled_network.check_batch(strategy, options)
    compiled_network.build_loss(
        options, group_sizes=(options.places_per_batch,)
    )
    records = Records(options.records)
    if options.dry_run:
        _report_plan(TrainingData.of(records, options))
        return Path(options.checkpoints)
    # Several workers are one run, which is the chief's.
    is_chief = strategies.is_chief(strategy)
    with run_lock.only_run(options.checkpoints if is_chief else None):
        return _train_without_bad_images(records, options, strategy)


def _train_without_bad_images(
    records: Records,
    options: TrainingOptions,
    strategy: tf.distribute.Strategy,
) -> Path:
    """Trains, and again without an image that cannot be read."""
    while True:
        try:
            with (
                workers.lost_workers_named(strategy),
                dataset_errors.as_raised(),
            ):
                return _train(records, options, strategy)
        except unreadable_images.ERRORS as error:
            if options.cache_frozen and frozen_features.remove_damaged(
                training_form.folder_of_features(options)
            ):
                continue
            unreadable_images.find(
                options.checkpoints,
                [
                    records,
                    *map(Records, options.train_records),
                    *map(Records, options.val_records),
                ],
                error,
                limit=options.max_bad_images,
            )
            if workers.is_used(strategy):
                raise ConnectionError(
                    "Expected images that can be read. Received: one that "
                    "cannot, which is left out from now on. Start all workers "
                    "again with the same command."
                ) from error


def _train(
    records: Records,
    options: TrainingOptions,
    strategy: tf.distribute.Strategy,
) -> Path:
    """Trains until the last epoch, or until patience ends."""
    data = TrainingData.of(
        records, options, bad=unreadable_images.read(options.checkpoints)
    )
    folder = _open_folder(data, strategy)
    try:
        return _train_in(folder, data, strategy)
    except Diverged:
        if folder.history:
            _report(folder, action="diverged")
        raise


def _train_in(
    folder: RunFolder,
    whole_data: TrainingData,
    strategy: tf.distribute.Strategy,
) -> Path:
    options = whole_data.options
    keras.utils.set_random_seed(options.seed)
    network, remembered = _network(whole_data, folder, strategy)
    folder.check_space(memory_estimate.checkpoint_bytes(network))
    trained_form, data = training_form.of(network, whole_data, strategy)
    with _opened_log(folder, options, strategy) as (log, callbacks):
        for epoch in range(len(folder.history), options.epochs + 1):
            if epoch and 0 < options.patience <= folder.epochs_since_best():
                logging.info("No better epoch in %d: done.", options.patience)
                break
            log.begin(epoch)
            measured, mined = {"epoch": epoch}, None
            if epoch:
                begin = time.monotonic()
                trained, mined, remembered = epoch_loop.train(
                    trained_form,
                    data,
                    epoch,
                    remembered=remembered,
                    log=log,
                    callbacks=callbacks,
                )
                seconds = time.monotonic() - begin
                measured |= {**trained, "epoch_s": round(seconds, 3)}
            with optimizers.averaged(network):
                measured |= epoch_validation.validate(
                    trained_form, data, measured, folder=folder, log=log
                )
                log.end()
                folder.finish_epoch(
                    measured,
                    network=network,
                    remembered=remembered,
                    mined=mined,
                )
            _log_epoch(measured, options)
    if options.cache_frozen:
        whole_data.read_images()  # for whole networks
    interpolated = interpolation.run(folder, whole_data, strategy)
    _report(folder, action="trained", interpolated=interpolated)
    return folder.path


def _report(
    folder: RunFolder,
    *,
    action: str,
    interpolated: dict[str, Any] | None = None,
) -> None:
    for warning in epoch_choice.warnings(folder.history, folder.best):
        logging.warning("%s", warning)
    best = int(folder.best.removeprefix("epoch-"))
    stage_results.report(
        "train",
        "\n".join([folder.summary(), *interpolation.lines(interpolated)]),
        path=folder.path,
        action=action,
        epochs=len(folder.history) - 1,
        best=folder.best,
        recall_at=folder.history[best]["recall_at"],
        interpolation=interpolated,
        next_command=flagfiles.next_command("export"),
    )


def _open_folder(
    data: TrainingData, strategy: tf.distribute.Strategy
) -> RunFolder:
    """Opens the folder of the run, in the same state on all workers."""
    options = data.options
    # The cosine ends at the last epoch, and so may an inverse bandwidth.
    ends = options.schedule == "cosine" or (
        options.inverse_bandwidth_to is not None
        and not options.inverse_bandwidth_epochs
    )
    fixed = {"epochs"} if ends else set()
    folder = RunFolder(
        options.checkpoints,
        {**options.of_the_run(), **data.fingerprints},
        may_change=set(_MAY_CHANGE) - fixed,
        defaults=options.defaults_of_the_run(),
        writes=strategies.is_chief(strategy),
    )
    workers.check_same(
        strategy,
        f"{options.of_the_run()} {data.records.fingerprint} {folder.last}",
    )
    return folder


def _network(
    data: TrainingData, folder: RunFolder, strategy: tf.distribute.Strategy
) -> tuple[keras.Model, np.ndarray]:
    """Builds or loads the network, and the negatives that are remembered."""
    options = data.options
    with strategy.scope():
        if folder.last is None:
            network = compiled_network.build(
                data.train,
                options,
                group_sizes=data.group_sizes,
                parts=data.parts,
            )
            remembered = (
                data.miner.no_memory()
                if data.miner
                else np.empty((0, 0), np.int64)
            )
        else:
            network, remembered = folder.load()
            if options.is_over_places:
                network.chunk_images = options.chunk_images
            # Saved with the average in the place of the weights.
            optimizers.exchange_average(network)
            logging.info("Resuming after %s.", folder.last)
    strategies.check_network(network)
    workers.take_weights_of_chief(network)
    return network, remembered


@contextlib.contextmanager
def _opened_log(
    folder: RunFolder,
    options: TrainingOptions,
    strategy: tf.distribute.Strategy,
) -> Iterator[tuple[TrainingLog, list[keras.callbacks.Callback]]]:
    """Opens the log for TensorBoard, and makes the callbacks that write to it.

    Only the chief's log is kept. Those of other workers are equal.
    """
    with contextlib.ExitStack() as stack:
        path = folder.path / "tensorboard"
        if not strategies.is_chief(strategy):
            path = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = TrainingLog(path, epochs=len(folder.history))
        profile = [tensorboard.Profile(path)] if options.profile else []
        yield log, profile


def _log_epoch(measured: dict, options: TrainingOptions) -> None:
    names = ("loss", "learning_rate", "inverse_bandwidth", "violating")
    names += ("images_per_s",)
    values = [
        f"{name} {measured[name]:.4g}" for name in names if name in measured
    ]
    for name, loss in measured.get("loss_by_part", {}).items():
        values.append(f"loss of {name} {loss:.4g}")
    recall = measured["recall_at"] or {}
    values += [f"val recall@{k} {value:.3f}" for k, value in recall.items()]
    for name, of_folder in measured.get("recall_by_folder", {}).items():
        values += [
            f"{name} recall@{k} {value:.3f}" for k, value in of_folder.items()
        ]
    logging.info(
        "Epoch %d of %d: %s",
        measured["epoch"],
        options.epochs,
        ", ".join(values),
    )


def _report_plan(data: TrainingData) -> None:
    """Reports what a run would do and need."""
    embedder = compiled_network.build_embedder(data.options)
    plan = memory_estimate.describe(embedder, data.options, data.workload())
    stage_results.report(
        "train",
        f"What would be trained:\n{plan}",
        path=data.options.checkpoints,
        action="planned",
        epochs=data.options.epochs,
        best=None,
        recall_at=None,
        interpolation=None,
    )


def main(argv) -> None:
    del argv
    run(TrainingOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
