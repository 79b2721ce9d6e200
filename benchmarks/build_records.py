"""Building records beside copying the same files, and beside decoding alone.

    python -m benchmarks.build_records
    python -m benchmarks.build_records --mode=memory --sizes=1000,1000000

`speed` makes photographs (JPEG, 640 x 480 pixels of noise at several scales)
and times, in turns: copying the folder (`cp -r`, and `shutil.copytree`),
building records of it without decoding, decoding each file on all cores by
tf.data with the decoder of `sare_tf.images`, and building records with
verification. Files are read from the page cache in all of them, and written to
it: bringing them to the disk is left to the system, which would be in favour of
few large files. Seconds are by the clock; core seconds are of all cores, and
tell more on a machine that does other work. Figures are medians, ratios those
of the ratios of each turn.

`memory` makes folders of very small images, and builds records of each in a
process of its own: the peak of its memory above that of its imports. `places`
has folders of 10 images, `positions` all images of a role in one folder, with
their coordinates in their names, and `list` names the same in a CSV file, from
which splits and roles are chosen by position. A shard has 1 MiB, which are as
many of these images as 128 MiB have of photographs. `--noverify_images` leaves
decoding out.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from sare_tf import build_records
from sare_tf.dataset import image_decoding
from sare_tf.records.options import RecordOptions

FLAGS = flags.FLAGS
flags.DEFINE_enum("mode", "speed", ["speed", "memory", "one"], "See above.")
flags.DEFINE_integer("photographs", 3000, "Files of the speed table.", 1)
flags.DEFINE_integer("turns", 5, "Repeats of each side of it.", 1)
flags.DEFINE_list("sizes", ["1000", "30000"], "Images of the memory table.")
flags.DEFINE_string("folder", None, "Disk to measure on; default: temporary.")

# Layout -> reader, and rule of positives.
LAYOUTS = {
    "places": ("place_folders", "place"),
    "positions": ("at_names", "radius"),
    "list": ("csv_table", "radius"),
}
flags.DEFINE_list("layouts", list(LAYOUTS), "Of the memory table.")


def photograph(rng):
    """A JPEG with detail at several scales, as photographs have."""
    image = np.zeros((480, 640, 3), np.float32)
    for cell, strength in ((160, 60), (32, 40), (8, 18), (2, 6)):
        noise = rng.normal(0, strength, (480 // cell, 640 // cell, 3))
        image += noise.repeat(cell, 0).repeat(cell, 1)
    image = np.clip(image + 128, 0, 255).astype(np.uint8)
    return tf.io.encode_jpeg(image, quality=90).numpy()


def make_photographs(folder, count):
    """Places of 10 photographs, below database and queries of one split.

    100 different ones, so that none is decoded from a processor's cache.
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
    dataset = tf.data.Dataset.from_tensor_slices(paths).map(
        lambda path: tf.shape(image_decoding.decode(tf.io.read_file(path))),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    for _ in dataset:
        pass


def timed(call):
    """Seconds by the clock and of all cores, of this and its children."""
    os.sync()
    begin, begin_cores = time.perf_counter(), sum(os.times()[:4])
    call()
    return time.perf_counter() - begin, sum(os.times()[:4]) - begin_cores


def speed(folder):
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

    # Name -> what it does, and the name of what it is held against.
    sides = {
        "cp -r": (
            lambda: subprocess.run(["cp", "-r", source, target], check=True),
            "cp -r",
        ),
        "shutil.copytree": (lambda: shutil.copytree(source, target), "cp -r"),
        "records, without decoding": (lambda: build(False), "cp -r"),
        "decoding alone": (lambda: decode_all(paths), "decoding alone"),
        "records, verified": (lambda: build(True), "decoding alone"),
    }
    names = list(sides)
    found = np.empty((FLAGS.turns, len(sides), 2))
    for turn in range(-1, FLAGS.turns):  # the first is not counted
        for row, (call, _) in enumerate(sides.values()):
            shutil.rmtree(target, ignore_errors=True)
            seconds = timed(call)
            if turn >= 0:
                found[turn, row] = seconds
    medians = np.median(found, axis=0)
    print(
        f"{FLAGS.photographs} files of {size / 1000:.0f} kB, "
        f"{FLAGS.turns} turns.\n\n"
        "| | files/s | MB/s | core ms/file | speed beside | by core seconds "
        "| of |\n|---|---:|---:|---:|---:|---:|---|"
    )
    for row, (name, (_, other)) in enumerate(sides.items()):
        ratio = np.median(found[:, names.index(other)] / found[:, row], axis=0)
        per_second = FLAGS.photographs / medians[row, 0]
        print(
            f"| {name} | {per_second:,.0f} | {per_second * size / 1e6:,.0f} "
            f"| {1000 * medians[row, 1] / FLAGS.photographs:.3f} "
            f"| {ratio[0]:.2f} | {ratio[1]:.2f} | {other} |"
        )


def memory(folder):
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
            shards = len(list((tiny / "records").glob("*.tfrecord")))
            print(
                f"| {layout} | {size:,} | {shards:,} | {peak / 2**20:,.0f} "
                f"| {seconds:,.0f} |",
                flush=True,
            )
            shutil.rmtree(tiny)


def make_tiny(folder, count, layout):
    """Links to one image of 8 x 8 pixels, a tenth of them queries."""
    folder.mkdir()
    encoded = tf.io.encode_jpeg(np.zeros((8, 8, 3), np.uint8)).numpy()
    rng = np.random.default_rng(0)
    # One in each 1,000 square metres, in the mean.
    points = rng.uniform(0, (1000 * count) ** 0.5, (count, 2))
    lines = ["path,latitude,longitude"]
    for start in range(0, count, 10_000):
        # A file has at most some 65,000 names.
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
    before = status_bytes("VmRSS")
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
    print(status_bytes("VmHWM") - before, time.perf_counter() - begin)


def status_bytes(name):
    """Memory of this process. That of getrusage begins with the parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [kibibytes] = re.findall(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    return 1024 * int(kibibytes)


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
