"""What training takes from records: descriptors, tuples, recall.

Descriptors are made by the network as it is at the moment, [rows, D], unit
length, of the type `cache_dtype`. Queries are numbered from 0 within their
split. Images that cannot be read any more (`bad_images`) keep their numbers,
but are in no tuple; in validation they are left out.
"""

import dataclasses
import math
from collections.abc import Collection

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging

from sare_tf.dataset.names import TRAIN_RULES
from sare_tf.dataset.positives import find_positives
from sare_tf.distributed import strategies
from sare_tf.evaluation import metrics
from sare_tf.model import Augmentation
from sare_tf.records.records import Records
from sare_tf.records.tuple_records import TupleRecords
from sare_tf.runtime import progress
from sare_tf.search import exact_search
from sare_tf.training import datasets, hard_negatives, place_batches
from sare_tf.training.options import TrainingOptions

RECALL_AT = (1, 5, 10)
# Images that NetVLAD's centres are first made of, at most.
_FIRST_IMAGES = 500
# Descriptors of one call of `predict`, which are copied into the cache. Before
# each call its dataset's functions are traced, for as long as 100 small images
# take.
_EMBED_BLOCK_BYTES = 1 << 26
# Queries of one search for neighbours.
_SEARCH_BLOCK = 512


def draws(options: TrainingOptions) -> dict[str, object]:
    """What the datasets of `pipeline` take for the augmentation.

    Raises:
        ValueError: unknown effects.
    """
    if not options.augment:
        return {}
    return {
        "draws": Augmentation(options.augment).num_draws,
        "same_draws": options.augment_same,
    }


