"""Compares reading by workers of data_service with reading in the training.

    python -m benchmarks.data_service

Photographs are smooth noise, 640 x 480 pixels and about 100 kB each. Each row
reads batches of random tuples (4 of 12 images) from records on a disk. The
training, which only takes the batches, and all workers run on this machine: on
few cores, more workers cannot read more than one. What can be seen there is how
much time of its cores the training saves ("core ms of the training"): a core of
a training takes in 1000 divided by it images per second, as long as there are
enough workers.

--pinned gives each worker one core by `taskset`, from the first core on. Passes
of the rows take turns, and rates are medians by the clock.
"""

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from absl import app, flags, logging

from benchmarks import measure
from benchmarks.photographs import built_records, photographs, tuple_batches
from sare_tf.runtime.cores import CORES
from sare_tf.training import image_service

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import toy_service  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_integer(
    "photographs", 960, "Number of photographs, a multiple of 48.", 48
)
flags.DEFINE_integer("repeats", 5, "Passes of each row.", 1)
flags.DEFINE_list("workers", ["1", "2"], "Numbers of workers.")
flags.DEFINE_bool("pinned", False, "Give each worker one core.")
flags.DEFINE_string("image_size", "480x640", "Rows x columns of an image.")


@contextlib.contextmanager
def service(workers: int):
    """Yields a dispatcher with workers."""
    running = toy_service.Service(0)
    try:
        for number in range(workers):
            before = ["taskset", "-c", str(number)] if FLAGS.pinned else []
            running.processes.append(
                toy_service.start(
                    f"--dispatcher={running.address}", before=before
                )
            )
            toy_service.address_of(running.processes[-1])
        yield running
    finally:
        running.stop()


def timed(
    dataset: tf.data.Dataset, processes: Sequence[int]
) -> tuple[float, float, float]:
    """Returns images/s, and core ms of an image here and in processes."""
    here, there = (
        measure.core_seconds(["self"]),
        measure.core_seconds(processes),
    )
    begin = time.perf_counter()
    for _ in dataset:
        pass
    seconds = time.perf_counter() - begin
    count = FLAGS.photographs
    return (
        count / seconds,
        1000 * (measure.core_seconds(["self"]) - here) / count,
        1000 * (measure.core_seconds(processes) - there) / count,
    )


def main(argv):
    del argv
    logging.set_verbosity(logging.WARNING)
    height, width = map(int, FLAGS.image_size.split("x"))
    print(
        f"{FLAGS.photographs} photographs of {FLAGS.image_size}, {CORES} cores"
        f"{', one for each worker' if FLAGS.pinned else ''}, medians of "
        f"{FLAGS.repeats} passes.\n\n"
        "| | images/s | core ms of the training | core ms of the workers |\n"
        "|---|---:|---:|---:|",
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as stack,
    ):
        photographs(Path(folder) / "photographs", FLAGS.photographs)
        records = built_records(Path(folder))
        rows = {"in the training": (tuple_batches(records, height, width), [])}
        for workers in map(int, FLAGS.workers):
            running = stack.enter_context(service(workers))
            source = image_service.connect(running.address, [records])
            rows[f"{workers} worker{'s' * (workers > 1)}"] = (
                tuple_batches(source.of(records), height, width),
                [process.pid for process in running.processes],
            )
        measured = {name: [] for name in rows}
        for turn in range(FLAGS.repeats + 1):
            for name, row in rows.items():
                values = timed(*row)
                if turn:  # the first pass starts threads
                    measured[name].append(values)
    for name, values in measured.items():
        rate, here, there = map(statistics.median, zip(*values, strict=True))
        print(f"| {name} | {rate:.0f} | {here:.2f} | {there:.2f} |")


if __name__ == "__main__":
    app.run(main)
