"""How tf.data shares work among the cores: fixed, not tuned while it runs.

Work here is one map from names to images that may have all cores, so there is
nothing to tune. And tuning costs: its thread sleeps for 10 ms, 20 ms and so on
up to a minute, and an iterator that ends waits for it to wake, whenever that
thread has not seen the end in time. With the batches of an epoch that was up to
as long again as the epoch itself (TensorFlow 2.20).
"""

import os

import tensorflow as tf

try:
    CORES = len(os.sched_getaffinity(0))
except AttributeError:  # not on every system
    CORES = os.cpu_count() or 1

# Some wait, for what they called or for memory, while others work.
THREADS = 2 * CORES


def fixed(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset, run by `THREADS` of its own and without tuning.

    So is all that is made of it. Maps are to say `num_parallel_calls=THREADS`.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = THREADS
    return dataset.with_options(options)
