"""records/ -> checkpoints/: mine tuples, fit on them, validate; each epoch.

    python -m sare_tf.train --flagfile=configs/demo.flags

An epoch goes over the training queries once, in rounds. A round embeds its
queries and the training database with the current network, mines one tuple per
query from the descriptors, and calls Keras `fit` on the tuples. With a loss
over places there is no mining: an epoch goes over the places once. After the
epoch the validation recall is measured, by exact search over the val split.
Epoch 0 is the network before training. A run that was stopped continues after
its last whole epoch; what its folder holds, `checkpoints` says.
"""

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from absl import flags, logging

from sare_tf import (
    distribution,
    losses,
    model,
    optimizers,
    pipeline,
    places,
    train_data,
    worker_loop,
)
from sare_tf import flags as stage_flags
from sare_tf.checkpoints import Run
from sare_tf.options import Options
from sare_tf.place_network import PlaceNetwork
from sare_tf.records import Records

FLAGS = flags.FLAGS
# A run may go on with other values of these; the rest must stay as it was.
_MAY_CHANGE = ("epochs", "patience", "batch_size", "strategy", "chunk_images")


def run(*, records: str | Path, checkpoints: str | Path, **options) -> Path:
    """Trains, or goes on with a run that was stopped.

    Args:
        records: folder of `build_records`, with a train split and, to choose
            the best epoch, a val split.
        checkpoints: folder of this run.
        **options: fields of `Options`.

    Returns:
        `checkpoints`.

    Raises:
        ValueError: data that cannot be trained on, values that are not finite,
            or a folder that holds a run with other options.
        ConnectionError: one of several workers was lost.
    """
    options = Options(**options)
    strategy = distribution.make(options.strategy)
    _check_batch(strategy, options)
    _loss(options)  # refuses settings that do not fit before a run begins
    opened = Records(records)
    with worker_loop.lost_workers_named(strategy):
        return _run(opened, Path(checkpoints), options, strategy)


def _run(
    opened: Records,
    checkpoints: Path,
    options: Options,
    strategy: tf.distribute.Strategy,
) -> Path:
    chief = distribution.is_chief(strategy)
    train = train_data.Split(opened, "train", options)
    over_places = options.loss in losses.PLACE_LOSSES
    if over_places:
        _place_batches(opened, options, epoch=1)  # refuses what fills none
    else:
        miner = train_data.Miner(train, options)
    val = None
    if (opened.manifest["split"] == "val").any():
        val = train_data.Validation(opened, options)
    else:
        logging.warning(
            "The records have no val split: the last epoch counts as the best."
        )
    past = Run(
        checkpoints,
        {
            **dataclasses.asdict(options),
            "records_fingerprint": opened.fingerprint,
        },
        may_change=_MAY_CHANGE,
        writes=chief,
    )
    worker_loop.check_same(
        strategy, f"{options} {opened.fingerprint} {past.last}"
    )
    keras.utils.set_random_seed(options.seed)
    with strategy.scope():
        if past.last is None:
            network = _new_network(train, options)
            size = 0 if over_places else options.num_negatives
            remembered = np.full((len(train.queries), size), -1, np.int64)
        else:
            network, remembered = past.load()
            if over_places:
                network.chunk_images = options.chunk_images
            logging.info("Going on after %s.", past.last)
    distribution.check_network(network)
    worker_loop.take_weights_of_chief(network)
    embedder = network.get_layer("embedder")
    if chief:
        writer = tf.summary.create_file_writer(str(checkpoints / "tensorboard"))
    else:
        writer = tf.summary.create_noop_writer()

    for epoch in range(len(past.history), options.epochs + 1):
        measured = {"epoch": epoch}
        if epoch:
            if 0 < options.patience <= past.epochs_since_best():
                logging.info("No better epoch in %d: done.", options.patience)
                break
            begin = time.monotonic()
            rate = options.learning_rate * 0.5 ** options.halvings(epoch)
            network.optimizer.learning_rate.assign(rate)
            measured["learning_rate"] = rate
            if over_places:
                measured |= _train_on_places(network, opened, options, epoch)
            else:
                measured |= _train_on_tuples(
                    network, miner, options, epoch, remembered
                )
            measured["epoch_s"] = round(time.monotonic() - begin, 3)
        measured["recall_at"] = val and _of_chief(
            strategy, val.recall(embedder)
        )
        past.finish_epoch(measured, network=network, remembered=remembered)
        _tell(writer, measured, options)
    logging.info(
        "Best: %s. Checkpoints in %s. Next: python -m sare_tf.export "
        "--flagfile=...; curves: tensorboard --logdir %s",
        past.best,
        checkpoints,
        checkpoints,
    )
    return checkpoints


