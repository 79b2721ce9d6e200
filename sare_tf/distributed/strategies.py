"""Training on several replicas: strategies, and what they refuse.

A replica is a device that computes a part of each batch; the parts come to the
same training as the whole batch on one device. Batch sizes are those of the
whole batch, over all replicas.

    none          one device
    mirrored      all GPUs of this machine, or else its logical CPU devices
    multi_worker  all GPUs of several machines, each of which runs the same
                  command with its own TF_CONFIG, see `worker_loop`

Keras trains on one device and on several of one machine; on several machines
its `fit` fails, so that `worker_loop` takes its place.
"""

import json
import os
from collections.abc import Callable, Sequence

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging

from sare_tf.distributed import workers

STRATEGIES = ("none", "mirrored", "multi_worker")


def make(name: str) -> tf.distribute.Strategy:
    """Makes the strategy of a name, before anything else of TensorFlow.

    Args:
        name: in `STRATEGIES`.

    Returns:
        The strategy, in whose scope the network is made.

    Raises:
        ValueError: unknown name, or a TF_CONFIG that does not fit.
    """
    if name not in STRATEGIES:
        raise ValueError(
            f"Expected strategy to be one of {list(STRATEGIES)}. "
            f"Received: strategy={name!r}."
        )
    if name == "multi_worker":
        addresses = _workers(os.environ.get("TF_CONFIG", ""))
        return workers.start(addresses)
    gpus = len(tf.config.list_physical_devices("GPU"))
    if name == "none":
        if gpus > 1:
            logging.warning(
                "Training on one of %d GPUs: --strategy=mirrored takes all.",
                gpus,
            )
        return tf.distribute.get_strategy()
    kind = "GPU" if gpus else "CPU"
    devices = tf.config.list_logical_devices(kind)
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def check_batch(
    strategy: tf.distribute.Strategy, *, size: int, what: str
) -> None:
    """Refuses a batch that replicas do not divide.

    Args:
        strategy: of the training.
        size: of the whole batch.
        what: of what it is, with the flags that say so.

    Raises:
        ValueError: replicas would get unequal parts.
    """
    replicas = strategy.num_replicas_in_sync
    if size % replicas:
        raise ValueError(
            f"Expected a batch that {replicas} replicas divide. Received: "
            f"{size} {what}."
        )


def check_network(network: keras.Model) -> None:
    """Refuses settings that Keras gets wrong on several replicas.

    Args:
        network: compiled.

    Raises:
        ValueError: names the setting, and what to use instead.
    """
    if network.distribute_strategy.num_replicas_in_sync == 1:
        return
    optimizer = network.optimizer
    refused = {
        "jit_compile=True, with which Keras fails": network.jit_compile is True,
        f"steps_per_execution={network.steps_per_execution}, with which Keras "
        "fails": network.steps_per_execution != 1,
        "an optimizer with gradient_accumulation_steps="
        f"{optimizer.gradient_accumulation_steps}, with which Keras fails. "
        "Raise the batch, with chunk_images for places": bool(
            optimizer.gradient_accumulation_steps
        ),
        "an optimizer with global_clipnorm, which Keras takes of each replica "
        "alone. Use clipvalue, or a smaller rate": bool(
            optimizer.global_clipnorm
        ),
        "an optimizer with clipnorm, which Keras takes of each replica alone. "
        "Use clipvalue, or a smaller rate": bool(optimizer.clipnorm),
        "mixed_float16, whose loss scale Keras takes from the first replica "
        "alone. Use mixed_bfloat16": isinstance(
            optimizer, keras.optimizers.LossScaleOptimizer
        ),
    }
    for setting, found in refused.items():
        if found:
            raise ValueError(
                "Expected settings that several replicas can train with. "
                f"Received: {setting}."
            )


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes what is kept."""
    return workers.part(strategy)[0] == 0


def fit(network: keras.Model, dataset: tf.data.Dataset, **options):
    """Keras's `fit`, or what takes its place on several machines.

    Args:
        network: compiled and built.
        dataset: this worker's part of the batches.
        **options: of `fit`.

    Returns:
        The history.
    """
    if workers.is_used(network.distribute_strategy):
        return workers.fit(network, dataset, **options)
    return network.fit(dataset, **options)


def predict(
    embedder: keras.Model,
    rows: pd.DataFrame,
    dataset_of: Callable[[pd.DataFrame, int], tf.data.Dataset],
    *,
    batch_size: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> np.ndarray:
    """Keras's `predict` of the images of rows, shared by all replicas.

    A replica without an image fails, and so does a first batch in unequal
    parts: the last row is repeated until there are full batches.

    Args:
        embedder: [B, H, W, 3] -> [B, D].
        rows: of a manifest.
        dataset_of: makes the dataset of rows with a batch size.
        batch_size: images embedded at a time, by all replicas together.
        callbacks: of `predict`; left out on several machines.

    Returns:
        Descriptors [len(rows), D], on all workers the same.
    """
    strategy = embedder.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    if replicas > 1:
        # As few batches as with batch_size, and as little to repeat.
        batches = -(-len(rows) // batch_size)
        batch_size = replicas * -(-len(rows) // (batches * replicas))
        missing = -len(rows) % batch_size
        padded = rows.iloc[[*range(len(rows)), *[-1] * missing]]
    else:
        padded = rows
    if workers.is_used(strategy):
        index, count = workers.part(strategy)
        own = np.arange(len(padded)).reshape(-1, count, batch_size // count)
        found = workers.predict(
            embedder,
            dataset_of(
                padded.iloc[own[:, index].reshape(-1)], batch_size // count
            ),
        )
    else:
        found = embedder.predict(
            dataset_of(padded, batch_size), verbose=0, callbacks=callbacks
        )
    return found[: len(rows)]


def _workers(text: str) -> list[str]:
    """Addresses in a TF_CONFIG; refuses one that is not of a worker."""
    example = (
        'Set it to {"cluster": {"worker": ["host0:12345", "host1:12345"]}, '
        '"task": {"type": "worker", "index": 0}}, with another index on each '
        "worker."
    )
    try:
        config = json.loads(text)
        workers = config["cluster"]["worker"]
        kind, index = config["task"]["type"], config["task"]["index"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected TF_CONFIG in the environment, with a cluster of workers "
            f"and a task. Received: TF_CONFIG={text!r}. {example}"
        ) from error
    if kind != "worker" or index not in range(len(workers)):
        raise ValueError(
            f"Expected a task of type worker with an index below "
            f"{len(workers)}. Received: TF_CONFIG={text!r}. {example}"
        )
    return workers
