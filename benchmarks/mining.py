"""Compares mining with the matrix products it needs: time and peak memory.

    python -m benchmarks.mining

The cache has the size of Pittsburgh 30k's training split with VGG16 and
NetVLAD. "Bare products" are only the products of all queries with the whole
database, in the blocks that mining takes, as `tf.matmul` returns them. Both
cast float16 to float32 on the device. Mining has a pool of 1,000 and of the
whole database, with 10 negatives, 10 remembered ones, 48 potential positives
and 96 images of the same place per query.

Each type of cache is measured in a process of its own. Small products come
first, and start thread pools. Peak memory is the largest resident set during a
row, less the resident set before the cache was made: it holds the cache and
everything beside it, but no library. The repeats take turns, and the least
seconds count: by the clock, and of all cores, which other work on the machine
lengthens less.
"""

import time

import numpy as np
import tensorflow as tf
from absl import app, flags

from benchmarks import measure
from sare_tf.training import hard_negatives

FLAGS = flags.FLAGS
flags.DEFINE_integer("queries", 7416, "Rows of the cache that are queries.", 1)
flags.DEFINE_integer("database", 10000, "Rows that are database images.", 1200)
flags.DEFINE_integer("dimension", 32768, "Numbers of a descriptor.", 2)
flags.DEFINE_integer("repeats", 2, "Passes of each row.", 1)

_ROWS = ("bare products", "pool of 1,000", "whole database")


def measure_cache(dtype, num_queries, database_size, dimension, repeats):
    """Measures the rows of one type of cache in this process.

    Returns:
        Bytes of the cache; and for each row the least seconds by the clock,
        the least seconds of all cores, and the peak bytes.
    """
    _products(*(np.ones((2, 64), dtype),) * 2)
    before = measure.resident_bytes()
    queries = _cache(num_queries, dimension, dtype, seed=0)
    database = _cache(database_size, dimension, dtype, seed=1)
    rng = np.random.default_rng(2)
    same = [
        np.sort(rng.choice(database_size, 96, replace=False))
        for _ in range(num_queries)
    ]
    positives = [rows[::2] for rows in same]

    def mine(negative_pool):
        hard_negatives.mine(
            queries,
            database,
            queries=np.arange(num_queries),
            candidates=hard_negatives.Candidates(positives, same),
            negative_pool=negative_pool,
            remembered=remembered,
            seed=0,
        )

    remembered = np.full((num_queries, 10), -1)
    calls = (
        lambda: _products(queries, database),
        lambda: mine(1000),
        lambda: mine(0),
    )
    measured = np.empty((repeats, len(calls), 3))
    for turn in range(repeats):
        for row, call in enumerate(calls):
            measure.reset_peak()
            begin, begin_cores = time.perf_counter(), time.process_time()
            call()
            measured[turn, row] = (
                time.perf_counter() - begin,
                time.process_time() - begin_cores,
                measure.peak_bytes() - before,
            )
    rows = np.column_stack(
        [measured[:, :, :2].min(0), measured[:, :, 2].max(0)]
    )
    return queries.nbytes + database.nbytes, rows.tolist()


def _products(queries, database):
    """Computes all products in the blocks of `hard_negatives.mine`."""
    for start in range(0, len(queries), hard_negatives.QUERY_BLOCK):
        block = tf.constant(queries[start : start + hard_negatives.QUERY_BLOCK])
        block = tf.cast(block, tf.float32)
        for first in range(0, len(database), hard_negatives.DATABASE_BLOCK):
            rows = tf.constant(
                database[first : first + hard_negatives.DATABASE_BLOCK]
            )
            rows = tf.cast(rows, tf.float32)
            tf.matmul(block, rows, transpose_b=True).numpy()


def _cache(count, dimension, dtype, *, seed):
    """Draws descriptors of unit length."""
    rng = np.random.default_rng(seed)
    cache = np.empty((count, dimension), dtype)
    for start in range(0, count, 256):
        rows = cache[start : start + 256]
        values = rng.random(rows.shape, np.float32) - 0.5
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        rows[:] = values
    return cache


def main(argv):
    del argv
    print(
        f"{FLAGS.queries} queries, {FLAGS.database} database images, "
        f"{FLAGS.dimension} numbers each.\n\n"
        "| cache | | seconds | times bare | core seconds | times bare "
        "| peak GB | times cache |\n|---|---|---|---|---|---|---|---|"
    )
    for dtype in ("float32", "float16"):
        size, rows = measure.in_a_process(
            measure_cache,
            dtype,
            FLAGS.queries,
            FLAGS.database,
            FLAGS.dimension,
            FLAGS.repeats,
        )
        bare_s, bare_core_s, _ = rows[0]
        for name, (seconds, core_s, peak) in zip(_ROWS, rows, strict=True):
            print(
                f"| {dtype}, {size / 1e9:.2f} GB | {name} "
                f"| {seconds:.1f} | {seconds / bare_s:.2f} "
                f"| {core_s:.1f} | {core_s / bare_core_s:.2f} "
                f"| {peak / 1e9:.2f} | {peak / size:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
