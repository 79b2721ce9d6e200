"""Batches to train on beside bare JPEG decoding and a PyTorch DataLoader.

    python -m benchmarks.input_pipeline

with the extra `bench`. Photographs are made of smooth noise, 640 x 480 pixels
and about 100 kB each, and built into records. Rows of the table:

- bare: encoded images that are in memory already, decoded by
  `tf.io.decode_jpeg`, as exactly as here, and, in the second row, resized by
  `tf.image.resize` with antialiasing, also to the size that they have; batched,
  by the same threads as here.
- DataLoader: files in a folder, decoded and resized by PIL (bilinear, which
  antialiases), batched by PyTorch's own collation. Its processes are started
  before, and stay.
- tuples and places: `sare_tf.tuple_dataset` of random tuples (4 of 12 images)
  and `sare_tf.place_dataset` (12 places of 4), read from records by offset,
  with random numbers for an augmentation on the device.

All have the cores to share: PyTorch by a process for each, the others by
`parallel.THREADS`. All give uint8. Passes over all images take turns; rates are
medians by the clock. Core milliseconds, of all threads and processes together,
are what other work on the machine changes least; those of PyTorch are of its
main process and workers.
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

from sare_tf import build_records
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.runtime import tfdata_threads
from sare_tf.training import datasets, place_batches

FLAGS = flags.FLAGS
flags.DEFINE_integer("photographs", 480, "How many; a multiple of 48.", 48)
flags.DEFINE_integer("repeats", 5, "Passes of each row.", 1)
flags.DEFINE_list("sizes", ["480x640", "240x320"], "Rows x columns.")

_HEIGHT, _WIDTH = 480, 640
_TUPLES, _IMAGES_OF_TUPLE = 4, 12
_PLACES, _IMAGES_OF_PLACE = 12, 4
_BATCH = 48
_DRAWS = 22
_TICKS = os.sysconf("SC_CLK_TCK")


def photographs(folder: Path, count: int) -> list[Path]:
    """Makes JPEGs of `count` images, four to a place."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        coarse = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
        smooth = Image.fromarray(coarse).resize((_WIDTH, _HEIGHT), 3)
        grain = rng.integers(-12, 13, (_HEIGHT, _WIDTH, 3))
        pixels = (np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)
        place = folder / "train" / "database" / f"p{number // 4:04d}"
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{number % 4}.jpg"
        Image.fromarray(pixels).save(path, quality=90)
        made.append(path)
    return made


class Files(torch.utils.data.Dataset):
    """What a PyTorch project of this field has for its images."""

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
    """Batches of images decoded and, if there is a size, resized."""

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


def tuple_batches(records: Records, height: int, width: int) -> tf.data.Dataset:
    """Random tuples, as many images as there are."""
    order = np.random.default_rng(1).permutation(len(records.manifest))
    return datasets.tuple_dataset(
        records,
        order.reshape(-1, _IMAGES_OF_TUPLE),
        height=height,
        width=width,
        tuples_per_batch=_TUPLES,
        draws=_DRAWS,
    )


def place_dataset_of(
    records: Records, height: int, width: int
) -> tf.data.Dataset:
    """Batches that have every place once."""
    rows = records.manifest
    return datasets.planned_place_dataset(
        records,
        rows,
        place_batches.plan_batches(
            rows, places_per_batch=_PLACES, images_per_place=_IMAGES_OF_PLACE
        ),
        height=height,
        width=width,
        draws=_DRAWS,
    )


def _core_seconds(processes: list[int]) -> float:
    """Of these processes until now, by Linux."""
    ticks = 0
    for process in processes:
        text = Path(f"/proc/{process}/stat").read_text(encoding="ascii")
        # User and system time; a name with spaces ends at the bracket.
        ticks += sum(map(int, text.rpartition(")")[2].split()[11:13]))
    return ticks / _TICKS


def measure(paths: list[Path], records: Records, height: int, width: int):
    """Medians of each row: images per second, and core ms per image."""
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
    found = {name: [] for name in sources}
    for turn in range(FLAGS.repeats + 1):
        for name, source in sources.items():
            begin, begin_cores = time.perf_counter(), _core_seconds(processes)
            for _ in source:
                pass
            seconds = time.perf_counter() - begin
            core_s = _core_seconds(processes) - begin_cores
            if turn:  # the first pass starts threads and processes
                found[name].append((len(paths) / seconds, core_s / len(paths)))
        workers = torch.multiprocessing.active_children()
        processes = [os.getpid(), *(worker.pid for worker in workers)]
    return {
        name: [statistics.median(values) for values in zip(*rows, strict=True)]
        for name, rows in found.items()
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
        records = Records(
            build_records.run(
                RecordOptions(
                    dataset=folder / "photographs",
                    records=folder / "records",
                    reader="place_folders",
                )
            )
        )
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