def _train_on_tuples(
    network: keras.Model,
    miner: train_data.Miner,
    options: Options,
    epoch: int,
    remembered: np.ndarray,
) -> dict[str, float]:
    """Mines and fits, round by round; returns what was measured."""
    rounds = miner.rounds(epoch)
    names = miner.records.manifest["image_id"].to_numpy(object)
    found, steps = [], 0
    for number, queries in enumerate(rounds):
        mining_begin = time.monotonic()
        tuples, violating = miner.mine(
            network.get_layer("embedder"),
            queries,
            remembered=remembered,
            seed=_seed(options.seed, epoch),
        )
        strategy = network.distribute_strategy
        tuples = worker_loop.from_chief(strategy, tuples)
        remembered[:] = worker_loop.from_chief(strategy, remembered)
        mining_s = time.monotonic() - mining_begin
        logging.info(
            "Epoch %d, round %d of %d: %d tuples mined in %.1f s.",
            epoch,
            number + 1,
            len(rounds),
            len(tuples),
            mining_s,
        )
        dataset = pipeline.tuple_dataset(
            miner.records,
            tuples,
            height=options.image_height,
            width=options.image_width,
            tuples_per_batch=options.tuples_per_batch,
            augment=options.augment,
            seed=_seed(options.seed, epoch, number),
            part=worker_loop.part(strategy),
        )
        loss = _fit(
            network,
            dataset,
            names[tuples[:, 0]],
            named="queries",
            per_batch=options.tuples_per_batch,
            epoch=epoch,
            steps_before=steps,
        )
        found.append((loss, violating, mining_s))
        steps += len(tuples) // options.tuples_per_batch
    losses_of_rounds, violating, seconds = zip(*found, strict=True)
    sizes = [len(queries) for queries in rounds]
    return {
        "loss": float(np.average(losses_of_rounds, weights=sizes)),
        "violating": float(np.average(violating, weights=sizes)),
        "mining_s": round(sum(seconds), 3),
    }


def _train_on_places(
    network: keras.Model, records: Records, options: Options, epoch: int
) -> dict[str, float]:
    """Fits on batches of places; returns what was measured."""
    rows, plan = _place_batches(records, options, epoch=epoch)
    dataset = pipeline.planned_place_dataset(
        records,
        rows,
        plan,
        height=options.image_height,
        width=options.image_width,
        augment=options.augment,
        seed=_seed(options.seed, epoch),
        with_positions=bool(options.memory_images),
        part=worker_loop.part(network.distribute_strategy),
    )
    loss = _fit(
        network,
        dataset,
        rows["image_id"].to_numpy(object)[plan.images.reshape(-1)],
        named="images",
        per_batch=plan.images.shape[1],
        epoch=epoch,
    )
    return {"loss": loss}


def _place_batches(
    records: Records, options: Options, *, epoch: int
) -> tuple[pd.DataFrame, places.PlaceBatches]:
    """Rows to train on, and the batches of an epoch."""
    rows = records.manifest[records.manifest["split"] == "train"]
    plan = places.plan_batches(
        rows,
        places_per_batch=options.places_per_batch,
        images_per_place=options.images_per_place,
        radius_m=options.train_positive_radius_m,
        separation_m=options.positive_radius_m,
        seed=_seed(options.seed, epoch),
    )
    return rows, plan


