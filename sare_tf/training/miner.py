"""Mining of tuples in rounds, from the descriptors of the train split.

Queries are numbered from 0 within the split. Images that cannot be read any
more keep their numbers, but are in no tuple.
"""

import dataclasses
import math

import keras
import numpy as np
from absl import logging

from sare_tf.dataset.names import TRAIN_RULES
from sare_tf.runtime import progress
from sare_tf.training import hard_negatives
from sare_tf.training.hard_negatives import Candidates, Mined
from sare_tf.training.options import TrainingOptions
from sare_tf.training.split import Split


class Miner:
    """Chooses the queries of each round of an epoch, and mines their tuples.

    Args:
        split: the train split.
        options: options of training.

    Attributes:
        candidates: database rows that may be in the tuples of each query.

    Raises:
        ValueError: no query has a positive, a query has too few negatives, or
            the queries fill no batch.
    """

    def __init__(self, split: Split, options: TrainingOptions):
        self._split = split
        self._options = options
        self.candidates = _without_bad(
            split,
            Candidates(
                positives=split.positives(
                    options.train_positive_radius_m,
                    **TRAIN_RULES[options.train_positives],
                ),
                same_place=split.positives(options.positive_radius_m),
            ),
        )
        self._usable = hard_negatives.usable_queries(
            self.candidates,
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

    def no_memory(self) -> np.ndarray:
        """Returns the remembered negatives before any mining, see `mine`."""
        shape = len(self._split.queries), self._options.num_negatives
        return np.full(shape, -1, np.int64)

    def steps(self, epoch: int) -> int:
        """Returns the number of steps of an epoch."""
        batch = self._options.tuples_per_batch
        return sum(len(queries) // batch for queries in self.rounds(epoch))

    def rounds(self, epoch: int) -> list[np.ndarray]:
        """Returns the query numbers of each round, in random order.

        Rounds consist of whole batches. As in the original code, descriptors
        serve for `refresh_every_queries` queries, and for twice as many each
        time the rate is halved. Here that is a bound, rounded up to a batch:
        the rounds are equally long.
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
    ) -> tuple[np.ndarray, Mined]:
        """Mines one tuple per query.

        Args:
            embedder: the network.
            queries: int [M], query numbers.
            remembered: int64 [queries of the split, negatives], the hardest
                negatives of earlier rounds; updated in place.
            seed: seed of the random pools.
            shown: progress that is advanced; None for none.

        Returns:
            Tuples int [M, T], positions in the records' manifest; and the rows
            and distances that were mined, in the same order.
        """
        # Embedded in the order of the records, where they lie together.
        numbers, position = np.unique(queries, return_inverse=True)
        rows = self._split.queries.iloc[numbers]
        mined = hard_negatives.mine(
            *self._split.embed_both(
                embedder, rows, self._split.database, shown=shown
            ),
            queries=numbers,
            candidates=self.candidates,
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
            field.name: getattr(mined, field.name)[position]
            for field in dataclasses.fields(mined)
        }
        return tuples[position], Mined(**in_order)

    def images_to_embed(self, queries: np.ndarray) -> int:
        """Returns how many images `mine` embeds for these queries."""
        readable = self._split.readable(self._split.database)
        return len(queries) + int(readable.sum())


def _without_bad(split: Split, candidates: Candidates) -> Candidates:
    """Leaves out images that cannot be read.

    Such a query gets no positive; such a database image is neither a positive
    nor a negative of any query.
    """
    bad = np.flatnonzero(~split.readable(split.database))
    is_usable = split.readable(split.queries)
    if not len(bad) and is_usable.all():
        return candidates
    return Candidates(
        positives=[
            np.setdiff1d(rows, bad) if usable else rows[:0]
            for rows, usable in zip(
                candidates.positives, is_usable, strict=True
            )
        ],
        same_place=[np.union1d(rows, bad) for rows in candidates.same_place],
    )
