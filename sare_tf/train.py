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

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from absl import flags, logging

from sare_tf import (
    bad_images,
    distribution,
    losses,
    model,
    optimizers,
    pipeline,
    places,
    progress,
    train_data,
    training_log,
    training_plan,
    worker_loop,
)
from sare_tf import flags as stage_flags
from sare_tf import tuples as tuple_lists
from sare_tf.checkpoints import Run
from sare_tf.options import Options
from sare_tf.place_network import PlaceNetwork
from sare_tf.records import Records
from sare_tf.training_log import TrainingLog

FLAGS = flags.FLAGS
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


def run(
    *,
    records: str | Path,
    checkpoints: str | Path,
    dry_run: bool = False,
    profile: bool = False,
    **options,
) -> Path:
    """Trains, or goes on with a run that was stopped.

    Args:
        records: folder of `build_records`, with a train split, unless there
            are `tuples`, and, to choose the best epoch, a val split.
        checkpoints: folder of this run.
        dry_run: say what would be done, and write nothing.
        profile: write a profile of some steps, for TensorBoard.
        **options: fields of `Options`.

    Returns:
        `checkpoints`.

    Raises:
        ValueError: data that cannot be trained on, values that are not finite,
            or a folder that holds a run with other options.
        OSError: an epoch could not be saved, or one of several workers was
            lost.
    """
    options = Options(**options)
    strategy = distribution.make(options.strategy)
    _check_batch(strategy, options)
    _loss(options)  # refuses settings that do not fit before a run begins
    train_data.draws(options)  # and effects that are none
    if options.tuples is not None and options.loss in losses.PLACE_LOSSES:
        raise ValueError(
            "Expected a loss over tuples with tuples. Received: "
            f"loss={options.loss!r}, tuples={options.tuples!r}. Choose "
            "another --loss, or leave --tuples out."
        )
    opened = Records(records)
    if dry_run:
        _tell_plan(_Data.of(opened, options, bad=()), options)
        return Path(checkpoints)
    while True:
        try:
            with worker_loop.lost_workers_named(strategy):
                return _run(
                    opened,
                    Path(checkpoints),
                    options,
                    strategy,
                    profile=profile,
                )
        except bad_images.ERRORS as error:
            bad_images.find(
                checkpoints, opened, error, limit=options.max_bad_images
            )
            if worker_loop.is_used(strategy):
                raise ConnectionError(
                    "Expected images that can be read. Received: one that "
                    "cannot, which is left out from now on. Start all workers "
                    "again with the same command."
                ) from error


@dataclasses.dataclass(frozen=True)
class _Data:
    """What is trained and validated on.

    Attributes:
        records: opened.
        bad: image_id of images that cannot be read.
        train: the train split, or tuples in its place.
        miner: of tuples; None with a loss over places, or if they are stored.
        stored: tuples that were built; None without.
        val: the val split; None if there is none.
    """

    records: Records
    bad: Collection[str]
    train: train_data.Split | train_data.StoredTuples
    miner: train_data.Miner | None
    stored: train_data.StoredTuples | None
    val: train_data.Validation | None

    @classmethod
    def of(
        cls, records: Records, options: Options, *, bad: Collection[str]
    ) -> "_Data":
        """Refuses what cannot be trained on."""
        miner = stored = val = None
        if options.tuples is None:
            train = train_data.Split(records, "train", options, bad=bad)
        else:
            train = stored = train_data.StoredTuples(records, options)
        if options.loss in losses.PLACE_LOSSES:
            _place_batches(records, options, epoch=1, bad=bad)
        elif not stored:
            miner = train_data.Miner(train, options)
        if (records.manifest["split"] == "val").any():
            val = train_data.Validation(records, options, bad=bad)
        else:
            logging.warning(
                "The records have no val split: the last epoch counts as the "
                "best."
            )
        return cls(records, bad, train, miner, stored, val)


