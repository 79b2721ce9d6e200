"""Compares batches to train on with bare JPEG decoding and a DataLoader.

    python -m benchmarks.input_pipeline

Needs the extra `bench`. Photographs are smooth noise, 640 x 480 pixels and
about 100 kB each, built into records. Rows of the table:

- bare: encoded images in memory, decoded by `tf.io.decode_jpeg` as exactly as
  sare_tf does, and batched by the same threads. The second row also resizes
  them by `tf.image.resize` with antialiasing, even if they have that size.
- PyTorch DataLoader: files in a folder, decoded and resized by PIL (bilinear,
  which antialiases), and batched by PyTorch's own collation. Its processes
  start before the measurement, and stay.
- tuples and places: `sare_tf.tuple_dataset` of random tuples (4 of 12 images)
  and `sare_tf.place_dataset` (12 places of 4), read from records by offset,
  with random numbers for an augmentation on the device.

Every row uses all cores: PyTorch by a process for each, the others by
`tfdata_threads.THREADS`. Every row yields uint8. Passes over all images take
turns, and rates are medians by the clock. Core milliseconds are of all threads
and processes, and depend least on other work on the machine. For PyTorch they
include its main process and its workers.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
import torch
from absl import app, flags, logging
from PIL import Image

from benchmarks import measure as measuring
from benchmarks.photographs import built_records, photographs, tuple_batches
from sare_tf.records.records import Records
from sare_tf.runtime import tfdata_threads
from sare_tf.training import datasets, place_batches
from sare_tf.training.batches import AugmentationDraws
from sare_tf.training.place_batches import PlaceBatchRule

FLAGS = flags.FLAGS
flags.DEFINE_integer(
    "photographs", 480, "Number of photographs, a multiple of 48.", 48
)
flags.DEFINE_integer("repeats", 5, "Passes of each row.", 1)
flags.DEFINE_list("sizes", ["480x640", "240x320"], "Rows x columns.")

_PLACES, _IMAGES_OF_PLACE = 12, 4
_BATCH = 48
_DRAWS = 22


class Files(torch.utils.data.Dataset):
    """The usual dataset of a PyTorch project of this field."""

    def __init__(self, paths: list[Path], height: int, width: int):
        self._paths = paths
        self._size = (width, height)

    def __len__(self):
        return len(self._paths)

    def __getitem__(self, index):
        with Image.open(self._paths[index]) as image:
            image = image.convert("RGB").resize(
                self._size, Image.Resampling.BILINEAR
            )
        return torch.from_numpy(np.array(image))


def bare(encoded: list[bytes], size: tuple[int, int] | None) -> tf.data.Dataset:
    """Returns batches of decoded images, resized if there is a size."""

    def load(image_bytes):
        image = tf.io.decode_jpeg(
            image_bytes, channels=3, dct_method="INTEGER_ACCURATE"
        )
        if size is None:
            return image
        image = tf.image.resize(image, size, antialias=True)
        return tf.saturate_cast(tf.round(image), tf.uint8)

    images = tf.data.Dataset.from_tensor_slices(encoded).map(
        load, num_parallel_calls=tfdata_threads.THREADS
    )
    return tfdata_threads.fixed(images.batch(_BATCH).prefetch(2))


def place_dataset_of(
    records: Records, height: int, width: int
) -> tf.data.Dataset:
    """Returns batches that have every place once."""
    rule = PlaceBatchRule(
        places_per_batch=_PLACES, images_per_place=_IMAGES_OF_PLACE
    )
    return datasets.planned_place_dataset(
        records,
        place_batches.plan_batches(records.manifest, rule=rule),
        height=height,
        width=width,
        draws=AugmentationDraws(_DRAWS),
    )


def measure(paths: list[Path], records: Records, height: int, width: int):
    """Returns medians per row: images per second, core seconds per image."""
    loader = torch.utils.data.DataLoader(
        Files(paths, height, width),
        batch_size=_BATCH,
        shuffle=True,
        num_workers=tfdata_threads.CORES,
        persistent_workers=True,
        # After TensorFlow's threads have started, fork is not safe.
        multiprocessing_context="spawn",
    )
    encoded = list(records.read_images(records.manifest))
    sources = {
        "bare decoding": bare(encoded, None),
        "bare decoding and resizing": bare(encoded, (height, width)),
        "PyTorch DataLoader, PIL": loader,
        "sare_tf, tuples": tuple_batches(records, height, width),
        "sare_tf, places": place_dataset_of(records, height, width),
    }
    processes = [os.getpid()]
    measured = {name: [] for name in sources}
    for turn in range(FLAGS.repeats + 1):
        for name, source in sources.items():
            begin, begin_cores = (
                time.perf_counter(),
                measuring.core_seconds(processes),
            )
            for _ in source:
                pass
            seconds = time.perf_counter() - begin
            core_s = measuring.core_seconds(processes) - begin_cores
            if turn:  # the first pass starts threads and processes
                rates = len(paths) / seconds, core_s / len(paths)
                measured[name].append(rates)
        workers = torch.multiprocessing.active_children()
        processes = [os.getpid(), *(worker.pid for worker in workers)]
    return {
        name: [statistics.median(values) for values in zip(*rows, strict=True)]
        for name, rows in measured.items()
    }


def main(argv):
    del argv
    logging.set_verbosity(logging.WARNING)
    print(
        f"{FLAGS.photographs} photographs, {tfdata_threads.CORES} workers, "
        f"medians of {FLAGS.repeats} passes.\n\n"
        "| size | | images/s | times bare | times PyTorch | core ms per image "
        "| times bare by core time | times PyTorch by core time |\n"
        "|---|---|---:|---:|---:|---:|---:|---:|"
    )
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        paths = photographs(folder / "photographs", FLAGS.photographs)
        records = built_records(folder)
        for size in FLAGS.sizes:
            height, width = map(int, size.split("x"))
            rows = measure(paths, records, height, width)
            bare_rate, bare_core_s = rows["bare decoding and resizing"]
            torch_rate, torch_core_s = rows["PyTorch DataLoader, PIL"]
            for name, (rate, core_s) in rows.items():
                print(
                    f"| {size} | {name} | {rate:.0f} | {rate / bare_rate:.2f} "
                    f"| {rate / torch_rate:.2f} | {1000 * core_s:.2f} "
                    f"| {bare_core_s / core_s:.2f} "
                    f"| {torch_core_s / core_s:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    app.run(main)
