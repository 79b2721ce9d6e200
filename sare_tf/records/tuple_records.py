"""Tuples as records: training reads them in sequence, from remote storage too.

    tuples-00000-of-00016.tfrecord   one tf.train.Example per tuple
    tuples.parquet                   the list of them, in that order (`tuples`)
    tuples.json                      what made them, and what is whole

An Example has the features `image/encoded` and `image/id` of records, each with
T values: those of the query, the positive and the negatives. So each image is
there as often as tuples name it: a folder is about as large as the images are,
times T, times the share of queries that it has.

    python -m sare_tf.build_records --records=... --tuple_list=... --tuples=...
    python -m sare_tf.train --flagfile=... --tuples=...

The tuples are put in a random order when they are built, by --seed, and read
in another one each epoch: shards in random order, and within these runs of
`SHUFFLED_TUPLES` that are shuffled in memory. `TupleRecords.order` gives that
order without reading, so that the same batches can be had by random access to
the images themselves.

The folder may be copied to wherever `tf.io.gfile` reads: gs:// needs
`pip install "tensorflow[gcs-filesystem]"`, and is then given as the path.
"""

import dataclasses
import functools
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging
from tqdm import tqdm

import sare_tf
from sare_tf.dataset import tuple_lists
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files, tfdata_threads

COMMAND = "python -m sare_tf.build_records --tuple_list=..."
FORMAT = 1
# Encoded tuples in memory to shuffle: of 12 images with 60 kB about 90 MB.
SHUFFLED_TUPLES = 128
_SHARD_NAME = "tuples-{:05d}-of-{:05d}.tfrecord"
_NAMES = {"tuples.parquet", "tuples.json"}
# Remote storage answers slowly, whatever the amount.
_BUFFER_BYTES = 8 << 20


def build(
    *,
    records: str | Path,
    tuple_list: str | Path,
    out: str | Path,
    shard_mebibytes: int = 128,
    seed: int = 0,
    for_each: Callable[..., None] | None = None,
) -> Path:
    """Builds tuple records. Memory holds the list, and one tuple at a time.

    Those of the same records, list and options are kept as they are, and so
    are finished shards of a run that was stopped.

    Args:
        records: folder of `build_records`.
        tuple_list: list of tuples, see `tuples`, of images of its train split.
        out: folder of the tuple records; replaced if it holds some.
        shard_mebibytes: about the size of one shard.
        seed: of the order of the tuples.
        for_each: what builds shards, called as `for_each_here` is, which it
            defaults to.

    Returns:
        `out`.

    Raises:
        FileNotFoundError: no records, or no list.
        OSError: what is built cannot be written.
        ValueError: they are damaged, do not fit, or `out` holds something else.
    """
    out = Path(out)
    opened = Records(records)
    table = tuple_lists.read(tuple_list)
    rows = opened.manifest[opened.manifest["split"] == "train"]
    found = rows.index.to_numpy()[tuple_lists.find(table, rows)]
    order = np.random.default_rng(seed).permutation(len(found))
    found, table = found[order], table.iloc[order].reset_index(drop=True)
    made_from = {
        "format": FORMAT,
        "shard_mebibytes": shard_mebibytes,
        "tuples": hashlib.sha256(found.tobytes()).hexdigest(),
        "records_fingerprint": opened.fingerprint,
    }
    _check_replaceable(out)
    partial = out.with_name(f".{out.name}.partial")
    if _is_up_to_date(out, made_from):
        logging.info("%s is up to date: nothing to do.", out)
        shutil.rmtree(partial, ignore_errors=True)
        return out
    shards = _plan(opened, found, shard_mebibytes << 20)
    partial.mkdir(parents=True, exist_ok=True)
    missing = [shard for shard in shards if not _find(shard, partial)]
    logging.info(
        "Building records of %d tuples of %d images: %d shards, %d are there.",
        *found.shape,
        len(shards),
        len(shards) - len(missing),
    )
    write = functools.partial(_write_shard, folder=partial.resolve())
    (for_each or for_each_here)(write, missing, folder=partial)
    with atomic_files.folder_in_one_piece(out) as folder:
        entries = {}
        for shard in shards:
            entries[shard.name] = _find(shard, partial)
            if entries[shard.name] is None:
                raise OSError(
                    "Expected every shard to be built. Received: "
                    f"{shard.name}, which is not. Run the command again."
                )
            atomic_files.link_or_copy(shard.path(partial), folder / shard.name)
        tuple_lists.write(table, folder / "tuples.parquet")
        atomic_files.write_json(
            folder / "tuples.json",
            {
                "count": len(found),
                "images_per_tuple": found.shape[1],
                "fingerprint": hashlib.sha256(
                    json.dumps(made_from).encode()
                ).hexdigest(),
                "shards": entries,
                "made_from": made_from,
                "versions": {
                    "sare_tf": sare_tf.__version__,
                    "tensorflow": tf.__version__,
                },
            },
        )
    shutil.rmtree(partial)
    logging.info(
        "%d tuples of %d images in %s. Next: python -m sare_tf.train "
        "--flagfile=... --tuples=%s",
        *found.shape,
        out,
        out,
    )
    return out


