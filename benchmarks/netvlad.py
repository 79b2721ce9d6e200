"""Compares NetVLAD with its straightforward form: time and peak memory.

    python -m benchmarks.netvlad

The straightforward form makes the residuals of all locations to all centres,
one tensor [B, L, K, C], and sums them weighted by the assignments. The
benchmark first checks that both forms compute the same.

Each row is measured in a process of its own, in a compiled graph, as training
and the exported model run it. A pass over tiny feature maps comes first, and
starts thread pools and kernels. Peak memory is the largest resident set during
the next pass, less the resident set before the feature maps were made: it holds
the feature maps and everything computed from them, but no library and no
weight. Time is the median of the passes after that.
"""

import numpy as np
import tensorflow as tf
from absl import app, flags

from benchmarks import measure
from sare_tf.model.netvlad import netvlad

FLAGS = flags.FLAGS
flags.DEFINE_integer("images", 12, "B.", 1)
flags.DEFINE_integer("height", 30, "Rows of a feature map.", 1)
flags.DEFINE_integer("width", 40, "Columns of a feature map.", 1)
flags.DEFINE_integer("channels", 512, "C.", 1)
flags.DEFINE_integer("clusters", 64, "K.", 2)
flags.DEFINE_integer("repeats", 5, "Passes that are timed.", 1)


def straightforward(features, assignment, centres):
    """Computes the formula as written, with the residuals as one tensor."""
    shape = tf.shape(features)
    features = tf.reshape(features, (shape[0], -1, features.shape[-1]))
    features = _unit_length(features)
    weights = tf.nn.softmax(features @ assignment)  # [B, L, K]
    residuals = features[:, :, None] - centres  # [B, L, K, C]
    sums = tf.reduce_sum(weights[..., None] * residuals, axis=1)  # [B, K, C]
    return _unit_length(tf.reshape(_unit_length(sums), (shape[0], -1)))


def _unit_length(x):
    squares = tf.reduce_sum(tf.square(x), axis=-1, keepdims=True)
    return x * tf.math.rsqrt(squares + 1e-12)


FORMS = {"straightforward": straightforward, "sare_tf": netvlad}
PASSES = ("forward", "forward and backward")


def measure_row(form, which, shape, clusters, repeats):
    """Measures one row of the table in this process.

    Args:
        form: a name in `FORMS`.
        which: a name in `PASSES`.
        shape: of the feature maps, (B, H, W, C).
        clusters: K.
        repeats: passes that are timed.

    Returns:
        Median seconds of a pass, and peak bytes.
    """
    channels = shape[-1]
    assignment, centres = weights(channels, clusters)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, channels))])
    def step(features):
        if which == "forward":
            return FORMS[form](features, assignment, centres)
        with tf.GradientTape() as tape:
            tape.watch(features)
            descriptors = FORMS[form](features, assignment, centres)
            # The sum of all squares would be constant.
            objective = tf.reduce_sum(descriptors[:, ::3])
        return tape.gradient(objective, [features, assignment, centres])

    step(tf.random.normal((1, 4, 4, channels)))
    before = measure.resident_bytes()
    # tf.random.normal makes copies.
    features = tf.raw_ops.RandomStandardNormal(shape=shape, dtype=tf.float32)
    measure.reset_peak()
    step(features)
    peak_bytes = measure.peak_bytes() - before
    seconds = measure.median_seconds(lambda: step(features), repeats=repeats)
    return seconds, peak_bytes


def weights(channels, clusters):
    """Draws weights of usual size, [C, K] and [K, C]."""
    rng = np.random.default_rng(0)
    assignment = rng.normal(size=(channels, clusters))
    centres = rng.normal(size=(clusters, channels)) / np.sqrt(channels)
    return (tf.Variable(x.astype(np.float32)) for x in (assignment, centres))


def largest_difference():
    """Compares the descriptors of the two forms on small feature maps."""
    features = tf.random.normal((2, 5, 7, 16), seed=1)
    by_form = [form(features, *weights(16, 6)) for form in FORMS.values()]
    return float(tf.reduce_max(tf.abs(by_form[0] - by_form[1])))


def main(argv):
    del argv
    shape = (FLAGS.images, FLAGS.height, FLAGS.width, FLAGS.channels)
    locations = FLAGS.images * FLAGS.height * FLAGS.width
    floor = 4 * (
        locations * FLAGS.channels
        + locations * FLAGS.clusters
        + FLAGS.images * FLAGS.clusters * FLAGS.channels
    )
    print(
        f"Feature maps {shape}, K = {FLAGS.clusters}. Input, assignments and "
        f"output: {floor / measure.MEBIBYTE:.1f} MiB. Largest difference of "
        f"the descriptors of the two forms: {largest_difference():.0e}.\n"
    )
    print("| pass | form | time | peak memory | of in + assigned + out |")
    print("|---|---|---|---|---|")
    for which in PASSES:
        for form in FORMS:
            seconds, peak_bytes = measure.in_a_process(
                measure_row, form, which, shape, FLAGS.clusters, FLAGS.repeats
            )
            print(
                f"| {which} | {form} | {1000 * seconds:.0f} ms "
                f"| {peak_bytes / measure.MEBIBYTE:.0f} MiB "
                f"| {peak_bytes / floor:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
