"""Elements of a dataset that the service of tf.data runs, and ticks between.

A service that has nothing to send leaves its client waiting without end in
TensorFlow, where nothing can interrupt it. A tick every `TICK_S` lets the
client look at the clock.
"""

import time
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from sare_tf.runtime import tfdata_threads

TICK_S = 0.25
_SERVICE = tf.data.experimental.service


def elements_and_ticks(
    address: str,
    dataset: tf.data.Dataset,
    element: tf.TensorSpec | tuple[tf.TensorSpec, ...],
    *,
    policy: tf.data.experimental.service.ShardingPolicy,
) -> Iterator[tuple]:
    """Yields (False, *element) as they come, and (True, ...) at each tick.

    It has no end. Whoever stops reading it ends the work of the service for it.

    Args:
        address: address of the dispatcher.
        dataset: what workers run.
        element: specification of an element of the dataset.
        policy: how elements are divided among the workers.
    """
    number = _SERVICE.register_dataset(address, dataset, compression=None)
    elements = _SERVICE.from_dataset_id(
        policy, address, number, element_spec=element
    )

    def flat(*parts: tf.Tensor) -> tuple:
        return (tf.constant(False), *parts)

    def tick(_: tf.Tensor) -> tuple:
        waited = tf.numpy_function(_sleep, [], tf.bool)
        specs = tf.nest.flatten(element)
        nothing = [
            tf.zeros([size or 0 for size in spec.shape], spec.dtype)
            if spec.dtype != tf.string
            else tf.constant("")
            for spec in specs
        ]
        return (tf.ensure_shape(waited, []), *nothing)

    def source(which: tf.Tensor) -> tf.data.Dataset:
        """Returns the elements (0) or ticks without end (1)."""
        all_or_none = [tf.where(which == n, np.int64(-1), 0) for n in (0, 1)]
        return (
            elements.map(flat)
            .take(all_or_none[0])
            .concatenate(ticks.take(all_or_none[1]))
        )

    ticks = tf.data.Dataset.range(1).repeat().map(tick)
    yield from tfdata_threads.fixed(
        tf.data.Dataset.range(2).interleave(
            source,
            cycle_length=2,
            num_parallel_calls=2,
            # Whatever comes first.
            deterministic=False,
        )
    )


def _sleep() -> np.bool_:
    time.sleep(TICK_S)
    return np.bool_(True)
