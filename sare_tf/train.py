"""records/ -> checkpoints/: mine tuples, fit on them, validate; each epoch.

    python -m sare_tf.train --flagfile=configs/demo.flags

An epoch embeds the training images with the current network, mines one tuple
per query from the descriptors, and calls Keras `fit` on the tuples. After it
the validation recall is measured, by exact search over the val split. Epoch 0
is the network before training. The checkpoints hold epoch 0, the last and the
best epoch (recall@5, as the original code chooses); a run that was stopped
continues after its last whole epoch.
"""

import dataclasses
import math
import shutil
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from absl import flags, logging

from sare_tf import (
    files,
    losses,
    manifest,
    mining,
    model,
    optimizers,
    pipeline,
    retrieval,
)
from sare_tf import flags as stage_flags
from sare_tf.records import Records

FLAGS = flags.FLAGS
RECALL_AT = (1, 5, 10)
_COMMAND = "python -m sare_tf.train --flagfile=..."
# A run may go on with other values of these; the rest must stay as it was.
_MAY_CHANGE = ("epochs", "patience", "batch_size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is trained and how. Each is the flag of the same name."""

    image_height: int = 480
    image_width: int = 640
    backbone: str = "vgg16"
    aggregation: str = "netvlad"
    num_clusters: int = 64
    weights: str | None = None
    cut_layer: str | None = None
    train_from: str | None = None
    netvlad_centres: str | None = None
    loss: str = "sare_joint"
    kernel: str = "gaussian"
    inverse_bandwidth: float = 1.0
    margin: float | None = None
    joint_scaling: str = "tuples"
    positives: str = "auto"
    positive_radius_m: float = 25.0
    train_positive_radius_m: float = 10.0
    train_positive_min_m: float = 0.0
    epochs: int = 30
    patience: int = 10
    tuples_per_batch: int = 4
    num_negatives: int = 10
    negative_pool: int = 1000
    queries_per_epoch: int = 0
    optimizer: str = "sgd"
    learning_rate: float = 0.001
    halve_every: int = 5
    weight_decay: float = 0.001
    augment: bool = False
    batch_size: int = 32
    seed: int = 0


class _Split:
    """Queries and database of one split, and their descriptors."""

    def __init__(self, records: Records, name: str, options: Options):
        self.records = records
        self.options = options
        self.queries = records.rows(name, "query")
        self.database = records.rows(name, "database")

    def same_place(self, radius_m: float, min_distance_m: float = 0.0) -> list:
        return manifest.positives(
            self.queries,
            self.database,
            rule=self.options.positives,
            radius_m=radius_m,
            min_distance_m=min_distance_m,
            relations=self.records.relations,
        )

    def embed(self, embedder: keras.Model, rows: pd.DataFrame) -> np.ndarray:
        dataset = pipeline.image_dataset(
            self.records,
            rows,
            height=self.options.image_height,
            width=self.options.image_width,
            batch_size=self.options.batch_size,
        )
        return embedder.predict(dataset, verbose=0)

    def recall(self, embedder: keras.Model) -> dict[int, float]:
        database = self.embed(embedder, self.database)
        ks = [k for k in RECALL_AT if k <= len(database)]
        neighbours, _ = retrieval.nearest(
            self.embed(embedder, self.queries), database, max(ks)
        )
        positives = self.same_place(self.options.positive_radius_m)
        return retrieval.recall_at(neighbours, positives, ks)


class _StopOnNonFinite(keras.callbacks.Callback):
    """Ends training at a loss that is not finite, naming the tuples."""

    def __init__(self, queries: list[str], tuples_per_batch: int):
        super().__init__()
        self._queries = queries
        self._size = tuples_per_batch

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            start = batch * self._size
            raise ValueError(
                f"Expected a finite loss. Received: loss={loss} at step "
                f"{batch + 1} of this epoch, queries "
                f"{self._queries[start : start + self._size]}. The last "
                "checkpoint is untouched; lower --learning_rate."
            )


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
        ValueError: data that cannot be trained on, or a folder that holds a
            run with other options.
    """
    options = Options(**options)
    _loss(options)  # refuses settings that do not fit before a run begins
    checkpoints = Path(checkpoints)
    opened = Records(records)
    config = {
        **dataclasses.asdict(options),
        "records_fingerprint": opened.fingerprint,
    }
    state = _start_or_resume(checkpoints, config)
    keras.utils.set_random_seed(options.seed)

    train = _Split(opened, "train", options)
    near = train.same_place(
        options.train_positive_radius_m, options.train_positive_min_m
    )
    same_place = train.same_place(options.positive_radius_m)
    usable = mining.check_places(
        near,
        same_place,
        database_size=len(train.database),
        num_negatives=options.num_negatives,
    )
    logging.info(
        "Training on %d queries and %d database images (%d queries left out: "
        "no potential positive).",
        len(usable),
        len(train.database),
        len(near) - len(usable),
    )
    val = _val_split(opened, options)
    strategy = _strategy(options)
    with strategy.scope():
        if state["last"] is None:
            network = _new_network(train, options)
        else:
            network = keras.models.load_model(
                checkpoints / state["last"] / "model.keras"
            )
            logging.info("Going on after %s.", state["last"])
    embedder = network.get_layer("embedder")
    writer = tf.summary.create_file_writer(str(checkpoints / "tensorboard"))

    if state["last"] is None:
        remembered = np.full(
            (len(train.queries), options.num_negatives), -1, np.int64
        )
        measured = {"epoch": 0, "recall_at": val and val.recall(embedder)}
        _finish_epoch(checkpoints, state, network, remembered, measured)
        _tell(writer, measured, options)
    else:
        remembered = np.load(checkpoints / state["last"] / "remembered.npy")
    for epoch in range(len(state["history"]), options.epochs + 1):
        if _should_stop(state, options):
            logging.info("No better epoch in %d: done.", options.patience)
            break
        rate = options.learning_rate
        if options.halve_every:
            rate *= 0.5 ** ((epoch - 1) // options.halve_every)
        network.optimizer.learning_rate.assign(rate)
        begin = time.monotonic()
        mined = _mine(
            train,
            embedder,
            options,
            epoch,
            usable,
            near,
            same_place,
            remembered,
        )
        mining_s = time.monotonic() - begin
        history = _fit(train, network, mined, options, epoch)
        measured = {
            "epoch": epoch,
            "loss": float(history.history["loss"][-1]),
            "learning_rate": rate,
            "violating": mined.violating,
            "mining_s": round(mining_s, 3),
            "epoch_s": round(time.monotonic() - begin, 3),
            "recall_at": val and val.recall(embedder),
        }
        _finish_epoch(checkpoints, state, network, remembered, measured)
        _tell(writer, measured, options)
    logging.info(
        "Best: %s. Checkpoints in %s. Next: python -m sare_tf.export "
        "--flagfile=...; curves: tensorboard --logdir %s",
        state["best"],
        checkpoints,
        checkpoints,
    )
    return checkpoints


def read_state(checkpoints: str | Path) -> tuple[dict, dict]:
    """Reads the options and the state of a run.

    Returns:
        The options with the records' fingerprint, and the state: `last` and
        `best` name folders of epochs, `history` has one entry per epoch.

    Raises:
        FileNotFoundError: nothing was trained there.
    """
    checkpoints = Path(checkpoints)
    config = files.read_json(checkpoints / "config.json", made_by=_COMMAND)
    state = files.read_json(checkpoints / "state.json", made_by=_COMMAND)
    if state["last"] is None:
        raise FileNotFoundError(
            "Expected a finished epoch. Received: checkpoints="
            f"{str(checkpoints)!r}, where training stopped before its first. "
            f"Run {_COMMAND} first."
        )
    return config, state


def _start_or_resume(checkpoints: Path, config: dict[str, Any]) -> dict:
    if (checkpoints / "config.json").is_file():
        found = files.read_json(checkpoints / "config.json", made_by=_COMMAND)
        differences = [
            f"{name}: {found.get(name)!r} there, {value!r} now"
            for name, value in config.items()
            if name not in _MAY_CHANGE and found.get(name) != value
        ]
        if differences:
            raise ValueError(
                "Expected the options this run was started with. Received: "
                f"checkpoints={str(checkpoints)!r} with "
                + "; ".join(differences)
                + ". Choose another --checkpoints, or delete that folder."
            )
        return files.read_json(checkpoints / "state.json", made_by=_COMMAND)
    if checkpoints.exists() and any(checkpoints.iterdir()):
        raise ValueError(
            "Expected an empty or new folder for checkpoints. Received: "
            f"checkpoints={str(checkpoints)!r}, which holds other files. "
            "Choose another --checkpoints."
        )
    checkpoints.mkdir(parents=True, exist_ok=True)
    state = {"last": None, "best": None, "history": []}
    # The state first: a config tells the next run that there is one.
    files.write_json(checkpoints / "state.json", state)
    files.write_json(checkpoints / "config.json", config)
    return state


def _val_split(records: Records, options: Options) -> _Split | None:
    if not (records.manifest["split"] == "val").any():
        logging.warning(
            "The records have no val split: the last epoch counts as the best."
        )
        return None
    return _Split(records, "val", options)


def _strategy(options: Options) -> tf.distribute.Strategy:
    if len(tf.config.list_physical_devices("GPU")) < 2:
        return tf.distribute.get_strategy()
    strategy = tf.distribute.MirroredStrategy()
    if options.tuples_per_batch % strategy.num_replicas_in_sync:
        raise ValueError(
            "Expected --tuples_per_batch to be a multiple of the number of "
            f"GPUs. Received: tuples_per_batch={options.tuples_per_batch}, "
            f"{strategy.num_replicas_in_sync} GPUs."
        )
    return strategy


def _new_network(train: _Split, options: Options) -> keras.Model:
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
    network = model.over_tuples(embedder)
    network.compile(
        optimizer=_optimizer(options),
        loss=_loss(options),
    )
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
    )


def _optimizer(options: Options) -> keras.optimizers.Optimizer:
    if options.optimizer == "adam":
        return keras.optimizers.AdamW(
            options.learning_rate, weight_decay=options.weight_decay
        )
    return optimizers.CoupledSGD(
        options.learning_rate, weight_decay=options.weight_decay
    )


def _mine(
    train, embedder, options, epoch, usable, near, same_place, remembered
) -> mining.Mined:
    rng = np.random.default_rng((options.seed, epoch))
    order = rng.permutation(usable)
    if options.queries_per_epoch:
        order = order[: options.queries_per_epoch]
    # Only this epoch's queries are embedded; rows keep their numbers.
    rows, where = np.unique(order, return_inverse=True)
    mined = mining.mine(
        train.embed(embedder, train.queries.iloc[rows]),
        train.embed(embedder, train.database),
        queries=where,
        potential_positives=[near[row] for row in rows],
        same_place=[same_place[row] for row in rows],
        num_negatives=options.num_negatives,
        negative_pool=options.negative_pool,
        remembered=(kept := remembered[rows]),
        seed=options.seed * 1000003 + epoch,
    )
    remembered[rows] = kept
    return dataclasses.replace(mined, queries=order)


def _fit(train, network, mined, options, epoch) -> keras.callbacks.History:
    queries = train.queries.index.to_numpy()[mined.queries]
    database = train.database.index.to_numpy()
    tuples = np.concatenate(
        [
            queries[:, None],
            database[mined.positives][:, None],
            database[mined.negatives],
        ],
        axis=1,
    )
    dataset = pipeline.tuple_dataset(
        train.records,
        tuples,
        height=options.image_height,
        width=options.image_width,
        tuples_per_batch=options.tuples_per_batch,
        augment=options.augment,
        seed=options.seed * 1000003 + epoch,
    )
    names = train.records.manifest["image_id"].loc[queries].tolist()
    return network.fit(
        dataset,
        shuffle=False,
        initial_epoch=epoch - 1,
        epochs=epoch,
        callbacks=[_StopOnNonFinite(names, options.tuples_per_batch)],
    )


def _finish_epoch(checkpoints, state, network, remembered, measured) -> None:
    """Saves the epoch, then the state that names it, then tidies up."""
    name = f"epoch-{measured['epoch']:04d}"
    with files.folder_in_one_piece(checkpoints / name) as folder:
        network.save(folder / "model.keras")
        np.save(folder / "remembered.npy", remembered)
    state["history"].append(measured)
    state["last"] = name
    if measured is max(state["history"], key=_score):  # the first of equals
        state["best"] = name
    files.write_json(checkpoints / "state.json", state)
    kept = {"epoch-0000", state["last"], state["best"]}
    for folder in checkpoints.glob("epoch-*"):
        if folder.name not in kept:
            shutil.rmtree(folder)


def _score(measured: dict) -> tuple[float, ...]:
    """Recall@5 first, as the original code chooses; then @1, then @10."""
    recall = measured["recall_at"]
    if recall is None:
        return (float(measured["epoch"]),)
    return tuple(_recall(recall, k) for k in (5, 1, 10))


def _recall(recall: dict, k: int) -> float:
    """Recall@k; JSON has turned the keys of earlier epochs into strings."""
    return recall.get(k, recall.get(str(k), 0.0))


def _should_stop(state: dict, options: Options) -> bool:
    best = int(state["best"].removeprefix("epoch-"))
    since = len(state["history"]) - 1 - best
    return options.patience > 0 and since >= options.patience


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