class TupleRecords:
    """A finished folder of tuple records.

    Attributes:
        path: the folder.
        count: M, tuples in it.
        images_per_tuple: T.
        fingerprint: hex digest of the tuples, their order and their images.
        records_fingerprint: that of the records they were made of.

    Args:
        path: the folder, local or any that `tf.io.gfile` reads.

    Raises:
        FileNotFoundError: no finished tuple records are there.
        ValueError: they are damaged, or cannot be read.
    """

    def __init__(self, path: str | Path):
        self.path = str(path)
        text = self._read("tuples.json")
        try:
            metadata = json.loads(text)
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
        except (KeyError, TypeError, ValueError, tf.errors.OpError) as error:
            raise self.damaged(error) from error

    def table(self) -> pd.DataFrame:
        """The list of tuples, [M, T], see `tuples`, in the order stored."""
        try:
            table = pd.read_parquet(io.BytesIO(self._read("tuples.parquet")))
            if table.shape != (self.count, self.images_per_tuple):
                raise ValueError("the list has another number of tuples")
        except (OSError, ValueError) as error:
            raise self.damaged(error) from error
        return table

    def order(self, *, seed: int) -> np.ndarray:
        """Positions in the list, int64 [M], as `encoded_dataset` reads."""
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

        def shuffle(run: tf.Tensor, serialised: tf.Tensor) -> tf.Tensor:
            start = run * SHUFFLED_TUPLES
            chosen = within[start : start + SHUFFLED_TUPLES]
            return tf.gather(serialised, chosen)

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
        """The message for a folder that is not whole."""
        return ValueError(
            "Expected whole tuple records. Received: "
            f"tuples={self.path!r} ({_reason(error)}). Copy or build them "
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
                f"tuples={self.path!r} ({_reason(error)})."
            ) from error

    def _order_of_shards(self, seed: int) -> np.ndarray:
        return np.random.default_rng((seed, 0)).permutation(len(self._shards))

    def _order_within_runs(self, seed: int) -> np.ndarray:
        """For each tuple of a run, in order, which one of it comes, [M]."""
        rng = np.random.default_rng((seed, 1))
        return np.concatenate(
            [
                rng.permutation(min(SHUFFLED_TUPLES, self.count - start))
                for start in range(0, self.count, SHUFFLED_TUPLES)
            ]
        )


@dataclasses.dataclass(frozen=True)
class _Shard:
    """One shard to build. It can be pickled.

    Attributes:
        name: of its file.
        records: folder of the source.
        positions: int64 [m, T], of its tuples, in the source's manifest.
        digest: of all that its content depends on.
    """

    name: str
    records: Path
    positions: np.ndarray
    digest: str

    def path(self, folder: Path) -> Path:
        """Where it is built, with its receipt beside it."""
        return folder / f"{self.digest}.tfrecord"


def for_each_here(
    function: Callable[[_Shard], None],
    shards: Sequence[_Shard],
    *,
    folder: Path,
) -> None:
    """Builds shards one after the other.

    Args:
        function: builds a shard.
        shards: to build.
        folder: where they go.
    """
    del folder
    for shard in tqdm(shards, unit="shard", desc="build tuples", leave=False):
        function(shard)


