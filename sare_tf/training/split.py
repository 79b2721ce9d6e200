"""The queries and database of one split, and their descriptors.

Descriptors are made by the network as it is at the moment, [rows, D], of unit
length and of the type `cache_dtype`. Queries are numbered from 0 within their
split.
"""

from collections.abc import Collection

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from sare_tf.dataset.positives import find_positives
from sare_tf.distributed import strategies
from sare_tf.records.records import Records
from sare_tf.runtime import progress
from sare_tf.training import datasets
from sare_tf.training.divergence import Diverged
from sare_tf.training.options import TrainingOptions

# Images that NetVLAD's centres are first made of, at most.
FIRST_IMAGES = 500
# Bytes of the descriptors of one call of `predict`, which are copied into the
# cache. Each call traces its dataset's functions, which takes as long as 100
# small images.
_EMBED_BLOCK_BYTES = 1 << 26


class Split:
    """Queries and database of one split, and their descriptors.

    Images that cannot be read any more keep their numbers.

    Args:
        records: opened records.
        name: name of the split.
        options: options of training.
        bad: image_id of images that cannot be read.

    Attributes:
        queries: manifest rows of the queries.
        database: manifest rows of the database images.
        source: what images are read from: the records, a service that reads
            them, or their features.
    """

    source: datasets.Source

    def __init__(
        self,
        records: Records,
        name: str,
        options: TrainingOptions,
        *,
        bad: Collection[str] = (),
    ):
        self.records = self.source = records
        self.options = options
        self.queries = records.rows(name, "query")
        self.database = records.rows(name, "database")
        self._bad = list(bad)

    def readable(self, rows: pd.DataFrame) -> np.ndarray:
        """Returns which rows can be read, bool [len(rows)]."""
        return ~rows["image_id"].isin(self._bad).to_numpy()

    def positives(self, radius_m: float, **rule) -> list[np.ndarray]:
        """Returns the database rows of each query's place."""
        return find_positives(
            self.queries,
            self.database,
            rule=self.options.positives,
            radius_m=radius_m,
            relations=self.records.relations,
            **rule,
        )

    def first_images(self) -> tf.data.Dataset:
        """Returns a sample of database images, [B, H, W, 3]."""
        rng = np.random.default_rng(self.options.seed)
        database = self.database[self.readable(self.database)]
        count = min(FIRST_IMAGES, len(database))
        sample = np.sort(rng.choice(len(database), count, replace=False))
        return self._images(database.iloc[sample], self.options.batch_size)

    def embed(
        self,
        embedder: keras.Model,
        rows: pd.DataFrame,
        *,
        shown: progress.Pass | None = None,
    ) -> np.ndarray:
        """Embeds images.

        Args:
            embedder: the network.
            rows: manifest rows.
            shown: progress that is advanced; None for none.

        Returns:
            Descriptors [len(rows), D], in one piece of memory; zeros for images
            that cannot be read.

        Raises:
            Diverged: a descriptor is not finite.
        """
        size = self.options.batch_size
        length = embedder.output_shape[-1]
        block = size * max(1, _EMBED_BLOCK_BYTES // (4 * length) // size)
        descriptors = np.empty((len(rows), length), self.options.cache_dtype)
        readable = np.flatnonzero(self.readable(rows))
        if len(readable) < len(rows):
            descriptors[:] = 0
        for start in range(0, len(readable), block):
            positions = readable[start : start + block]
            descriptors[positions] = self._embed_block(
                embedder, rows.iloc[positions], shown
            )
        return descriptors

    def embed_both(
        self,
        embedder: keras.Model,
        queries: pd.DataFrame,
        database: pd.DataFrame,
        *,
        shown: progress.Pass | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Embeds queries and database images in one pass, see `embed`.

        Returns:
            Descriptors [len(queries), D] and [len(database), D].
        """
        descriptors = self.embed(
            embedder, pd.concat([queries, database]), shown=shown
        )
        return descriptors[: len(queries)], descriptors[len(queries) :]

    def _embed_block(
        self,
        embedder: keras.Model,
        rows: pd.DataFrame,
        shown: progress.Pass | None,
    ) -> np.ndarray:
        size = self.options.batch_size
        # Batches of several replicas are not those that the progress counts.
        is_alone = embedder.distribute_strategy.num_replicas_in_sync == 1
        callbacks = []
        if shown is not None and is_alone:
            callbacks = [_Advance(shown, images=len(rows), size=size)]
        descriptors = strategies.predict(
            embedder, rows, self._images, batch_size=size, callbacks=callbacks
        )
        if shown is not None and not is_alone:
            shown.advance(len(rows))
        bad = np.flatnonzero(~np.isfinite(descriptors).all(axis=1))
        if len(bad):
            raise Diverged(
                "Expected finite descriptors. Received: a value that is "
                f"not, for {rows['image_id'].iloc[bad[0]]} and "
                f"{len(bad) - 1} other images. The last checkpoint is "
                "untouched; lower --learning_rate, and run the command again."
            )
        return descriptors

    def _images(self, rows: pd.DataFrame, batch_size: int) -> tf.data.Dataset:
        return datasets.image_dataset(
            self.source,
            rows,
            height=self.options.image_height,
            width=self.options.image_width,
            batch_size=batch_size,
        )


class _Advance(keras.callbacks.Callback):
    """Advances progress over images batch by batch."""

    def __init__(self, shown: progress.Pass, *, images: int, size: int):
        super().__init__()
        self._shown = shown
        self._left = images
        self._size = size

    def on_predict_batch_end(self, batch, logs=None):
        count = min(self._size, self._left)
        self._left -= count
        self._shown.advance(count)
