"""Measures every backbone and head: parameters, descriptor, time per image.

    python -m benchmarks.networks
    python -m benchmarks.networks --backbones=dinov2_vitb14 --heads=salad

Networks have random weights and run as `export` exports them. A backbone's row
has the time of one image with GeM, in batches of --batch; a head's row has the
time of the head alone, on maps of --head_channels channels from images of the
last of --sizes. Times are those of all cores, which depend least on other work.
docs/networks.md has these numbers.
"""

import time

import numpy as np
import tensorflow as tf
from absl import app, flags

from sare_tf import model
from sare_tf.model.embedder import make_aggregation
from sare_tf.model.exported_graph import ExportedGraph
from sare_tf.model.registry import (
    AGGREGATIONS,
    BACKBONES,
    WITH_CLASS_TOKEN,
    WITH_CLUSTERS,
)

FLAGS = flags.FLAGS
flags.DEFINE_list("backbones", list(BACKBONES), "Backbones.")
flags.DEFINE_list("heads", list(AGGREGATIONS), "Heads.")
flags.DEFINE_list("sizes", ["224", "322"], "Rows and columns of the images.")
flags.DEFINE_list("precisions", ["float32", "mixed_bfloat16"], "Precisions.")
flags.DEFINE_integer("batch", 8, "Images of a call.", 1)
flags.DEFINE_integer("repeats", 5, "Calls of each row.", 1)
flags.DEFINE_integer("head_channels", 768, "Channels of the heads' maps.", 1)

_PATCH = 14


def milliseconds(call):
    """Returns the least time of all cores for an image, in milliseconds."""
    call()
    seconds = []
    for _ in range(FLAGS.repeats):
        begin = time.process_time()
        call()
        seconds.append(time.process_time() - begin)
    return 1000 * min(seconds) / FLAGS.batch


def backbone_row(name):
    """Returns the cells of a backbone."""
    embedder = model.build_embedder(backbone=name, aggregation="gem")
    backbone = embedder.get_layer("backbone")
    cells = [f"{backbone.count_params():,}", f"{embedder.output_shape[-1]:,}"]
    for precision in FLAGS.precisions:
        network = embedder
        if precision != "float32":
            network = model.with_precision(embedder, precision)
        for size in map(int, FLAGS.sizes):
            graph = ExportedGraph(embedder=network, height=size, width=size)
            embed = tf.function(graph.embed)
            rng = np.random.default_rng(0)
            shape = (FLAGS.batch, size, size, 3)
            images = tf.constant(np.float32(rng.integers(0, 256, shape)))

            def call(embed=embed, images=images):
                return embed(images)["descriptor"].numpy()

            cells.append(f"{milliseconds(call):.1f}")
    return cells


def head_row(name):
    """Returns the cells of a head."""
    side, channels = int(FLAGS.sizes[-1]) // _PATCH, FLAGS.head_channels
    settings = {"num_clusters": 64} if name in WITH_CLUSTERS else {}
    head = make_aggregation(name, **settings)
    rng = np.random.default_rng(0)
    shape = (FLAGS.batch, side, side, channels)
    inputs = [tf.constant(np.float32(rng.normal(size=shape)))]
    if name in WITH_CLASS_TOKEN:
        inputs.append(tf.constant(np.float32(rng.normal(size=shape[::3]))))
    length = head(*inputs).shape[-1]
    compute = tf.function(head)
    ms = milliseconds(lambda: compute(*inputs).numpy())
    return [f"{head.count_params():,}", f"{length:,}", f"{ms:.1f}"]


def main(argv):
    del argv
    columns = [
        f"core ms at {size}, {precision}"
        for precision in FLAGS.precisions
        for size in FLAGS.sizes
    ]
    if FLAGS.backbones:
        print(
            f"Batches of {FLAGS.batch}.\n\n| backbone | parameters | channels "
            + "".join(f"| {column} " for column in columns)
            + "|\n|---|---:|---:|"
            + "---:|" * len(columns)
        )
    for name in FLAGS.backbones:
        print(f"| {name} | {' | '.join(backbone_row(name))} |", flush=True)
    if FLAGS.heads:
        print(
            "\n| head | parameters | descriptor | core ms |\n"
            "|---|---:|---:|---:|"
        )
    for name in FLAGS.heads:
        print(f"| {name} | {' | '.join(head_row(name))} |", flush=True)


if __name__ == "__main__":
    app.run(main)