def _run(
    records: Records,
    checkpoints: Path,
    options: Options,
    strategy: tf.distribute.Strategy,
    *,
    profile: bool,
) -> Path:
    chief = distribution.is_chief(strategy)
    data = _Data.of(records, options, bad=bad_images.read(checkpoints))
    past = Run(
        checkpoints,
        {
            **dataclasses.asdict(options),
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
    worker_loop.check_same(
        strategy, f"{options} {records.fingerprint} {past.last}"
    )
    keras.utils.set_random_seed(options.seed)
    with strategy.scope():
        if past.last is None:
            network = _new_network(data.train, options)
            size = (0, 0)
            if data.miner:
                size = (len(data.train.queries), options.num_negatives)
            remembered = np.full(size, -1, np.int64)
        else:
            network, remembered = past.load()
            if options.loss in losses.PLACE_LOSSES:
                network.chunk_images = options.chunk_images
            # Saved with the average in the place of the weights.
            optimizers.exchange_average(network)
            logging.info("Going on after %s.", past.last)
    distribution.check_network(network)
    worker_loop.take_weights_of_chief(network)
    past.check_space(training_plan.checkpoint_bytes(network))
    log = TrainingLog(
        checkpoints / "tensorboard" if chief else Path(tempfile.mkdtemp()),
        epochs=len(past.history),
    )
    profiler = training_log.Profile(log.folder) if profile else None

    for epoch in range(len(past.history), options.epochs + 1):
        measured, mined = {"epoch": epoch}, None
        if epoch and 0 < options.patience <= past.epochs_since_best():
            logging.info("No better epoch in %d: done.", options.patience)
            break
        log.begin(epoch)
        if epoch:
            begin = time.monotonic()
            callbacks = [profiler] if profiler else []
            if data.miner:
                found, mined = _train_on_tuples(
                    network,
                    data,
                    options,
                    epoch,
                    remembered,
                    log=log,
                    callbacks=callbacks,
                )
                measured |= found
            elif data.stored:
                measured |= _train_on_stored(
                    network, data, options, epoch, log=log, callbacks=callbacks
                )
            else:
                measured |= _train_on_places(
                    network, data, options, epoch, log=log, callbacks=callbacks
                )
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


def _train_on_tuples(
    network: keras.Model,
    data: _Data,
    options: Options,
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
                seed=_seed(options.seed, epoch),
                shown=mining,
            )
        strategy = network.distribute_strategy
        tuples = worker_loop.from_chief(strategy, tuples)
        remembered[:] = worker_loop.from_chief(strategy, remembered)
        listed.append(tuples)
        step = _step(network)
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
        dataset = pipeline.tuple_dataset(
            data.records,
            tuples,
            height=options.image_height,
            width=options.image_width,
            tuples_per_batch=options.tuples_per_batch,
            **train_data.draws(options),
            seed=_seed(options.seed, epoch, number),
            part=worker_loop.part(strategy),
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
    data: _Data,
    options: Options,
    epoch: int,
    *,
    log: TrainingLog,
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict[str, float]:
    """Fits on tuple records; returns what was measured."""
    seed = _seed(options.seed, epoch)
    dataset = data.stored.dataset(
        seed=seed, part=worker_loop.part(network.distribute_strategy)
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
    data: _Data,
    options: Options,
    epoch: int,
    *,
    log: TrainingLog,
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict[str, float]:
    """Fits on batches of places; returns what was measured."""
    rows, plan = _place_batches(
        data.records, options, epoch=epoch, bad=data.bad
    )
    dataset = pipeline.planned_place_dataset(
        data.records,
        rows,
        plan,
        height=options.image_height,
        width=options.image_width,
        **train_data.draws(options),
        seed=_seed(options.seed, epoch),
        with_positions=bool(options.memory_images),
        part=worker_loop.part(network.distribute_strategy),
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


def _validate(
    network: keras.Model,
    data: _Data,
    options: Options,
    measured: dict,
    *,
    past: Run,
    log: TrainingLog,
) -> dict[int, float] | None:
    """Measures recall; the projector shows the best epoch's descriptors."""
    step = _step(network)
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
    chosen, answers = val.sample(training_log.PROJECTOR_IMAGES)
    if past.would_be_best({**measured, "recall_at": recall}) and len(chosen):
        log.projector(
            data.records,
            pd.concat([val.queries.iloc[chosen], val.database.iloc[answers]]),
            np.concatenate([queries[chosen], database[answers]]),
            height=options.image_height,
            width=options.image_width,
        )
    return recall


def _place_batches(
    records: Records, options: Options, *, epoch: int, bad: Collection[str]
) -> tuple[pd.DataFrame, places.PlaceBatches]:
    """Rows to train on, and the batches of an epoch."""
    rows = records.manifest[
        (records.manifest["split"] == "train")
        & ~records.manifest["image_id"].isin(bad)
    ]
    plan = places.plan_batches(
        rows,
        places_per_batch=options.places_per_batch,
        images_per_place=options.images_per_place,
        radius_m=options.train_positive_radius_m,
        separation_m=options.positive_radius_m,
        seed=_seed(options.seed, epoch),
    )
    return rows, plan


def _rate(
    options: Options, epoch: int, steps_before: int, steps_of_epoch: int
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
        history = distribution.fit(
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
        _step(network),
        {
            "train/loss": loss,
            "train/learning_rate": rate(steps - 1),
            "train/images_per_s": shown.images_per_s,
        },
    )
    return loss, shown.seconds


def _step(network: keras.Model) -> int:
    """Steps that were taken."""
    # What several workers share is no number to Python.
    return int(keras.ops.convert_to_numpy(network.optimizer.iterations))


def _seed(*parts: int) -> int:
    """One seed of several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _check_weights(network: keras.Model) -> None:
    """A gradient that is not finite shows in the weights before the loss."""
    for variable in network.trainable_variables:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise ValueError(
                "Expected finite weights. Received: a value that is not, in "
                f"{variable.path}. The last checkpoint is untouched; lower "
                "--learning_rate."
            )


def _of_chief(
    strategy: tf.distribute.Strategy, recall: dict[int, float]
) -> dict[int, float]:
    """One recall for all workers, by which they choose the best epoch."""
    values = worker_loop.from_chief(strategy, np.array(list(recall.values())))
    return dict(zip(recall, values.tolist(), strict=True))


def _check_batch(strategy: tf.distribute.Strategy, options: Options) -> None:
    if options.loss not in losses.PLACE_LOSSES:
        for name in ("chunk_images", "memory_images"):
            if getattr(options, name):
                raise ValueError(
                    f"Expected {name}=0 with a loss over tuples. Received: "
                    f"{name}={getattr(options, name)}, loss={options.loss!r}. "
                    "Choose one of --loss=place_*."
                )
        distribution.check_batch(
            strategy,
            size=options.tuples_per_batch,
            what="tuples, by --tuples_per_batch",
        )
        return
    size = options.places_per_batch * options.images_per_place
    distribution.check_batch(
        strategy,
        size=size,
        what="images, by --places_per_batch times --images_per_place",
    )
    of_a_replica = size // strategy.num_replicas_in_sync
    if options.chunk_images and of_a_replica % options.chunk_images:
        raise ValueError(
            "Expected chunk_images to divide the images of a replica. "
            f"Received: chunk_images={options.chunk_images}, {of_a_replica} "
            "images. Change --chunk_images or --places_per_batch."
        )
    if options.memory_images and not options.loss.startswith("place_sare"):
        raise ValueError(
            "Expected memory_images=0 with a loss other than "
            "place_sare_joint and place_sare_independent. Received: "
            f"memory_images={options.memory_images}, loss={options.loss!r}."
        )


def _new_network(
    train: train_data.Split | train_data.StoredTuples, options: Options
) -> keras.Model:
    centres = None
    if options.netvlad_centres:
        if options.aggregation != "netvlad":
            raise ValueError(
                "Expected aggregation='netvlad' with netvlad_centres. "
                f"Received: aggregation={options.aggregation!r}. Leave "
                "--netvlad_centres out."
            )
        centres = model.read_centres(options.netvlad_centres)
    embedder = _new_embedder(options)
    if options.aggregation == "netvlad":
        try:
            model.initialise_netvlad(
                embedder,
                train.first_images(),
                centres=centres,
                seed=options.seed,
            )
        except tf.errors.DataLossError as error:
            if options.tuples is None:
                raise  # `bad_images` finds out
            raise train.source.damaged(error) from error
    augmentation = None
    if options.augment:
        augmentation = model.Augmentation(options.augment)
    if options.loss in losses.PLACE_LOSSES:
        network = PlaceNetwork(
            embedder,
            augmentation=augmentation,
            chunk_images=options.chunk_images,
            memory_images=options.memory_images,
            memory_after_steps=options.memory_after_steps,
            separation_m=options.positive_radius_m,
        )
    else:
        network = model.over_tuples(embedder, augmentation=augmentation)
    network.compile(
        optimizer=optimizers.build(
            options.optimizer,
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
            averaging_momentum=options.averaging_momentum,
        ),
        loss=_loss(options),
        jit_compile="auto"
        if options.jit_compile is None
        else options.jit_compile,
    )
    # Now, so that epoch 0 is saved with it and can be gone on from.
    network.optimizer.build(network.trainable_variables)
    return network


def _new_embedder(options: Options) -> keras.Model:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(options.precision)
    try:
        return model.build_embedder(
            backbone=options.backbone,
            aggregation=options.aggregation,
            num_clusters=options.num_clusters,
            weights=options.weights,
            cut_layer=options.cut_layer,
            train_from=options.train_from,
            image_size=(options.image_height, options.image_width),
        )
    finally:
        keras.config.set_dtype_policy(policy)


def _loss(options: Options) -> keras.losses.Loss:
    return losses.build(
        options.loss,
        kernel=options.kernel,
        inverse_bandwidth=options.inverse_bandwidth,
        margin=options.margin,
        scaling=options.joint_scaling,
        hardest_negatives=options.hardest_negatives,
    )


def _tell(measured: dict, options: Options) -> None:
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


def _tell_plan(data: _Data, options: Options) -> None:
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
        _, plan = _place_batches(data.records, options, epoch=1, bad=data.bad)
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
        training_plan.describe(
            _new_embedder(options),
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
    stage_flags.required("records", "checkpoints")
    names = [field.name for field in dataclasses.fields(Options)]
    run(
        records=FLAGS.records,
        checkpoints=FLAGS.checkpoints,
        dry_run=FLAGS.dry_run,
        profile=FLAGS.profile,
        **{name: FLAGS[name].value for name in names},
    )


if __name__ == "__main__":
    stage_flags.start(main)