def _plan(
    source: Records, found: np.ndarray, wanted_bytes: int
) -> list[_Shard]:
    """Cuts tuples at positions [M, T] into shards of about a size."""
    lengths = source.manifest["byte_length"].to_numpy()[found].sum(axis=1)
    before = np.cumsum(lengths) - lengths
    _, first = np.unique(before // wanted_bytes, return_index=True)
    shards = []
    for number, positions in enumerate(np.split(found, first[1:])):
        digest = hashlib.sha256(f"{FORMAT} {source.fingerprint}".encode())
        digest.update(positions.tobytes())
        shards.append(
            _Shard(
                _SHARD_NAME.format(number, len(first)),
                source.path.resolve(),
                positions,
                digest.hexdigest(),
            )
        )
    return shards


def _find(shard: _Shard, folder: Path) -> dict[str, int] | None:
    """What is noted of a shard, if it is whole."""
    path = shard.path(folder)
    try:
        receipt = atomic_files.read_json(
            path.with_suffix(".json"), made_by=COMMAND
        )
        return receipt if path.stat().st_size == receipt["bytes"] else None
    except (OSError, KeyError, ValueError):
        return None


@functools.lru_cache(maxsize=1)
def _opened(path: Path) -> Records:
    return Records(path)


def _write_shard(shard: _Shard, *, folder: Path) -> None:
    """Builds a shard; its receipt last.

    Raises:
        OSError: it cannot be written.
        ValueError: the source is damaged.
    """
    source = _opened(shard.records)
    rows = source.manifest.iloc[shard.positions.reshape(-1)]
    image_ids = rows["image_id"].to_numpy(object).reshape(shard.positions.shape)
    encoded = source.read_images(rows)
    path = shard.path(folder)
    # A name of its own: several machines may try a shard at the same time.
    unfinished = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.unfinished")
    try:
        with atomic_files.explained_writing(f"the shard {shard.name}", folder):
            try:
                with tf.io.TFRecordWriter(str(unfinished)) as writer:
                    for of_tuple in image_ids:
                        images = [next(encoded) for _ in of_tuple]
                        writer.write(_serialise(images, of_tuple))
            except tf.errors.OpError as error:
                raise OSError(_reason(error)) from error
            num_bytes = unfinished.stat().st_size
            os.replace(unfinished, path)
            atomic_files.write_json(
                path.with_suffix(".json"),
                {"count": len(shard.positions), "bytes": num_bytes},
            )
    finally:
        unfinished.unlink(missing_ok=True)


def _serialise(images: list[bytes], image_ids: np.ndarray) -> bytes:
    """Makes one Example, the same bytes for the same arguments."""

    def feature(values: list[bytes]) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    features = tf.train.Features(
        feature={
            "image/encoded": feature(images),
            "image/id": feature([name.encode() for name in image_ids]),
        }
    )
    return tf.train.Example(features=features).SerializeToString(
        deterministic=True
    )


def _reason(error: Exception) -> str:
    """One line; Keras puts TensorFlow's after some of a traceback."""
    lines = [line for line in str(error).splitlines() if line[:1].strip()]
    if not lines:
        return type(error).__name__
    return lines[-1 if isinstance(error, tf.errors.OpError) else 0]


def _is_up_to_date(out: Path, made_from: dict) -> bool:
    if not (out / "tuples.json").is_file():
        return False
    try:
        TupleRecords(out).table()
        metadata = atomic_files.read_json(out / "tuples.json", made_by=COMMAND)
        return metadata["made_from"] == made_from
    except (OSError, ValueError) as error:
        logging.warning("Building again: %s", error)
        return False


def _check_replaceable(out: Path) -> None:
    """Refuses to replace a folder that holds anything but tuple records."""
    shards = out.is_dir() and {
        path.name for path in out.glob("tuples-*.tfrecord")
    }
    atomic_files.check_replaceable(out, names=_NAMES | (shards or set()))
