"""What training takes from records: descriptors, mined tuples, recall.

Descriptors are made by the network as it is at the moment, [rows, D], unit
length, of the type `cache_dtype`. Queries are numbered from 0 within their
split.
"""

import math

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging

from sare_tf import distribution, manifest, mining, pipeline, retrieval
from sare_tf.options import Options
from sare_tf.records import Records

RECALL_AT = (1, 5, 10)
# Images of one call of `predict`, whose result is copied into the cache.
_EMBED_BLOCK = 512


class Split:
    """Queries and database of one split, and their descriptors."""

    def __init__(self, records: Records, name: str, options: Options):
        self.records = records
        self.options = options
        self.queries = records.rows(name, "query")
        self.database = records.rows(name, "database")

    def positives(self, radius_m: float, **rule) -> list[np.ndarray]:
        return manifest.positives(
            self.queries,
            self.database,
            rule=self.options.positives,
            radius_m=radius_m,
            relations=self.records.relations,
            **rule,
        )

    def embed(self, embedder: keras.Model, rows: pd.DataFrame) -> np.ndarray:
        """Descriptors [len(rows), D], in one piece of memory."""
        size = self.options.batch_size
        block = size * max(1, _EMBED_BLOCK // size)
        shape = (len(rows), embedder.output_shape[-1])
        descriptors = np.empty(shape, self.options.cache_dtype)
        for start in range(0, len(rows), block):
            some = rows.iloc[start : start + block]
            found = distribution.predict(
                embedder, some, self._images, batch_size=size
            )
            bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
            if len(bad):
                raise ValueError(
                    "Expected finite descriptors. Received: a value that is "
                    f"not, for {some['image_id'].iloc[bad[0]]} and "
                    f"{len(bad) - 1} other images. The last checkpoint is "
                    "untouched; lower --learning_rate."
                )
            descriptors[start : start + block] = found
        return descriptors

    def _images(self, rows: pd.DataFrame, batch_size: int) -> tf.data.Dataset:
        return pipeline.image_dataset(
            self.records,
            rows,
            height=self.options.image_height,
            width=self.options.image_width,
            batch_size=batch_size,
        )


class Miner:
    """Which queries a round of an epoch has, and their tuples."""

    def __init__(self, split: Split, options: Options):
        self.records = split.records
        self._split = split
        self._options = options
        self._potential_positives = split.positives(
            options.train_positive_radius_m,
            **manifest.TRAIN_RULES[options.train_positives],
        )
        self._same_place = split.positives(options.positive_radius_m)
        self._usable = mining.check_places(
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
    ) -> tuple[np.ndarray, float]:
        """Tuples of queries, [M, T] positions in the records' manifest.

        Also the share of negatives nearer than the positive.
        """
        # Embedded in the order of the records, where they lie together.
        numbers, where = np.unique(queries, return_inverse=True)
        rows = self._split.queries.iloc[numbers]
        mined = mining.mine(
            self._split.embed(embedder, rows),
            self._split.embed(embedder, self._split.database),
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
        return tuples[where], mined.violating


class Validation:
    """Recall on the val split.

    Attributes:
        queries: all of the split, or as many as `val_queries`, the same ones
            in every epoch.
    """

    def __init__(self, records: Records, options: Options):
        self._split = split = Split(records, "val", options)
        if 0 < options.val_queries < len(split.queries):
            chosen = np.random.default_rng(options.seed).choice(
                len(split.queries), options.val_queries, replace=False
            )
            split.queries = split.queries.iloc[np.sort(chosen)]
        self.queries = split.queries
        self._positives = split.positives(options.positive_radius_m)
        rule = manifest.TRAIN_RULES[options.train_positives]
        times = self.queries["timestamp"].to_numpy(object)
        self._times = times if rule["other_timestamp"] and times.any() else None

    def recall(self, embedder: keras.Model) -> dict[int, float]:
        database = self._split.embed(embedder, self._split.database)
        ks = [k for k in RECALL_AT if k <= len(database)]
        depth = max(ks) if self._times is None else 10 * max(ks)
        neighbours, _ = retrieval.nearest(
            self._split.embed(embedder, self.queries),
            database,
            min(depth, len(database)),
            block=_EMBED_BLOCK,
        )
        if self._times is not None:
            # dbTokyoTimeMachine.m: of ten times as many, those of another time.
            found = self._split.database["timestamp"].to_numpy(object)
            same = found[neighbours] == self._times[:, None]
            order = np.argsort(same, axis=1, kind="stable")
            neighbours = np.where(same, -1, neighbours)
            neighbours = np.take_along_axis(neighbours, order, axis=1)
        return retrieval.recall_at(neighbours, self._positives, ks)
