"""Compares a batch of places in chunks and all at once: time and peak memory.

    python -m benchmarks.gradcache

All rows train the same network on the same batch of places with SARE. The
benchmark first checks on a small batch that they reach the same weights.

Each row is measured in a process of its own, in the compiled step of Keras's
`fit`. A step of a few tiny images comes first, and starts thread pools and
kernels. Peak memory is the largest resident set during the next step, less the
resident set before it, with the batch, the weights and the optimizer. Time is
the median of the steps after that.
"""

import keras
import numpy as np
from absl import app, flags

from benchmarks import measure
from sare_tf import losses, model
from sare_tf.training.place_network import PlaceNetwork

FLAGS = flags.FLAGS
flags.DEFINE_integer("images", 512, "Images of a batch, two of each place.", 4)
flags.DEFINE_integer("height", 120, "Rows of an image.", 16)
flags.DEFINE_integer("width", 160, "Columns of an image.", 16)
flags.DEFINE_string("backbone", "small", "--backbone of sare_tf.train.")
flags.DEFINE_multi_integer("chunk_images", [0, 64, 16], "Rows; 0: all at once.")
flags.DEFINE_integer("repeats", 3, "Timed steps.", 1)


def network(backbone, chunk_images):
    """Builds a network to train, with the same weights each time."""
    keras.utils.set_random_seed(0)
    trained = PlaceNetwork(
        model.build_embedder(backbone=backbone, num_clusters=16),
        chunk_images=chunk_images,
    )
    trained.compile(
        keras.optimizers.SGD(0.1), losses.PlaceSARELoss(inverse_bandwidth=5.0)
    )
    trained.optimizer.build(trained.trainable_variables)
    return trained


def batch(images, height, width):
    """Draws noise, and labels of places with two images each."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, height, width, 3), dtype=np.uint8)
    return pixels, np.arange(images) // 2


def measure_row(backbone, chunk_images, images, height, width, repeats):
    """Measures one row of the table in this process.

    Returns:
        Median seconds of a step, and peak bytes.
    """
    trained = network(backbone, chunk_images)
    trained.train_on_batch(*batch(chunk_images or 4, 32, 32))
    data = batch(images, height, width)
    before = measure.resident_bytes()
    measure.reset_peak()
    trained.train_on_batch(*data)
    peak_bytes = measure.peak_bytes() - before
    seconds = measure.median_seconds(
        lambda: trained.train_on_batch(*data), repeats=repeats
    )
    return seconds, peak_bytes


def largest_difference(backbone):
    """Compares weights after a step of 8 images, at once and 2 at a time."""
    weights = []
    for chunk_images in (0, 2):
        trained = network(backbone, chunk_images)
        trained.train_on_batch(*batch(8, 32, 32))
        weights.append(trained.get_weights())
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
        seconds, peak_bytes = measure.in_a_process(
            measure_row, FLAGS.backbone, chunk_images, *size, FLAGS.repeats
        )
        print(
            f"| {chunk_images or FLAGS.images} | {seconds:.2f} s "
            f"| {peak_bytes / measure.MEBIBYTE:.0f} MiB |",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
