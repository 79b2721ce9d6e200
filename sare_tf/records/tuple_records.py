"""Tuples as records: training reads them in sequence, from remote storage too.

    tuples-00000-of-00016.tfrecord   one tf.train.Example per tuple
    tuples.parquet                   the list of them, in that order
                                     (`tuple_lists`)
    tuples.json                      what made them, and what is whole

An Example has the features `image/encoded` and `image/id` of records, each with
T values: those of the query, the positive and the negatives. So each image is
stored as often as tuples name it: a folder is about as large as the images are,
times T, times the share of queries that it has. `tuple_building` makes it.

    python -m sare_tf.build_records --records=... --tuple_list=... --tuples=...
    python -m sare_tf.train --flagfile=... --tuples=...

The tuples are put in a random order when they are built, by --seed, and read
in another one each epoch: shards in random order, and within these runs of
`SHUFFLED_TUPLES` that are shuffled in memory. `TupleRecords.order` gives that
order without reading, so that the same batches can be had by random access to
the images themselves. Axis letters: M tuples, T images of a tuple.

The folder may be copied to wherever `tf.io.gfile` reads: gs:// needs
`pip install "tensorflow[gcs-filesystem]"`, and is then given as the path.
"""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow as tf

from sare_tf.runtime import sealed_json, tfdata_threads

COMMAND = "python -m sare_tf.build_records --tuple_list=..."
# Encoded tuples in memory to shuffle: about 90 MB of 12 images with 60 kB.
SHUFFLED_TUPLES = 128
# Remote storage answers slowly, whatever the amount.
_BUFFER_BYTES = 8 << 20
# Types of values in tuples.json.
_TYPES = {
    **{"count": int, "images_per_tuple": int, "fingerprint": str},
    **{"shards": dict, "made_from": dict},
}


class TupleRecords:
    """A finished folder of tuple records.

    Attributes:
        path: the folder.
        count: M, tuples in it.
        images_per_tuple: T.
        fingerprint: hex digest of the tuples, their order and their images.
        records_fingerprint: that of the records that they were made of.

    Args:
        path: the folder, local or wherever `tf.io.gfile` reads.

    Raises:
        FileNotFoundError: no finished tuple records are there.
        ValueError: the folder is damaged, or cannot be read.
    """

    def __init__(self, path: str | Path):
        self.path = str(path)
        text = self._read("tuples.json")
        try:
            metadata = sealed_json.opened(json.loads(text), types=_TYPES)
            self._digests = metadata.get("digests", {})
            self._shards = metadata["shards"]
            self.count = metadata["count"]
            self.images_per_tuple = metadata["images_per_tuple"]
            self.fingerprint = metadata["fingerprint"]
            self.records_fingerprint = metadata["made_from"][
                "records_fingerprint"
            ]
            for name, shard in self._shards.items():
                size = tf.io.gfile.stat(self._inside(name)).length
                if size != shard["bytes"]:
                    raise ValueError(
                        f"{name} has {size} bytes, not {shard['bytes']}"
                    )
        except (
            *(KeyError, TypeError, ValueError, RecursionError),
            tf.errors.OpError,
        ) as error:
            raise self.damaged(error) from error

    def table(self) -> pd.DataFrame:
        """Reads the list of tuples, [M, T], in the order stored."""
        try:
            content = self._read("tuples.parquet")
            expected = self._digests.get("tuples.parquet")
            if expected not in (None, hashlib.sha256(content).hexdigest()):
                raise ValueError("tuples.parquet: its SHA-256 is another")
            table = pd.read_parquet(io.BytesIO(content))
            if table.shape != (self.count, self.images_per_tuple):
                raise ValueError("the list has another number of tuples")
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self.damaged(error) from error
        return table

    def order(self, *, seed: int) -> np.ndarray:
        """Returns positions in the list, int64 [M], as they are read."""
        shards = self._order_of_shards(seed)
        counts = np.array([shard["count"] for shard in self._shards.values()])
        starts = np.cumsum(counts) - counts
        stored = np.concatenate(
            [np.arange(starts[n], starts[n] + counts[n]) for n in shards]
        )
        runs = np.arange(self.count) // SHUFFLED_TUPLES * SHUFFLED_TUPLES
        return stored[runs + self._order_within_runs(seed)]

    def encoded_dataset(self, *, seed: int) -> tf.data.Dataset:
        """Reads tuples in sequence.

        Args:
            seed: of their order.

        Returns:
            Dataset of M vectors of encoded images, string [T].
        """
        names = list(self._shards)
        paths = [self._inside(names[n]) for n in self._order_of_shards(seed)]
        within = tf.constant(self._order_within_runs(seed))
        size = self.images_per_tuple
        features = {"image/encoded": tf.io.FixedLenFeature([size], tf.string)}

        @tf.autograph.experimental.do_not_convert
        def shuffle(run: tf.Tensor, serialised: tf.Tensor) -> tf.Tensor:
            start = run * SHUFFLED_TUPLES
            order = within[start : start + SHUFFLED_TUPLES]
            return tf.gather(serialised, order)

        return tfdata_threads.fixed(
            tf.data.TFRecordDataset(paths, buffer_size=_BUFFER_BYTES)
            .batch(SHUFFLED_TUPLES)
            .enumerate()
            .map(shuffle)
            .unbatch()
            .map(
                lambda one: tf.io.parse_single_example(one, features)[
                    "image/encoded"
                ],
                num_parallel_calls=tfdata_threads.THREADS,
            )
            .apply(tf.data.experimental.assert_cardinality(self.count))
        )

    def damaged(self, error: Exception) -> ValueError:
        """Makes the error for a folder that is not whole."""
        return ValueError(
            "Expected whole tuple records. Received: "
            f"tuples={self.path!r} ({one_line(error)}). Copy or build them "
            f"again: {COMMAND}"
        )

    def _inside(self, name: str) -> str:
        return tf.io.gfile.join(self.path, name)

    def _read(self, name: str) -> bytes:
        try:
            with tf.io.gfile.GFile(self._inside(name), "rb") as file:
                return file.read()
        except tf.errors.NotFoundError as error:
            raise FileNotFoundError(
                f"Expected {name} in a finished folder. Received: "
                f"tuples={self.path!r}, where it is not. Run {COMMAND} first."
            ) from error
        except tf.errors.OpError as error:
            raise ValueError(
                "Expected a folder that TensorFlow can read. Received: "
                f"tuples={self.path!r} ({one_line(error)})."
            ) from error

    def _order_of_shards(self, seed: int) -> np.ndarray:
        return np.random.default_rng((seed, 0)).permutation(len(self._shards))

    def _order_within_runs(self, seed: int) -> np.ndarray:
        """Returns the order of the tuples of each run, within it, [M]."""
        rng = np.random.default_rng((seed, 1))
        return np.concatenate(
            [
                rng.permutation(min(SHUFFLED_TUPLES, self.count - start))
                for start in range(0, self.count, SHUFFLED_TUPLES)
            ]
        )


def one_line(error: Exception) -> str:
    """Says an error in one line; Keras puts a traceback before TensorFlow's."""
    lines = [line for line in str(error).splitlines() if line[:1].strip()]
    if not lines:
        return type(error).__name__
    return lines[-1 if isinstance(error, tf.errors.OpError) else 0]
