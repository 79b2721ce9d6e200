"""Compares decoding with bare decoding, and with an earlier version of it.

    python -m benchmarks.decoding --earlier=DIR

DIR holds an earlier commit, as `git worktree add DIR COMMIT` makes it. The
sides take turns, each in a process of its own. A photograph is smooth noise,
640 x 480 pixels. Columns, with those of the earlier code beside them:

- bare: `tf.io.decode_jpeg`, as exactly as sare_tf decodes. Like the next two,
  in microseconds of cores per image, in a tf.data pipeline that uses all of
  them.
- decode: `image_decoding.decode`, which reads the header, refuses what costs
  too much, and turns the image upright.
- header: `image_header.read`. Commits before version 0.1.0 read the size by
  `tf.io.extract_jpeg_shape`, EXIF only in the first 4,096 bytes, and no number
  of scans.
- start: milliseconds of cores until a new iterator over `decode` gives its
  first image.

Figures are medians of the turns, ratios those of the ratios within a turn.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import app, flags
from PIL import Image

FLAGS = flags.FLAGS
flags.DEFINE_string("earlier", None, "Folder of an earlier commit.")
flags.DEFINE_integer("turns", 5, "Processes of each side.", 1)
flags.DEFINE_integer("repeats", 10, "Batches of each figure in a process.", 1)
flags.DEFINE_bool("one_side", False, "Measure the sare_tf that is imported.")

_HEIGHT, _WIDTH = 480, 640
_BATCH = 50
_ROOT = Path(__file__).parents[1]


def files() -> dict[str, bytes]:
    """Returns encoded photographs by what is particular to them."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((_WIDTH, _HEIGHT), 3)
    grain = rng.integers(-12, 13, (_HEIGHT, _WIDTH, 3))
    pixels = (np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)

    def encode(kind: str = "JPEG", **options) -> bytes:
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, kind, **options)
        return encoded.getvalue()

    upright, turned = Image.Exif(), Image.Exif()
    upright[0x0112], turned[0x0112] = 1, 6
    first = encode(exif=turned)
    xmp = b"http://ns.adobe.com/xmp/extension/\0" + bytes(50_000)
    xmp = b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp
    return {
        "without EXIF": encode(),
        "upright by EXIF": encode(exif=upright),
        "turned by EXIF": first,
        "turned, behind 50 kB of XMP": first[:2] + xmp + first[2:],
        "progressive": encode(progressive=True),
        "PNG": encode("PNG"),
    }


def bare(encoded: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_jpeg(
        encoded, channels=3, dct_method="INTEGER_ACCURATE"
    )
    return tf.shape(image)


def of_sare_tf() -> tuple[Callable, Callable]:
    """Returns decoding and reading a header, of the imported version."""
    try:
        from sare_tf.dataset import image_decoding, image_header
    except ImportError:  # before version 0.1.0
        from sare_tf import images, orientation

        return images.decode, lambda encoded: (
            images.stored_size(encoded),
            orientation.read(encoded),
        )
    return image_decoding.decode, lambda encoded: tuple(
        image_header.read(encoded)
    )


def batches_of(function: Callable, encoded: bytes) -> tf.data.Dataset:
    """Returns batches of one file, made as sare_tf makes its pipelines."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 2 * os.cpu_count()
    dataset = tf.data.Dataset.from_tensors(encoded).repeat()
    return (
        dataset.map(function, num_parallel_calls=2 * os.cpu_count())
        .batch(_BATCH)
        .with_options(options)
    )


def microseconds(function: Callable, encoded: bytes) -> float:
    """Returns the time of all cores for one image."""
    batches = iter(batches_of(function, encoded))
    for _ in range(3):  # the first ones instantiate the graph
        next(batches)
    begin = time.process_time()
    for _ in range(FLAGS.repeats):
        next(batches)
    return 1e6 * (time.process_time() - begin) / FLAGS.repeats / _BATCH


def start_milliseconds(function: Callable, encoded: bytes) -> float:
    """Returns the time of all cores until the first image is decoded."""
    dataset = batches_of(function, encoded).unbatch().batch(1)
    seconds = []
    for _ in range(4):
        begin = time.process_time()
        next(iter(dataset))
        seconds.append(time.process_time() - begin)
    return 1e3 * min(seconds)


def nodes(function: Callable) -> int:
    """Returns how many nodes a graph has, with those of its functions."""
    signature = [tf.TensorSpec([], tf.string)]
    traced = tf.function(function, signature, autograph=False)
    graph = traced.get_concrete_function().graph.as_graph_def()
    functions = graph.library.function
    return len(graph.node) + sum(len(one.node_def) for one in functions)


def measure() -> dict[str, dict[str, float]]:
    """Returns the figures of each file, and under "nodes" those of the graph.

    Pixels are not taken out of the pipeline: copying them costs time.
    """
    decode, header = of_sare_tf()

    def decoded_shape(encoded: tf.Tensor) -> tf.Tensor:
        return tf.shape(decode(encoded))

    figures = {
        name: {
            "bare": microseconds(bare, encoded),
            "decode": microseconds(decoded_shape, encoded),
            "header": microseconds(header, encoded),
            "start": start_milliseconds(decoded_shape, encoded),
        }
        for name, encoded in files().items()
    }
    return {**figures, "nodes": {"decode": nodes(decode)}}


def measured_by(code: Path) -> dict[str, dict[str, float]]:
    """Returns what `measure` does with the code in a folder."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(code),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    process = subprocess.run(
        [sys.executable, __file__, "--one_side", f"--repeats={FLAGS.repeats}"],
        env=environment,
        cwd=code,
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(process.stdout)


def row(name: str, now: list, earlier: list) -> str:
    """Returns the line of a file in the table, of the turns of both sides."""

    def of(turns: list, figure: str) -> str:
        return f"{statistics.median(turn[name][figure] for turn in turns):.0f}"

    def times_bare(turns: list) -> str:
        ratios = (turn[name]["decode"] / turn[name]["bare"] for turn in turns)
        return f"{statistics.median(ratios):.2f}"

    cells = [of(now, "bare"), of(now, "decode"), times_bare(now)]
    cells += [of(now, "header"), of(now, "start")]
    if earlier:
        ratios = (
            one[name]["decode"] / other[name]["decode"]
            for one, other in zip(now, earlier, strict=True)
        )
        cells += [of(earlier, "decode"), times_bare(earlier)]
        cells += [of(earlier, "header"), of(earlier, "start")]
        cells.append(f"{statistics.median(ratios):.2f}")
    return f"| {name} | {' | '.join(cells)} |"


def main(argv):
    del argv
    if FLAGS.one_side:
        print(json.dumps(measure()))
        return
    now, earlier = [], []
    for _ in range(FLAGS.turns):
        now.append(measured_by(_ROOT))
        if FLAGS.earlier:
            earlier.append(measured_by(Path(FLAGS.earlier).resolve()))
    sides = filter(None, (now, earlier))
    counts = [str(turns[0]["nodes"]["decode"]) for turns in sides]
    print(f"Nodes of the graph of decoding: {', earlier '.join(counts)}.\n")
    columns = ["file", "bare", "decode", "times bare", "header", "start ms"]
    if earlier:
        columns += ["earlier: decode", "times bare", "header", "start ms"]
        columns.append("decode, times earlier")
    print(f"| {' | '.join(columns)} |")
    print(f"|---|{'---:|' * (len(columns) - 1)}")
    for name in now[0]:
        if name != "nodes":
            print(row(name, now, earlier))


if __name__ == "__main__":
    app.run(main)