def _fit(
    network: keras.Model,
    dataset: tf.data.Dataset,
    names: Sequence[str],
    *,
    named: str,
    per_batch: int,
    epoch: int,
    steps_before: int = 0,
) -> float:
    """Fits on a dataset once; returns the mean loss.

    The names, `per_batch` of each batch in their order, and what they name are
    for messages.
    """

    def check_loss(batch: int, logs: dict[str, float]) -> None:
        if not math.isfinite(logs["loss"]):
            raise ValueError(
                f"Expected a finite loss. Received: loss={logs['loss']} at "
                f"step {steps_before + batch + 1} of epoch {epoch}, {named} "
                f"{list(names[batch * per_batch :][:per_batch])}. The last "
                "checkpoint is untouched; lower --learning_rate."
            )

    history = distribution.fit(
        network,
        dataset,
        shuffle=False,
        initial_epoch=epoch - 1,
        epochs=epoch,
        callbacks=[
            keras.callbacks.LambdaCallback(on_train_batch_end=check_loss)
        ],
    )
    _check_weights(network)
    return float(history.history["loss"][-1])


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


def _new_network(train: train_data.Split, options: Options) -> keras.Model:
    centres = None
    if options.netvlad_centres:
        if options.aggregation != "netvlad":
            raise ValueError(
                "Expected aggregation='netvlad' with netvlad_centres. "
                f"Received: aggregation={options.aggregation!r}. Leave "
                "--netvlad_centres out."
            )
        centres = model.read_centres(options.netvlad_centres)
    embedder = model.build_embedder(
        backbone=options.backbone,
        aggregation=options.aggregation,
        num_clusters=options.num_clusters,
        weights=options.weights,
        cut_layer=options.cut_layer,
        train_from=options.train_from,
        image_size=(options.image_height, options.image_width),
    )
    if options.aggregation == "netvlad":
        rng = np.random.default_rng(options.seed)
        count = min(500, len(train.database))
        sample = np.sort(rng.choice(len(train.database), count, replace=False))
        images = pipeline.image_dataset(
            train.records,
            train.database.iloc[sample],
            height=options.image_height,
            width=options.image_width,
            batch_size=options.batch_size,
        )
        model.initialise_netvlad(
            embedder, images, centres=centres, seed=options.seed
        )
    if options.loss in losses.PLACE_LOSSES:
        network = PlaceNetwork(
            embedder,
            chunk_images=options.chunk_images,
            memory_images=options.memory_images,
            memory_after_steps=options.memory_after_steps,
            separation_m=options.positive_radius_m,
        )
    else:
        network = model.over_tuples(embedder)
    network.compile(optimizer=_optimizer(options), loss=_loss(options))
    # Now, so that epoch 0 is saved with it and can be gone on from.
    network.optimizer.build(network.trainable_variables)
    return network


def _loss(options: Options) -> keras.losses.Loss:
    return losses.build(
        options.loss,
        kernel=options.kernel,
        inverse_bandwidth=options.inverse_bandwidth,
        margin=options.margin,
        scaling=options.joint_scaling,
        hardest_negatives=options.hardest_negatives,
    )


def _optimizer(options: Options) -> keras.optimizers.Optimizer:
    if options.optimizer == "adam":
        return keras.optimizers.AdamW(
            options.learning_rate, weight_decay=options.weight_decay
        )
    return optimizers.CoupledSGD(
        options.learning_rate, weight_decay=options.weight_decay
    )


def _tell(writer, measured: dict, options: Options) -> None:
    recall = measured["recall_at"] or {}
    scalars = {
        name: measured[name]
        for name in ("loss", "learning_rate", "violating")
        if name in measured
    }
    with writer.as_default(step=measured["epoch"]):
        for name, value in scalars.items():
            tf.summary.scalar(name, value)
        for k, value in recall.items():
            tf.summary.scalar(f"val/recall_at_{k}", value)
    writer.flush()
    logging.info(
        "Epoch %d of %d: %s",
        measured["epoch"],
        options.epochs,
        ", ".join(
            [f"{name} {value:.4g}" for name, value in scalars.items()]
            + [f"val recall@{k} {value:.3f}" for k, value in recall.items()]
        ),
    )


def main(argv) -> None:
    del argv
    stage_flags.required("records", "checkpoints")
    names = [field.name for field in dataclasses.fields(Options)]
    run(
        records=FLAGS.records,
        checkpoints=FLAGS.checkpoints,
        **{name: FLAGS[name].value for name in names},
    )


if __name__ == "__main__":
    stage_flags.start(main)
