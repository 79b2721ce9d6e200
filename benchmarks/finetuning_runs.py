"""Runs of `benchmarks.finetuning`: data, training and measuring.

Axis letters: N images.
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from absl import flags

from sare_tf import build_records, synthetic_city
from sare_tf.city.options import CityOptions
from sare_tf.dataset.positives import find_positives
from sare_tf.evaluation import metrics
from sare_tf.model import graph_parts
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.search import exact_search
from sare_tf.training import (
    compiled_network,
    datasets,
    interpolation,
    optimizers,
)
from sare_tf.training.options import TrainingOptions
from sare_tf.training.training_data import TrainingData

FLAGS = flags.FLAGS
flags.DEFINE_string("spots", None, "Folder with database/ and queries/.")
flags.DEFINE_string("file", None, "Weights of MobileNetV2.")
flags.DEFINE_string("pixels", "96x160", "Rows x columns.")
flags.DEFINE_string("half", "features_8", "First block trained in most rows.")
flags.DEFINE_integer("num_epochs", 30, "Epochs of a run.", 1)
flags.DEFINE_integer("city_places", 100, "Places of a city.", 30)

UNTRAINED = "untrained"
# Shares of the change by training that are measured.
SHARES = ("1", "0.5")
_SPLITS = (0.5, 0.2, 0.3)
_PLACES, _IMAGES = 16, 3
_CITY_SEEDS = {"val": 1000, "test": 2000}
_AT = (1, 5)
_BATCH = 64
# Positives of a city, in metres.
_RADIUS_M = 25.0


def options_of(folder: Path, options: dict, *, seed: int) -> TrainingOptions:
    """Returns the options of a run."""
    height, width = map(int, FLAGS.pixels.split("x"))
    return TrainingOptions(
        **{
            "records": str(_photo_records(folder, seed)),
            "checkpoints": str(folder / "unused"),
            "backbone": "mobilenet_v2",
            "weights": FLAGS.file,
            "num_clusters": 16,
            "image_height": height,
            "image_width": width,
            "train_from": FLAGS.half,
            "cache_frozen": True,
            "loss": "place_sare_joint",
            "places_per_batch": _PLACES,
            "images_per_place": _IMAGES,
            "optimizer": "adam",
            "schedule": "cosine",
            "epochs": FLAGS.num_epochs,
            "seed": seed,
            **options,
        }
    )


@functools.cache
def _photo_records(folder: Path, seed: int) -> Path:
    return build_records.run(
        RecordOptions(
            dataset=FLAGS.spots,
            reader="place_folders",
            records=folder / f"records-{seed}",
            split_fractions=_SPLITS,
            seed=seed,
        )
    )


@functools.cache
def _city_records(folder: Path, split: str) -> Path:
    seed = _CITY_SEEDS[split]
    city = synthetic_city.run(
        CityOptions(
            out=folder / f"city-{seed}", places=FLAGS.city_places, seed=seed
        )
    )
    return build_records.run(
        RecordOptions(dataset=city, records=folder / f"city-records-{seed}")
    )


class Images:
    """What an embedder takes of all images of records, in memory.

    Attributes:
        manifest: rows of the images.
        inputs: [N, ...], images or features, in the order of the rows.
    """

    def __init__(self, records: Records, options, frozen: keras.Model | None):
        self.manifest = records.manifest
        pixels = datasets.image_dataset(
            records,
            self.manifest,
            height=options.image_height,
            width=options.image_width,
            batch_size=_BATCH,
        )
        embed = tf.function(frozen) if frozen else tf.identity
        self.inputs = np.concatenate([embed(batch) for batch in pixels])
        self._rows = pd.Series(
            np.arange(len(self.manifest)), self.manifest["image_id"]
        )

    def of(self, rows: pd.DataFrame) -> np.ndarray:
        """Returns inputs of rows of any records of the same images."""
        return self.inputs[self._rows[rows["image_id"]].to_numpy()]


# Inputs of the photographs are the same for all seeds.
_IMAGES_OF = {}


def _images(path: Path, key: str, options, frozen) -> Images:
    kept = (key, options.train_from)
    if kept not in _IMAGES_OF:
        _IMAGES_OF[kept] = Images(Records(path), options, frozen)
    return _IMAGES_OF[kept]


class Run:
    """A row with one seed, to be trained at several rates.

    Args:
        folder: where records and cities are kept.
        options: options of training that the row has.
        seed: of everything.
    """

    def __init__(self, folder: Path, options: dict, *, seed: int):
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        self._options = options_of(folder, options, seed=seed)
        records = Records(self._options.records)
        self._data = TrainingData.of(records, self._options)
        whole = compiled_network.build(
            self._data.train,
            self._options,
            group_sizes=self._data.group_sizes,
        )
        form, frozen = whole.get_layer("embedder"), None
        if self._options.cache_frozen:
            halves = graph_parts.split(
                form,
                height=self._options.image_height,
                width=self._options.image_width,
                recompute=False,
            )
            form, frozen = halves.trained, halves.frozen
        self._photos = _images(records.path, "photos", self._options, frozen)
        self._parts = dict(self._measured(folder, records, frozen))
        self._network = compiled_network.over(whole, form, self._options)
        self._start = self._network.get_weights()
        self._start_of_optimizer = [
            keras.ops.convert_to_numpy(variable)
            for variable in self._network.optimizer.variables
        ]

    def _measured(self, folder, records, frozen) -> Iterator[tuple]:
        """Yields parts: name, and inputs and rows of queries and database."""
        for split in ("val", "test"):
            rows = [records.rows(split, role) for role in ("query", "database")]
            yield f"spots_{split}", ([self._photos.of(r) for r in rows], rows)
            path = _city_records(folder, split)
            city = _images(path, path.name, self._options, frozen)
            rows = [
                city.manifest[city.manifest["role"] == role]
                for role in ("query", "database")
            ]
            yield f"city_{split}", ([city.of(r) for r in rows], rows)

    def measure(
        self, rate: float, shares: Sequence[str] = ("1",)
    ) -> dict[str, dict]:
        """Trains at a rate, from the start; returns recall by share and part.

        A rate of 0 trains nothing.
        """
        network = self._network
        network.set_weights(self._start)
        for variable, value in zip(
            network.optimizer.variables, self._start_of_optimizer, strict=True
        ):
            variable.assign(value)
        if not rate:
            return {"1": self._recalls()}
        self._fit(rate)
        measured = {}
        with optimizers.averaged(network):
            end = network.get_weights()
            for share in shares:
                network.set_weights(
                    interpolation.between(self._start, end, float(share))
                )
                measured[share] = self._recalls()
        return measured

    def _fit(self, rate: float) -> None:
        plans = [
            self._data.planned_places(epoch=epoch)
            for epoch in range(1, self._options.epochs + 1)
        ]
        steps = sum(len(plan.images) for plan in plans)

        def batches():
            for plan in plans:
                inputs = self._photos.of(plan.rows)
                for rows, labels in zip(plan.images, plan.labels, strict=True):
                    yield inputs[rows], labels

        def set_rate(batch: int, logs: dict) -> None:
            self._network.optimizer.learning_rate.assign(
                optimizers.rate_at(
                    self._options.epochs * batch / steps,
                    schedule=self._options.schedule,
                    learning_rate=rate,
                    epochs=self._options.epochs,
                    warmup_epochs=0,
                    halve_every=0,
                )
            )

        count = _PLACES * _IMAGES
        dataset = tf.data.Dataset.from_generator(
            batches,
            output_signature=(
                tf.TensorSpec(
                    (count, *self._photos.inputs.shape[1:]),
                    self._photos.inputs.dtype,
                ),
                tf.TensorSpec((count,), tf.int64),
            ),
        ).apply(tf.data.experimental.assert_cardinality(steps))
        self._network.fit(
            dataset,
            shuffle=False,
            verbose=0,
            callbacks=[
                keras.callbacks.LambdaCallback(on_train_batch_begin=set_rate),
                optimizers.KeepWeights(),
            ],
        )

    def _recalls(self) -> dict[str, dict[str, float]]:
        """Returns recall@1, recall@5 and the mean reciprocal rank of parts."""
        embedder = self._network.embedder
        recalls = {}
        for name, (inputs, (queries, database)) in self._parts.items():
            descriptors = [
                embedder.predict(one, batch_size=_BATCH, verbose=0)
                for one in inputs
            ]
            neighbours, _ = exact_search.nearest(*descriptors, 100)
            positives = find_positives(queries, database, radius_m=_RADIUS_M)
            ranks = metrics.first_rank(metrics.hits(neighbours, positives))
            reciprocal = np.where(ranks > 0, 1 / np.maximum(ranks, 1), 0.0)
            at = metrics.recall_at(neighbours, positives, _AT)
            recalls[name] = {
                **{f"recall@{k}": float(at[k]) for k in _AT},
                "mrr": float(reciprocal.mean()),
                "queries": len(queries),
            }
        return recalls
