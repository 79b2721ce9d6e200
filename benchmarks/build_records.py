"""Compares building records with copying and with decoding the same files.

    python -m benchmarks.build_records
    python -m benchmarks.build_records --mode=memory --sizes=1000,1000000

`speed` makes photographs (JPEG, 640 x 480 pixels of noise at several scales)
and times, in turns: copying the folder (`cp -r`, and `shutil.copytree`),
building records of it without decoding, decoding each file on all cores by
tf.data as `sare_tf.dataset.image_decoding` does, and building records with
verification. All of them read files from the page cache and write to it; the
system brings them to the disk later, which would favour few large files.
Seconds are by the clock. Core seconds are of all cores, and say more on a
machine that does other work. Figures are medians; a ratio is the median of the
ratios of each turn.

`memory` makes folders of very small images, and builds records of each in a
process of its own. It prints the peak memory of the process above the memory of
its imports. `places` has folders of 10 images. `positions` has all images of a
role in one folder, with their coordinates in their names. `list` has the same
images in a CSV file, and splits and roles are chosen by position. A shard has
1 MiB, and as many of these images as 128 MiB have photographs.
`--noverify_images` decodes nothing.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from benchmarks import measure
from sare_tf import build_records
from sare_tf.dataset import image_decoding
from sare_tf.records.options import RecordOptions

FLAGS = flags.FLAGS
flags.DEFINE_enum("mode", "speed", ["speed", "memory", "one"], "See above.")
flags.DEFINE_integer("photographs", 3000, "Files in the speed table.", 1)
flags.DEFINE_integer("turns", 5, "Repeats of each row of it.", 1)
flags.DEFINE_list(
    "sizes", ["1000", "30000"], "Images in each row of the memory table."
)
flags.DEFINE_string(
    "folder", None, "Disk to measure on. Default: a temporary folder."
)

# Layout -> reader, rule of positives.
LAYOUTS = {
    "places": ("place_folders", "place"),
    "positions": ("at_names", "radius"),
    "list": ("csv_table", "radius"),
}
flags.DEFINE_list("layouts", list(LAYOUTS), "Layouts in the memory table.")


def photograph(rng):
    """Draws a JPEG with detail at several scales, as photographs have."""
    image = np.zeros((480, 640, 3), np.float32)
    for cell, strength in ((160, 60), (32, 40), (8, 18), (2, 6)):
        noise = rng.normal(0, strength, (480 // cell, 640 // cell, 3))
        image += noise.repeat(cell, 0).repeat(cell, 1)
    image = np.clip(image + 128, 0, 255).astype(np.uint8)
    return tf.io.encode_jpeg(image, quality=90).numpy()


def make_photographs(folder, count):
    """Writes places of 10 photographs; returns the mean bytes of a file.

    There are 100 different files, so that no decoder finds its input in a
    cache of the processor.
    """
    rng = np.random.default_rng(0)
    different = [photograph(rng) for _ in range(100)]
    for number in range(count):
        role = "queries" if number % 10 == 0 else "database"
        place = folder / "test" / role / f"p{number // 10:06d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:07d}.jpg").write_bytes(different[number % 100])
    return sum(map(len, different)) / len(different)


def decode_all(paths):
    """Decodes files on all cores."""
    dataset = tf.data.Dataset.from_tensor_slices(paths).map(
        lambda path: tf.shape(image_decoding.decode(tf.io.read_file(path))),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    for _ in dataset:
        pass


def timed(call):
    """Returns seconds by the clock, and of all cores, with child processes."""
    os.sync()
    begin, begin_cores = time.perf_counter(), sum(os.times()[:4])
    call()
    return time.perf_counter() - begin, sum(os.times()[:4]) - begin_cores


def speed(folder):
    """Prints the speed table."""
    source = folder / "photographs"
    size = make_photographs(source, FLAGS.photographs)
    paths = [str(path) for path in sorted(source.rglob("*.jpg"))]
    target = folder / "target"

    def build(verify_images):
        build_records.run(
            RecordOptions(
                dataset=source,
                records=target,
                reader="place_folders",
                positives="place",
                verify_images=verify_images,
            )
        )

    # Row -> what is timed, and the row that it is compared with.
    sides = {
        "cp -r": (
            lambda: subprocess.run(["cp", "-r", source, target], check=True),
            "cp -r",
        ),
        "shutil.copytree": (lambda: shutil.copytree(source, target), "cp -r"),
        "records, without decoding": (lambda: build(False), "cp -r"),
        "decoding": (lambda: decode_all(paths), "decoding"),
        "records, verified": (lambda: build(True), "decoding"),
    }
    names = list(sides)
    measured = np.empty((FLAGS.turns, len(sides), 2))
    for turn in range(-1, FLAGS.turns):  # the first one warms up
        for row, (call, _) in enumerate(sides.values()):
            shutil.rmtree(target, ignore_errors=True)
            seconds = timed(call)
            if turn >= 0:
                measured[turn, row] = seconds
    medians = np.median(measured, axis=0)
    print(
        f"{FLAGS.photographs} files of {size / 1000:.0f} kB, "
        f"{FLAGS.turns} turns.\n\n"
        "| | files/s | MB/s | core ms/file | speed beside | by core seconds "
        "| of |\n|---|---:|---:|---:|---:|---:|---|"
    )
    for row, (name, (_, other)) in enumerate(sides.items()):
        other_side = measured[:, names.index(other)]
        ratio = np.median(other_side / measured[:, row], axis=0)
        per_second = FLAGS.photographs / medians[row, 0]
        print(
            f"| {name} | {per_second:,.0f} | {per_second * size / 1e6:,.0f} "
            f"| {1000 * medians[row, 1] / FLAGS.photographs:.3f} "
            f"| {ratio[0]:.2f} | {ratio[1]:.2f} | {other} |"
        )


def memory(folder):
    """Prints the memory table."""
    print(
        "| layout | images | shards | peak MiB above imports | seconds |\n"
        "|---|---:|---:|---:|---:|"
    )
    for layout in FLAGS.layouts:
        for size in map(int, FLAGS.sizes):
            tiny = folder / f"{layout}{size}"
            make_tiny(tiny, size, layout)
            result = subprocess.run(
                [sys.executable, "-m", "benchmarks.build_records"]
                + ["--mode=one", f"--folder={tiny}", f"--layouts={layout}"]
                + [f"--verify_images={FLAGS.verify_images}"],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            peak, seconds = map(float, result.stdout.split()[-2:])
            peak_mib = peak / measure.MEBIBYTE
            shards = len(list((tiny / "records").glob("*.tfrecord")))
            print(
                f"| {layout} | {size:,} | {shards:,} | {peak_mib:,.0f} "
                f"| {seconds:,.0f} |",
                flush=True,
            )
            shutil.rmtree(tiny)


def make_tiny(folder, count, layout):
    """Makes links to one image of 8 x 8 pixels, a tenth of them queries."""
    folder.mkdir()
    encoded = tf.io.encode_jpeg(np.zeros((8, 8, 3), np.uint8)).numpy()
    rng = np.random.default_rng(0)
    # One image per 1,000 square metres, on average.
    points = rng.uniform(0, (1000 * count) ** 0.5, (count, 2))
    lines = ["path,latitude,longitude"]
    for start in range(0, count, 10_000):
        # ext4 allows about 65,000 names of a file.
        first = folder / f"{start}.first"
        first.write_bytes(encoded)
        for number in range(start, min(start + 10_000, count)):
            role = "queries" if number % 10 == 0 else "database"
            if layout == "places":
                place = folder / "photos/test" / role / f"p{number // 10:06d}"
                name = f"{number:07d}.jpg"
            else:
                place = folder / "photos/images/test" / role
                east, north = points[number]
                name = f"@{east:.2f}@{north:.2f}@33@U@@@{number:07d}@.jpg"
                degrees = f"{north / 111_000:.7f},{15 + east / 111_000:.7f}"
                lines.append(f"images/test/{role}/{name},{degrees}")
            place.mkdir(parents=True, exist_ok=True)
            os.link(first, place / name)
    if layout == "list":
        (folder / "photos/images.csv").write_text("\n".join(lines))


def one(folder):
    """Builds in this process; prints its peak memory and seconds."""
    reader, positives = LAYOUTS[FLAGS.layouts[0]]
    before = measure.resident_bytes()
    begin = time.perf_counter()
    build_records.run(
        RecordOptions(
            dataset=folder / "photos",
            records=folder / "records",
            reader=reader,
            positives=positives,
            shard_mebibytes=1,
            verify_images=FLAGS.verify_images,
        )
    )
    print(measure.peak_bytes() - before, time.perf_counter() - begin)


def main(argv):
    del argv
    logging.set_verbosity(logging.ERROR)
    if FLAGS.mode == "one":
        one(Path(FLAGS.folder))
        return
    with tempfile.TemporaryDirectory(dir=FLAGS.folder) as folder:
        {"speed": speed, "memory": memory}[FLAGS.mode](Path(folder))


if __name__ == "__main__":
    app.run(main)
