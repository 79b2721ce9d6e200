"""Compares opening and reading with digests with doing so without.

    python -m benchmarks.digests

The first table is of an index of random descriptors, whose files are in the
page cache: the speed is that of SHA-256. The second is of photographs of 640 x
480 pixels and about 100 kB in records, read by offset in a random order, and
decoded or not. Passes with and without digests take turns; values are medians.
Core milliseconds are of all threads, and depend least on other work on the
machine.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import app, flags, logging

from benchmarks import measure, photographs
from sare_tf.dataset import image_decoding
from sare_tf.records.encoded_images import parse
from sare_tf.records.records import Records
from sare_tf.runtime import tfdata_threads
from sare_tf.search.opened_index import Index

FLAGS = flags.FLAGS
flags.DEFINE_list("sizes", ["500000x512"], "Rows x dimensions of indexes.")
flags.DEFINE_integer("photographs", 480, "Number of photographs.", 1)
flags.DEFINE_integer("repeats", 7, "Passes of each row.", 1)

_HEIGHT, _WIDTH = 480, 640


def write_index(folder: Path, count: int, dimension: int) -> Path:
    """Builds an index of random descriptors."""
    rng = np.random.default_rng(0)
    descriptors = rng.standard_normal((count, dimension), np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    names = [f"{row}.jpg" for row in range(count)]
    Index.build(descriptors, image_ids=names, out=folder)
    return folder


def opening(folder: Path, size: str) -> None:
    """Prints the seconds to open an index."""
    num_bytes = sum(
        path.stat().st_size for path in folder.rglob("*") if path.is_file()
    )
    for exact in (True, False):
        without, with_digests = (
            measure.median_seconds(
                lambda check=check, exact=exact: Index.open(
                    folder, exact=exact, check=check
                ),
                repeats=3,
            )
            for check in (False, True)
        )
        print(
            f"| {size} | {num_bytes / 1e9:.2f} | "
            f"{'exact' if exact else 'ScaNN'} | {without:.2f} | "
            f"{with_digests:.2f} |",
            flush=True,
        )


def without_digests(records: Records, rows: pd.DataFrame) -> tf.data.Dataset:
    """Reads as `Records.encoded_dataset` does, but compares nothing."""

    def read(path: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=path[None],
            compression_type="",
            buffer_size=0,
            byte_offsets=offset[None],
        )
        element = tf.TensorSpec([], tf.string)
        record = tf.data.experimental.from_variant(variant, element)
        return parse(record.take(1).get_single_element())

    paths = [str(records.path / name) for name in rows["shard"]]
    offsets = rows["byte_offset"].to_numpy(np.int64)
    return tfdata_threads.fixed(
        tf.data.Dataset.from_tensor_slices((paths, offsets)).map(
            read, num_parallel_calls=tfdata_threads.THREADS
        )
    )


def reading(records: Records, *, decode: bool) -> None:
    """Prints the milliseconds to read an image."""
    order = np.random.default_rng(1).permutation(len(records.manifest))
    rows = records.manifest.iloc[order]
    sources = {
        "without": without_digests(records, rows),
        "with digests": records.encoded_dataset(rows),
    }
    if decode:
        sources = {
            name: source.map(
                lambda encoded: image_decoding.load_batch(
                    encoded[None], height=_HEIGHT, width=_WIDTH
                ),
                num_parallel_calls=tfdata_threads.THREADS,
            )
            for name, source in sources.items()
        }
    passes = {name: [] for name in sources}
    for turn in range(FLAGS.repeats + 1):
        for name, source in sources.items():
            begin = time.perf_counter(), time.process_time()
            for _ in source:
                pass
            if turn:  # the first pass starts threads
                passes[name].append(
                    (
                        time.perf_counter() - begin[0],
                        time.process_time() - begin[1],
                    )
                )
    for name, turns in passes.items():
        seconds, core_s = map(statistics.median, zip(*turns, strict=True))
        print(
            f"| {'read and decoded' if decode else 'read'} | {name} | "
            f"{1000 * seconds / len(rows):.2f} | "
            f"{1000 * core_s / len(rows):.2f} |",
            flush=True,
        )


def main(argv):
    del argv
    logging.set_verbosity(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        print(
            "| index | GB | search | s to open without | with digests |\n"
            "|---|---:|---|---:|---:|"
        )
        for size in FLAGS.sizes:
            opening(
                write_index(folder / size, *map(int, size.split("x"))), size
            )
        photographs.photographs(folder / "photographs", FLAGS.photographs)
        records = photographs.built_records(folder)
        print(
            "\n| images | | ms each | core ms each |\n|---|---|---:|---:|",
            flush=True,
        )
        for decode in (False, True):
            reading(records, decode=decode)


if __name__ == "__main__":
    app.run(main)
