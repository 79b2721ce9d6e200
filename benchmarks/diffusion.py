"""Diffusion of a query, online and by stored columns: time and order.

    python -m benchmarks.diffusion

Clustered vectors (`benchmarks.search`, which has the other flags). Seconds of
the offline part are those of all images. Milliseconds of a query are medians of
the processor's time of this process: online, 20 steps of conjugate gradients on
the nearest --top images; offline, the sum of the columns of the first 10. The
last column is the share of a query's first 10 images that both put there.
"""

import statistics
import time

import numpy as np
from absl import app, flags, logging

from benchmarks.search import descriptors
from sare_tf.landmarks import neighbour_graph, offline_diffusion
from sare_tf.landmarks.diffusion import Diffusion
from sare_tf.landmarks.offline_diffusion import Columns, OfflineDiffusion
from sare_tf.search import exact_search

FLAGS = flags.FLAGS
flags.DEFINE_string("size", "2000x128", "Rows x dimension.")
flags.DEFINE_integer("top", 1000, "Images that are ranked anew.", 2)

_NEIGHBOURS, _START, _FIRST = 50, 10, 10
_NUMBERS = {"gamma": 3.0, "alpha": 0.99}


def main(argv):
    del argv
    logging.set_verbosity(logging.WARNING)
    count, dimension = map(int, FLAGS.size.split("x"))
    rows = descriptors(count + FLAGS.queries, dimension, FLAGS.spread)
    database, queries = rows[:count], rows[count:]
    graph = neighbour_graph.build(database, _NEIGHBOURS)
    size = (count, min(FLAGS.top, count))
    columns = Columns(np.empty(size, np.int32), np.empty(size, np.float32))
    began = time.process_time()
    offline_diffusion.fill(columns, database, graph, **_NUMBERS)
    filled = time.process_time() - began
    gamma = _NUMBERS["gamma"]
    ways = {
        "online": Diffusion(graph, start=_START, **_NUMBERS),
        "offline": OfflineDiffusion(columns, gamma=gamma, start=_START),
    }
    near, squared = exact_search.nearest(queries, database, size[1])
    orders, times = {}, {}
    for name, way in ways.items():
        orders[name], times[name] = [], []
        for query, far in zip(near, squared, strict=True):
            began = time.process_time()
            scores = way(query, 1 - far.astype(np.float64) / 2)
            times[name].append(1000 * (time.process_time() - began))
            orders[name].append(query[np.argsort(scores, kind="stable")])
    shared = [
        len(set(one[:_FIRST]) & set(other[:_FIRST])) / _FIRST
        for one, other in zip(*orders.values(), strict=True)
    ]
    print(
        "| images | ranked anew | offline part, s | MiB stored | online, ms a "
        "query | offline, ms a query | first 10 shared |\n"
        "|---:|---:|---:|---:|---:|---:|---:|\n"
        f"| {count:,} x {dimension} | {size[1]:,} | {filled:.1f} | "
        f"{8 * size[0] * size[1] / 2**20:.1f} | "
        f"{statistics.median(times['online']):.2f} | "
        f"{statistics.median(times['offline']):.2f} | "
        f"{np.mean(shared):.2f} |"
    )


if __name__ == "__main__":
    app.run(main)
