"""Recall and ranks of the network on the val split, by exact search."""

from collections.abc import Collection

import keras
import numpy as np

from sare_tf.dataset.names import TRAIN_RULES
from sare_tf.evaluation import metrics
from sare_tf.records.records import Records
from sare_tf.runtime import progress
from sare_tf.search import exact_search
from sare_tf.training.frozen_features import FrozenFeatures
from sare_tf.training.options import TrainingOptions
from sare_tf.training.split import Split

RECALL_AT = (1, 5, 10)
# dbTokyoTimeMachine.m takes ten times as many neighbours as recall needs, of
# which it drops those of the query's time.
_DEPTH = 10 * max(RECALL_AT)
# Queries of one search for neighbours.
_SEARCH_BLOCK = 512


class Validation:
    """Recall on the val split.

    Images that cannot be read any more are left out.

    Args:
        records: opened records.
        options: options of training.
        bad: image_id of images that cannot be read.

    Attributes:
        queries: all queries of the split, or `val_queries` of them, which are
            the same in every epoch.
        database: all database images of the split.
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
            sample = np.random.default_rng(options.seed).choice(
                len(split.queries), options.val_queries, replace=False
            )
            split.queries = split.queries.iloc[np.sort(sample)]
        self.queries = split.queries
        self.database = split.database
        self._positives = split.positives(options.positive_radius_m)
        rule = TRAIN_RULES[options.train_positives]
        times = self.queries["timestamp"].to_numpy(object)
        self._times = times if rule["other_timestamp"] and times.any() else None

    def read_from(self, source: FrozenFeatures) -> None:
        """Reads features from now on, which the network must take."""
        self._split.source = source

    def embed(
        self, embedder: keras.Model, *, shown: progress.Pass | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns descriptors of the queries and of the database."""
        return self._split.embed_both(
            embedder, self.queries, self.database, shown=shown
        )

    def measure(
        self, queries: np.ndarray, database: np.ndarray
    ) -> tuple[dict[int, float], float]:
        """Measures descriptors as `embed` gives them.

        Returns:
            Recall@N, and the mean reciprocal rank of the first positive among
            the 100 nearest images, 0 for a query with none there.
        """
        neighbours = self._neighbours(queries, database)
        ks = [k for k in RECALL_AT if k <= len(database)]
        ranks = metrics.first_rank(metrics.hits(neighbours, self._positives))
        reciprocal = np.where(ranks > 0, 1 / np.maximum(ranks, 1), 0.0)
        return (
            metrics.recall_at(neighbours, self._positives, ks),
            float(reciprocal.mean()),
        )

    def sample(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws queries with all their positives, at most `count` images.

        Returns:
            Ascending positions in `queries` and in `database`.
        """
        order = np.random.default_rng(self._split.options.seed).permutation(
            len(self.queries)
        )
        sample, rows = [], np.empty(0, np.int64)
        for query in order:
            with_positives = np.union1d(rows, self._positives[query])
            if len(sample) + 1 + len(with_positives) <= count:
                sample.append(query)
                rows = with_positives
        return np.sort(np.asarray(sample, np.int64)), rows

    def _neighbours(
        self, queries: np.ndarray, database: np.ndarray
    ) -> np.ndarray:
        """Database rows by distance, int [queries, <= 100]; -1: none."""
        depth = min(_DEPTH, len(database))
        neighbours, _ = exact_search.nearest(
            queries, database, depth, block=_SEARCH_BLOCK
        )
        if self._times is None:
            return neighbours
        times = self.database["timestamp"].to_numpy(object)
        is_same = times[neighbours] == self._times[:, None]
        order = np.argsort(is_same, axis=1, kind="stable")
        neighbours = np.where(is_same, -1, neighbours)
        return np.take_along_axis(neighbours, order, axis=1)
