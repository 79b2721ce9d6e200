"""Training on several replicas: strategies, and the settings they refuse.

A replica is a device that computes its part of each batch. Training is the same
as with the whole batch on one device. Batch sizes are those of the whole batch,
over all replicas.

    none          one device
    mirrored      all GPUs of this machine, or else its logical CPU devices
    multi_worker  all GPUs of several machines; each machine runs the same
                  command with its own TF_CONFIG, see `workers`

Keras trains on one device, and on several devices of one machine. Its `fit`
fails on several machines, where `workers` takes its place.
"""

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging

from sare_tf.distributed import workers

STRATEGIES = ("none", "mirrored", "multi_worker")


def make(name: str) -> tf.distribute.Strategy:
    """Makes a strategy by name. Call it before anything else of TensorFlow.

    Args:
        name: in `STRATEGIES`.

    Returns:
        The strategy; the network must be made in its scope.

    Raises:
        ValueError: an unknown name, or a TF_CONFIG that is not of a worker.
    """
    if name not in STRATEGIES:
        raise ValueError(
            f"Expected strategy to be one of {list(STRATEGIES)}. "
            f"Received: strategy={name!r}."
        )
    if name == "multi_worker":
        addresses = _addresses(os.environ.get("TF_CONFIG", ""))
        return workers.start(addresses)
    gpus = len(tf.config.list_physical_devices("GPU"))
    if name == "none":
        if gpus > 1:
            logging.warning(
                "Training on one of %d GPUs: --strategy=mirrored uses all.",
                gpus,
            )
        return tf.distribute.get_strategy()
    kind = "GPU" if gpus else "CPU"
    devices = tf.config.list_logical_devices(kind)
    return _mirrored(tuple(device.name for device in devices))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """Returns the strategy of devices, one for the whole process.

    Strategies number their collective operations from the same number on, and
    TensorFlow refuses a number that was of another kind of operation before.
    """
    return tf.distribute.MirroredStrategy(devices)


def check_batch(
    strategy: tf.distribute.Strategy, *, size: int, what: str
) -> None:
    """Refuses a batch that replicas do not divide.

    Args:
        strategy: of the training.
        size: size of the whole batch.
        what: what the batch consists of, with the flags that set its size.

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
    if network.jit_compile is True:
        raise _refused("jit_compile=True", "Keras fails with it")
    if network.steps_per_execution != 1:
        raise _refused(
            f"steps_per_execution={network.steps_per_execution}",
            "Keras fails with it",
        )
    if optimizer.gradient_accumulation_steps:
        raise _refused(
            "an optimizer with gradient_accumulation_steps="
            f"{optimizer.gradient_accumulation_steps}",
            "Keras fails with it. Raise the batch, with chunk_images for "
            "places",
        )
    for name in ("global_clipnorm", "clipnorm"):
        if getattr(optimizer, name):
            raise _refused(
                f"an optimizer with {name}",
                "Keras clips each replica's gradient by itself. Use clipvalue, "
                "or a smaller rate",
            )
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise _refused(
            "mixed_float16",
            "Keras takes the loss scale from the first replica only. Use "
            "mixed_bfloat16",
        )


def _refused(setting: str, reason: str) -> ValueError:
    return ValueError(
        "Expected settings that several replicas can train with. Received: "
        f"{setting}. {reason}."
    )


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process writes the results."""
    return workers.part(strategy)[0] == 0


def fit(network: keras.Model, dataset: tf.data.Dataset, **options):
    """Trains by Keras's `fit`, or by `workers.fit` on several machines.

    Args:
        network: compiled and built.
        dataset: this worker's part of the batches.
        **options: options of `fit`.

    Returns:
        The history.
    """
    if workers.is_used(network.distribute_strategy):
        return workers.fit(network, dataset, **options)
    dataset, steps = _read_once(network, dataset)
    return network.fit(dataset, steps_per_epoch=steps, **options)


def predict(
    embedder: keras.Model,
    rows: pd.DataFrame,
    dataset_of: Callable[[pd.DataFrame, int], tf.data.Dataset],
    *,
    batch_size: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> np.ndarray:
    """Embeds images by all replicas together.

    Keras's `predict` fails if a replica has no image, or if the first batch is
    in unequal parts. So the last row is repeated until all batches are full.

    Args:
        embedder: [B, H, W, 3] -> [B, D].
        rows: rows of a manifest.
        dataset_of: makes the dataset of rows, with a batch size.
        batch_size: images embedded at a time, by all replicas together.
        callbacks: callbacks of `predict`; ignored on several machines.

    Returns:
        Descriptors [len(rows), D], the same on all workers.
    """
    strategy = embedder.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    if replicas > 1:
        # As few batches as with batch_size, with few repeated rows.
        batches = -(-len(rows) // batch_size)
        batch_size = replicas * -(-len(rows) // (batches * replicas))
        missing = -len(rows) % batch_size
        padded = rows.iloc[[*range(len(rows)), *[-1] * missing]]
    else:
        padded = rows
    if workers.is_used(strategy):
        index, count = workers.part(strategy)
        own = np.arange(len(padded)).reshape(-1, count, batch_size // count)
        descriptors = workers.predict(
            embedder,
            dataset_of(
                padded.iloc[own[:, index].reshape(-1)], batch_size // count
            ),
        )
    else:
        dataset, steps = _read_once(embedder, dataset_of(padded, batch_size))
        descriptors = embedder.predict(
            dataset, steps=steps, verbose=0, callbacks=callbacks
        )
    return descriptors[: len(rows)]


def gather_rows(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Concatenates the rows of all replicas, in their order.

    Args:
        batch: tensors of this replica by name, [b, ...].

    Returns:
        Tensors [B, ...], the same on all replicas.
    """
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync == 1:
        return dict(batch)
    # Workers only gather tensors on a device, which inputs of a step lack.
    own = {name: tf.identity(rows) for name, rows in batch.items()}
    gathered = replica.all_gather(own, axis=0)
    return {
        name: tf.ensure_shape(rows, (None, *batch[name].shape[1:]))
        for name, rows in gathered.items()
    }


def _read_once(
    network: keras.Model, dataset: tf.data.Dataset
) -> tuple[tf.data.Dataset, int | None]:
    """Returns a dataset that Keras begins once, and its number of batches.

    Keras begins a dataset of known cardinality again after its last batch, for
    an epoch that does not come: this decodes batches in vain. A filter hides
    the cardinality, and the number of batches takes its place.
    """
    steps = int(dataset.cardinality())
    if steps < 1 or network.distribute_strategy.num_replicas_in_sync > 1:
        return dataset, None
    return dataset.filter(lambda *_: True), steps


def _addresses(text: str) -> list[str]:
    """Returns the addresses of workers in a TF_CONFIG.

    Raises:
        ValueError: it is not the TF_CONFIG of a worker.
    """
    example = (
        'Set it to {"cluster": {"worker": ["host0:12345", "host1:12345"]}, '
        '"task": {"type": "worker", "index": 0}}, with another index on each '
        "worker."
    )
    try:
        config = json.loads(text)
        addresses = config["cluster"]["worker"]
        kind, index = config["task"]["type"], config["task"]["index"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected TF_CONFIG in the environment, with a cluster of workers "
            f"and a task. Received: TF_CONFIG={text!r}. {example}"
        ) from error
    if kind != "worker" or index not in range(len(addresses)):
        raise ValueError(
            f"Expected a task of type worker with an index below "
            f"{len(addresses)}. Received: TF_CONFIG={text!r}. {example}"
        )
    return addresses
