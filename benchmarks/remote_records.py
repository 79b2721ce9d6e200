"""Compares reading records from slow storage with reading them from a disk.

    python -m benchmarks.remote_records

Photographs are smooth noise, 640 x 480 pixels and about 100 kB each. The
storage is a server in a process of its own (`tests/toy_storage.py`), which
waits for --latency_ms before it answers a request, whatever the request is for.
It runs on the same cores, and takes some of the time. Rows:

- random tuples: `sare_tf.tuple_dataset`, 4 of 12 images in a batch, every image
  once, decoded.
- images in order: `datasets.image_dataset` in the order of the records, as for
  embedding.
- no image: encoded images in random order, which are not decoded. It shows what
  reading costs.

Passes from the disk and from storage take turns, and rates are medians by the
clock. "core ms" are of the training process only.
"""

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from benchmarks import measure
from benchmarks.photographs import built_records, photographs, tuple_batches
from sare_tf.records.records import Records
from sare_tf.runtime import remote_files
from sare_tf.runtime.cores import CORES
from sare_tf.training import datasets

FLAGS = flags.FLAGS
flags.DEFINE_integer(
    "photographs", 1920, "Number of photographs, a multiple of 48.", 48
)
flags.DEFINE_integer("repeats", 5, "Passes of each row.", 1)
flags.DEFINE_list("latencies_ms", ["0", "20", "100"], "Waits before answers.")
flags.DEFINE_string("image_size", "480x640", "Rows x columns of an image.")

_STORAGE = Path(__file__).parents[1] / "tests" / "toy_storage.py"


@contextlib.contextmanager
def storage(folder: Path, latency_ms: float) -> Iterator[str]:
    """Yields the address of a server of a folder."""
    server = subprocess.Popen(
        [sys.executable, _STORAGE, folder, str(latency_ms / 1000)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def orders(records: Records) -> dict[str, tf.data.Dataset]:
    """Returns the datasets of a table, by the name of the row."""
    height, width = map(int, FLAGS.image_size.split("x"))
    order = np.random.default_rng(1).permutation(len(records.manifest))
    return {
        "random tuples": tuple_batches(records, height, width),
        "images in order": datasets.image_dataset(
            records, records.manifest, height=height, width=width
        ),
        "no image": records.encoded_dataset(records.manifest.iloc[order]).batch(
            48
        ),
    }


def timed(dataset: tf.data.Dataset, count: int) -> tuple[float, float]:
    """Returns images per second, and core milliseconds of an image."""
    begin, cores = time.perf_counter(), measure.core_seconds(["self"])
    for _ in dataset:
        pass
    rate = count / (time.perf_counter() - begin)
    return rate, 1000 * (measure.core_seconds(["self"]) - cores) / count


def compare(local: Records, address: str, latency_ms: float) -> None:
    """Prints the rows of one latency."""
    remote = Records(address)
    sources = orders(local), orders(remote)
    for name in sources[0]:
        places = remote.places(remote.manifest)
        measured, requests = ([], []), 0
        for turn in range(FLAGS.repeats + 1):
            for rows, source in zip(measured, sources, strict=True):
                before = _REQUESTS[0]
                values = timed(source[name], len(places))
                requests = _REQUESTS[0] - before
                if turn:  # the first pass starts threads and connections
                    rows.append(values)
        (disk, disk_ms), (rate, ms) = (
            [statistics.median(column) for column in zip(*rows, strict=True)]
            for rows in measured
        )
        print(
            f"| {latency_ms:g} | {name} | {disk:.0f} | {rate:.0f} "
            f"| {rate / disk:.2f} | {disk_ms:.2f} | {ms:.2f} "
            f"| {len(places) / requests:.1f} |",
            flush=True,
        )


_REQUESTS = [0]


def count_requests() -> None:
    """Counts the requests of this process from now on."""
    read_range = remote_files.read_range

    def counted(*arguments):
        _REQUESTS[0] += 1
        return read_range(*arguments)

    remote_files.read_range = counted


def main(argv):
    del argv
    logging.set_verbosity(logging.WARNING)
    count_requests()
    print(
        f"{FLAGS.photographs} photographs of {FLAGS.image_size}, "
        f"{CORES} cores, {remote_files.REQUESTS} requests at a time, medians "
        f"of {FLAGS.repeats} passes.\n\n"
        "| latency, ms | | images/s, disk | images/s, storage | of the disk's "
        "| core ms, disk | core ms, storage | images per request |\n"
        "|---:|---|---:|---:|---:|---:|---:|---:|"
    )
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder) / "photographs", FLAGS.photographs)
        local = built_records(Path(folder))
        for latency_ms in map(float, FLAGS.latencies_ms):
            with storage(local.path, latency_ms) as address:
                compare(local, address, latency_ms)


if __name__ == "__main__":
    app.run(main)