class Split:
    """Queries and database of one split, and their descriptors.

    Args:
        records: opened records.
        name: of the split.
        options: of the training.
        bad: image_id of images that cannot be read.
    """

    def __init__(
        self,
        records: Records,
        name: str,
        options: TrainingOptions,
        *,
        bad: Collection[str] = (),
    ):
        self.records = records
        self.options = options
        self.queries = records.rows(name, "query")
        self.database = records.rows(name, "database")
        self._bad = list(bad)

    def readable(self, rows: pd.DataFrame) -> np.ndarray:
        """Which rows can be read, bool [len(rows)]."""
        return ~rows["image_id"].isin(self._bad).to_numpy()

    def positives(self, radius_m: float, **rule) -> list[np.ndarray]:
        return find_positives(
            self.queries,
            self.database,
            rule=self.options.positives,
            radius_m=radius_m,
            relations=self.records.relations,
            **rule,
        )

    def first_images(self) -> tf.data.Dataset:
        """Some images of the database, [B, H, W, 3]."""
        rng = np.random.default_rng(self.options.seed)
        database = self.database[self.readable(self.database)]
        count = min(_FIRST_IMAGES, len(database))
        sample = np.sort(rng.choice(len(database), count, replace=False))
        return datasets.image_dataset(
            self.records,
            database.iloc[sample],
            height=self.options.image_height,
            width=self.options.image_width,
            batch_size=self.options.batch_size,
        )

    def embed(
        self,
        embedder: keras.Model,
        rows: pd.DataFrame,
        *,
        shown: progress.Pass | None = None,
    ) -> np.ndarray:
        """Descriptors [len(rows), D], in one piece of memory.

        Those of images that cannot be read are zeros. The pass over images, if
        there is one, is advanced.
        """
        size = self.options.batch_size
        shape = (len(rows), embedder.output_shape[-1])
        block = size * max(1, _EMBED_BLOCK_BYTES // (4 * shape[1]) // size)
        descriptors = np.empty(shape, self.options.cache_dtype)
        readable = np.flatnonzero(self.readable(rows))
        if len(readable) < len(rows):
            descriptors[:] = 0
        # Batches of several replicas are not those that the pass counts.
        alone = embedder.distribute_strategy.num_replicas_in_sync == 1
        callbacks = []
        for start in range(0, len(readable), block):
            chosen = readable[start : start + block]
            some = rows.iloc[chosen]
            if shown is not None and alone:
                callbacks = [_Advance(shown, images=len(some), size=size)]
            found = strategies.predict(
                embedder,
                some,
                self._images,
                batch_size=size,
                callbacks=callbacks,
            )
            if shown is not None and not alone:
                shown.advance(len(some))
            bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
            if len(bad):
                raise ValueError(
                    "Expected finite descriptors. Received: a value that is "
                    f"not, for {some['image_id'].iloc[bad[0]]} and "
                    f"{len(bad) - 1} other images. The last checkpoint is "
                    "untouched; lower --learning_rate."
                )
            descriptors[chosen] = found
        return descriptors

    def _images(self, rows: pd.DataFrame, batch_size: int) -> tf.data.Dataset:
        return datasets.image_dataset(
            self.records,
            rows,
            height=self.options.image_height,
            width=self.options.image_width,
            batch_size=batch_size,
        )


class _Advance(keras.callbacks.Callback):
    """Advances a pass over images batch by batch."""

    def __init__(self, shown: progress.Pass, *, images: int, size: int):
        super().__init__()
        self._shown = shown
        self._left = images
        self._size = size

    def on_predict_batch_end(self, batch, logs=None):
        count = min(self._size, self._left)
        self._left -= count
        self._shown.advance(count)


class Miner:
    """Which queries a round of an epoch has, and their tuples."""

    def __init__(self, split: Split, options: TrainingOptions):
        self.records = split.records
        self._split = split
        self._options = options
        self._potential_positives = split.positives(
            options.train_positive_radius_m,
            **TRAIN_RULES[options.train_positives],
        )
        self._same_place = split.positives(options.positive_radius_m)
        self._leave_out_bad()
        self._usable = hard_negatives.check_places(
            self._potential_positives,
            self._same_place,
            database_size=len(split.database),
            num_negatives=options.num_negatives,
            negative_pool=options.negative_pool,
        )
        logging.info(
            "Training on %d queries and %d database images (%d queries left "
            "out: no potential positive).",
            len(self._usable),
            len(split.database),
            len(split.queries) - len(self._usable),
        )
        per_epoch = len(self.rounds(1)[0])
        if per_epoch < options.tuples_per_batch:
            raise ValueError(
                "Expected queries for at least one full batch of tuples. "
                f"Received: {per_epoch} in an epoch, tuples_per_batch="
                f"{options.tuples_per_batch}. Add queries with positives, or "
                "lower --tuples_per_batch."
            )

    def _leave_out_bad(self) -> None:
        """Bad queries get no positive; the database's are never chosen."""
        bad = np.flatnonzero(~self._split.readable(self._split.database))
        good = self._split.readable(self._split.queries)
        if not len(bad) and good.all():
            return
        self._potential_positives = [
            np.setdiff1d(rows, bad) if usable else rows[:0]
            for rows, usable in zip(
                self._potential_positives, good, strict=True
            )
        ]
        self._same_place = [np.union1d(rows, bad) for rows in self._same_place]

    def steps(self, epoch: int) -> int:
        """Steps of an epoch."""
        batch = self._options.tuples_per_batch
        return sum(len(queries) // batch for queries in self.rounds(epoch))

    def rounds(self, epoch: int) -> list[np.ndarray]:
        """Query numbers of each round, in whole batches, in random order.

        As in the original code, descriptors serve for `refresh_every_queries`
        queries, and twice as many each time the rate was halved. Here that is
        a bound, rounded up to a batch: the rounds are equally long.
        """
        options = self._options
        order = np.random.default_rng((options.seed, epoch)).permutation(
            self._usable
        )
        if options.queries_per_epoch:
            order = order[: options.queries_per_epoch]
        steps = len(order) // options.tuples_per_batch
        if not options.refresh_every_queries or not steps:
            return [order]
        every = options.refresh_every_queries * 2 ** options.halvings(epoch)
        batches = order[: steps * options.tuples_per_batch].reshape(steps, -1)
        count = min(steps, math.ceil(batches.size / every))
        return [part.reshape(-1) for part in np.array_split(batches, count)]

    def mine(
        self,
        embedder: keras.Model,
        queries: np.ndarray,
        *,
        remembered: np.ndarray,
        seed: int,
        shown: progress.Pass | None = None,
    ) -> tuple[np.ndarray, hard_negatives.Mined]:
        """Tuples of queries, [M, T] positions in the records' manifest.

        Also what was mined, in the same order. The pass over images, if there
        is one, is advanced.
        """
        # Embedded in the order of the records, where they lie together.
        numbers, where = np.unique(queries, return_inverse=True)
        rows = self._split.queries.iloc[numbers]
        mined = hard_negatives.mine(
            self._split.embed(embedder, rows, shown=shown),
            self._split.embed(embedder, self._split.database, shown=shown),
            queries=numbers,
            potential_positives=self._potential_positives,
            same_place=self._same_place,
            num_negatives=self._options.num_negatives,
            negative_pool=self._options.negative_pool,
            remembered=remembered,
            seed=seed,
        )
        database = self._split.database.index.to_numpy()
        tuples = np.column_stack(
            [
                rows.index.to_numpy(),
                database[mined.positives],
                database[mined.negatives],
            ]
        )
        in_order = {
            field.name: getattr(mined, field.name)[where]
            for field in dataclasses.fields(mined)
        }
        return tuples[where], hard_negatives.Mined(**in_order)

    def images_to_embed(self, queries: np.ndarray) -> int:
        """Images that mining for these queries embeds."""
        readable = self._split.readable(self._split.database)
        return len(queries) + int(readable.sum())


class StoredTuples:
    """Tuples that were built as records: nothing is mined.

    Attributes:
        source: the tuple records.
    """

    def __init__(self, records: Records, options: TrainingOptions):
        """Opens `options.tuples`.

        Args:
            records: for validation; those that the tuples were made of, or
                others without any image of theirs in the val split.
            options: of training.

        Raises:
            FileNotFoundError: no tuple records.
            ValueError: they are damaged, or do not fit.
        """
        self.source = source = TupleRecords(options.tuples)
        self._options = options
        if source.images_per_tuple != 2 + options.num_negatives:
            raise ValueError(
                "Expected tuples with --num_negatives negatives. Received: "
                f"tuples={source.path!r} with {source.images_per_tuple - 2}, "
                f"num_negatives={options.num_negatives}."
            )
        table = source.table()
        self._queries = table["query"].to_numpy(object)
        if source.records_fingerprint != records.fingerprint:
            logging.warning(
                "Validating on other records than the tuples were made of."
            )
            val = records.manifest[records.manifest["split"] == "val"]
            both = val["image_id"][val["image_id"].isin(np.unique(table))]
            if len(both):
                raise ValueError(
                    "Expected to validate on images that are not trained on. "
                    f"Received: {both.iloc[0]!r} and {len(both) - 1} others "
                    f"of the val split of records={str(records.path)!r} are "
                    f"in tuples={source.path!r}. Give the --records that the "
                    "tuples were made of."
                )
        self.dataset(seed=0)  # refuses what does not fill a batch
        logging.info("Training on %d tuples of %s.", source.count, source.path)

    def dataset(
        self, *, seed: int, part: tuple[int, int] = (0, 1)
    ) -> tf.data.Dataset:
        """The batches of one epoch, in the order of the seed."""
        options = self._options
        return datasets.tuple_record_dataset(
            self.source,
            height=options.image_height,
            width=options.image_width,
            tuples_per_batch=options.tuples_per_batch,
            limit=options.queries_per_epoch,
            **draws(options),
            seed=seed,
            part=part,
        )

    def queries(self, *, seed: int) -> np.ndarray:
        """image_ids of the queries in the order of the seed."""
        return self._queries[self.source.order(seed=seed)]

    def first_images(self) -> tf.data.Dataset:
        """Positives and first negatives of some tuples, [B, H, W, 3]."""
        options = self._options
        return datasets.tuple_record_dataset(
            self.source,
            height=options.image_height,
            width=options.image_width,
            tuples_per_batch=1,
            limit=_FIRST_IMAGES // 2,
            seed=options.seed,
        ).map(lambda images, _: images[0, 1:3])


class Validation:
    """Recall on the val split.

    Attributes:
        queries: all of the split, or as many as `val_queries`, the same ones
            in every epoch.
        database: all of the split.
    """

    def __init__(
        self,
        records: Records,
        options: TrainingOptions,
        *,
        bad: Collection[str] = (),
    ):
        self._split = split = Split(records, "val", options, bad=bad)
        split.queries = split.queries[split.readable(split.queries)]
        split.database = split.database[split.readable(split.database)]
        if 0 < options.val_queries < len(split.queries):
            chosen = np.random.default_rng(options.seed).choice(
                len(split.queries), options.val_queries, replace=False
            )
            split.queries = split.queries.iloc[np.sort(chosen)]
        self.queries = split.queries
        self.database = split.database
        self._positives = split.positives(options.positive_radius_m)
        rule = TRAIN_RULES[options.train_positives]
        times = self.queries["timestamp"].to_numpy(object)
        self._times = times if rule["other_timestamp"] and times.any() else None

    def embed(
        self, embedder: keras.Model, *, shown: progress.Pass | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Descriptors of the queries and of the database."""
        return (
            self._split.embed(embedder, self.queries, shown=shown),
            self._split.embed(embedder, self.database, shown=shown),
        )

    def recall(
        self, queries: np.ndarray, database: np.ndarray
    ) -> dict[int, float]:
        """Recall@N of descriptors as `embed` gives them."""
        ks = [k for k in RECALL_AT if k <= len(database)]
        depth = max(ks) if self._times is None else 10 * max(ks)
        neighbours, _ = exact_search.nearest(
            queries,
            database,
            min(depth, len(database)),
            block=_SEARCH_BLOCK,
        )
        if self._times is not None:
            # dbTokyoTimeMachine.m: of ten times as many, those of another time.
            found = self._split.database["timestamp"].to_numpy(object)
            same = found[neighbours] == self._times[:, None]
            order = np.argsort(same, axis=1, kind="stable")
            neighbours = np.where(same, -1, neighbours)
            neighbours = np.take_along_axis(neighbours, order, axis=1)
        return metrics.recall_at(neighbours, self._positives, ks)

    def sample(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Queries with all their positives, at most `count` images together.

        Returns:
            Ascending positions in `queries` and in `database`.
        """
        order = np.random.default_rng(self._split.options.seed).permutation(
            len(self.queries)
        )
        chosen, rows = [], np.empty(0, np.int64)
        for query in order:
            more = np.union1d(rows, self._positives[query])
            if len(chosen) + 1 + len(more) <= count:
                chosen.append(query)
                rows = more
        return np.sort(np.asarray(chosen, np.int64)), rows


@dataclasses.dataclass(frozen=True)
class Data:
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
    train: Split | StoredTuples
    miner: Miner | None
    stored: StoredTuples | None
    val: Validation | None

    @classmethod
    def of(
        cls, records: Records, options: TrainingOptions, *, bad: Collection[str]
    ) -> "Data":
        """Refuses what cannot be trained on."""
        miner = stored = val = None
        if options.tuples is None:
            train = Split(records, "train", options, bad=bad)
        else:
            train = stored = StoredTuples(records, options)
        if options.is_over_places:
            planned_batches(records, options, epoch=1, bad=bad)
        elif not stored:
            miner = Miner(train, options)
        if (records.manifest["split"] == "val").any():
            val = Validation(records, options, bad=bad)
        else:
            logging.warning(
                "The records have no val split: the last epoch counts as the "
                "best."
            )
        return cls(records, bad, train, miner, stored, val)


def planned_batches(
    records: Records,
    options: TrainingOptions,
    *,
    epoch: int,
    bad: Collection[str],
) -> tuple[pd.DataFrame, place_batches.PlaceBatches]:
    """Rows to train on, and the batches of an epoch."""
    rows = records.manifest[
        (records.manifest["split"] == "train")
        & ~records.manifest["image_id"].isin(bad)
    ]
    plan = place_batches.plan_batches(
        rows,
        places_per_batch=options.places_per_batch,
        images_per_place=options.images_per_place,
        radius_m=options.train_positive_radius_m,
        separation_m=options.positive_radius_m,
        seed=options.seed_of(epoch),
    )
    return rows, plan
