"""Batches of places in chunks beside all at once: time and peak memory.

    python -m benchmarks.gradcache

All train the same network on the same batch of places with SARE. That they
come to the same weights is checked first, on a small batch.

Each row is measured in a process of its own, in the compiled step of Keras's
`fit`. Peak memory is the largest resident set during the measured step (VmHWM
of Linux, set back just before) less the resident set before it, when the
batch, the weights and the optimizer were there. A step of a few tiny images
goes before, which starts thread pools and kernels. Time is the median of the
steps after the measured one.
"""

import concurrent.futures
import multiprocessing
import statistics
import time

import keras
import numpy as np
from absl import app, flags

from sare_tf import losses, model
from sare_tf.training.place_network import PlaceNetwork

FLAGS = flags.FLAGS
flags.DEFINE_integer("images", 512, "B, two of each place.", 4)
flags.DEFINE_integer("height", 120, "Rows of an image.", 16)
flags.DEFINE_integer("width", 160, "Columns of an image.", 16)
flags.DEFINE_string("backbone", "small", "As of sare_tf.train.")
flags.DEFINE_multi_integer("chunk_images", [0, 64, 16], "0: all at once.")
flags.DEFINE_integer("repeats", 3, "Steps that are timed.", 1)

_MEBIBYTE = 2**20


def network(backbone, chunk_images):
    """A network to train, with the same weights each time."""
    keras.utils.set_random_seed(0)
    made = PlaceNetwork(
        model.build_embedder(backbone=backbone, num_clusters=16),
        chunk_images=chunk_images,
    )
    made.compile(
        keras.optimizers.SGD(0.1), losses.PlaceSARELoss(inverse_bandwidth=5.0)
    )
    made.optimizer.build(made.trainable_variables)
    return made


def batch(images, height, width):
    """Noise, and labels of places with two images each."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, height, width, 3), dtype=np.uint8)
    return pixels, np.arange(images) // 2


def measure(backbone, chunk_images, images, height, width, repeats):
    """Measures one row of the table in this process.

    Returns:
        Median seconds of a step, and peak bytes.
    """
    made = network(backbone, chunk_images)
    made.train_on_batch(*batch(chunk_images or 4, 32, 32))
    data = batch(images, height, width)
    before = _resident_bytes("VmRSS")
    with open("/proc/self/clear_refs", "w", encoding="ascii") as clear:
        clear.write("5")  # VmHWM is VmRSS again
    made.train_on_batch(*data)
    peak_bytes = _resident_bytes("VmHWM") - before
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        made.train_on_batch(*data)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds), peak_bytes


def _resident_bytes(name):
    with open("/proc/self/status", encoding="ascii") as status:
        values = dict(line.split(":", 1) for line in status)
    return 1024 * int(values[name].split()[0])


def largest_difference(backbone):
    """Of the weights after a step of 8 images, at once and 2 at a time."""
    weights = []
    for chunk_images in (0, 2):
        made = network(backbone, chunk_images)
        made.train_on_batch(*batch(8, 32, 32))
        weights.append(made.get_weights())
    return max(
        float(np.abs(a - b).max()) for a, b in zip(*weights, strict=True)
    )


def main(argv):
    """Prints a row per size of chunk."""
    del argv
    size = (FLAGS.images, FLAGS.height, FLAGS.width)
    print(
        f"{FLAGS.backbone}, NetVLAD, {FLAGS.images} images of {FLAGS.height} x "
        f"{FLAGS.width} pixels. Largest difference of the weights after a "
        f"step: {largest_difference(FLAGS.backbone):.0e}.\n"
    )
    print("| images at a time | step | peak memory |")
    print("|---:|---:|---:|")
    for chunk_images in FLAGS.chunk_images:
        with concurrent.futures.ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn")
        ) as process:
            seconds, peak_bytes = process.submit(
                measure, FLAGS.backbone, chunk_images, *size, FLAGS.repeats
            ).result()
        print(
            f"| {chunk_images or FLAGS.images} | {seconds:.2f} s "
            f"| {peak_bytes / _MEBIBYTE:.0f} MiB |",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
