"""Threads of tf.data: a fixed number, not tuned while a dataset runs.

Our datasets are one map from names to images, which may use all cores, so there
is nothing to tune. And tuning costs time: its thread sleeps for 10 ms, 20 ms
and so on up to a minute, and an iterator that ends may have to wait for it to
wake. Over the batches of an epoch that took up to as long as the epoch itself
(measured with TensorFlow 2.20).

Nor does tf.data divide our datasets among workers: they are given their parts.
For `MirroredStrategy`, which has one worker, looking for files to divide took
5 s for each new dataset in place of 0.4 s.
"""

import os

import tensorflow as tf

try:
    CORES = len(os.sched_getaffinity(0))
except AttributeError:  # not on every system
    CORES = os.cpu_count() or 1

# Twice the cores, since threads wait for files and memory. Ours.
THREADS = 2 * CORES


def fixed(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the dataset with `THREADS` threads of its own, without tuning.

    tf.distribute does not shard it. The settings apply to every dataset derived
    from it. Maps must be given `num_parallel_calls=THREADS`.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = THREADS
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    return dataset.with_options(options)
