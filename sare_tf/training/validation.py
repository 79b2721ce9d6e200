"""Recall and ranks of the network on val splits, by exact search."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import keras
import numpy as np

from sare_tf.dataset.names import TRAIN_RULES
from sare_tf.evaluation import metrics
from sare_tf.records.records import Records
from sare_tf.runtime import progress
from sare_tf.search import exact_search
from sare_tf.training import datasets, place_parts
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

    def read_from(self, source: datasets.Source) -> None:
        """Reads from a source from now on, which the network must take."""
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


@dataclasses.dataclass(frozen=True)
class FolderValidations:
    """Recall on the val splits of one or several folders of records.

    Attributes:
        folders: opened records.
        by_folder: a short name of each folder -> its validation.
    """

    folders: tuple[Records, ...]
    by_folder: dict[str, Validation]

    @property
    def first(self) -> Validation:
        """That of the first folder."""
        return next(iter(self.by_folder.values()))

    @property
    def num_queries(self) -> int:
        """Number of queries of all folders."""
        return sum(len(val.queries) for val in self.by_folder.values())

    @property
    def num_database(self) -> int:
        """Number of database images of all folders."""
        return sum(len(val.database) for val in self.by_folder.values())

    def read_from(self, sources: Sequence[datasets.Source]) -> None:
        """Reads images or features from now on, which the network must take.

        Args:
            sources: of each folder.
        """
        for val, source in zip(self.by_folder.values(), sources, strict=True):
            val.read_from(source)

    def embed(
        self, embedder: keras.Model, *, shown: progress.Pass | None = None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Embeds the queries and the database of each folder."""
        return [
            val.embed(embedder, shown=shown) for val in self.by_folder.values()
        ]

    def measure(
        self, descriptors: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> dict[str, Any]:
        """Measures descriptors as `embed` gives them.

        Returns:
            `recall_at` and `mean_reciprocal_rank`, means over the folders;
            `val_queries`; of several folders also `recall_by_folder`.
        """
        measured = {
            name: val.measure(*of_folder)
            for (name, val), of_folder in zip(
                self.by_folder.items(), descriptors, strict=True
            )
        }
        recalls = [recall for recall, _ in measured.values()]
        ks = [k for k in RECALL_AT if all(k in recall for recall in recalls)]
        values = {
            "recall_at": {
                k: sum(recall[k] for recall in recalls) / len(recalls)
                for k in ks
            },
            "mean_reciprocal_rank": sum(rank for _, rank in measured.values())
            / len(measured),
            "val_queries": self.num_queries,
        }
        if len(measured) > 1:
            by_folder = {name: recall for name, (recall, _) in measured.items()}
            values["recall_by_folder"] = by_folder
        return values


def of_folders(
    folders: Sequence[Records],
    options: TrainingOptions,
    *,
    bad: Collection[str] = (),
) -> FolderValidations:
    """Opens the val splits of folders of records.

    Raises:
        ValueError: a folder has no val split.
    """
    for records in folders:
        if not (records.manifest["split"] == "val").any():
            raise ValueError(
                "Expected a val split in each of --val_records. Received: "
                f"{str(records.path)!r} without. Leave it out."
            )
    names = place_parts.folder_names([records.path for records in folders])
    return FolderValidations(
        tuple(folders),
        {
            name: Validation(records, options, bad=bad)
            for name, records in zip(names, folders, strict=True)
        },
    )
