"""Training on several machines, in the place of Keras's `fit` and `predict`.

Every worker is a process that runs the same command and goes through the same
steps at the same time. What it reads is its own part of every batch; what it
computes is added up with the others'. So that all agree:

- Weights are the chief's at the start, and change alike from then on.
- Images to mine from and to validate on are shared out, and each worker gets
  the descriptors of all: embedding takes as many times less as there are
  workers. All choose among the same descriptors, and take what the chief chose.
- The chief, worker 0, writes the checkpoints. All read them: the folder must be
  one that all reach, and so must the records, or equal copies of them.

A worker that ends, is killed, or does not answer ends the others with an error,
at their next step or, at the latest, when its heartbeat is missed. Whoever runs
the workers starts all of them again with the same command: they go on after
the last epoch that was saved.

Keras 3 cannot do this: `fit` and `predict` fail under
`MultiWorkerMirroredStrategy`, but `train_step` is sound.
"""

import contextlib
import faulthandler
import hashlib
import weakref
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from absl import logging

# How long a worker waits for the others to be started.
START_S = 120.0
# Compiled steps, made once: by network, by embedder, by strategy.
_STEPS = weakref.WeakKeyDictionary()
_EMBEDDING = weakref.WeakKeyDictionary()
_GATHERING = weakref.WeakKeyDictionary()


def is_used(strategy: tf.distribute.Strategy) -> bool:
    """Whether there are several workers."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def part(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Which of how many equal parts of a batch this worker reads."""
    if not is_used(strategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    return resolver.task_id, resolver.cluster_spec().num_tasks("worker")


def start(workers: Sequence[str]) -> tf.distribute.Strategy:
    """Meets the other workers.

    TensorFlow would wait without end, and let no other Python run, nor heed
    SIGTERM. So the process ends if it takes longer than `START_S`.

    Args:
        workers: addresses of all, as in TF_CONFIG.

    Returns:
        The strategy.
    """
    logging.info(
        "Waiting for all of the workers %s. If they have not come within %d s, "
        "this process ends: start all of them, with the same command.",
        list(workers),
        START_S,
    )
    # It needs no Python to end the process.
    faulthandler.dump_traceback_later(START_S, exit=True)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def lost_workers_named(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Says in words that a worker was lost.

    Args:
        strategy: of the training.

    Raises:
        ConnectionError: an operation of all workers failed.
    """
    try:
        yield
    except (
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
        tf.errors.UnavailableError,
    ) as error:
        if not is_used(strategy):
            raise
        raise ConnectionError(
            "Expected all workers to stay to the end. Received: "
            f"{type(error).__name__}: {error.message} Start all of them again "
            "with the same command: they go on after the last epoch."
        ) from error


def from_chief(
    strategy: tf.distribute.Strategy, array: np.ndarray
) -> np.ndarray:
    """The chief's array, on all workers; of one shape on all."""
    if not is_used(strategy):
        return array
    return _gathered(strategy, [np.asarray(array)])[0][0]


def check_same(strategy: tf.distribute.Strategy, text: str) -> None:
    """Refuses workers that were not started alike.

    Args:
        strategy: of the training.
        text: what a worker trains with, and where it begins.

    Raises:
        ValueError: another worker has another text.
    """
    if not is_used(strategy):
        return
    digest = hashlib.sha256(text.encode()).digest()
    found = _gathered(strategy, [np.frombuffer(digest, np.int32)])[0]
    others = np.flatnonzero((found != found[0]).any(axis=1))
    if len(others):
        raise ValueError(
            "Expected all workers to have the same flags, records and "
            "checkpoints. Received: replicas "
            f"{others.tolist()} with others than the chief. Start all workers "
            "with the same command, and with --checkpoints in a folder that "
            "all of them reach."
        )


def take_weights_of_chief(network: keras.Model) -> None:
    """Gives all workers the chief's weights and optimizer."""
    strategy = network.distribute_strategy
    if is_used(strategy):
        variables = [*network.variables, *network.optimizer.variables]
        values = [keras.ops.convert_to_numpy(each) for each in variables]
        found = _gathered(strategy, values)
        for variable, value in zip(variables, found, strict=True):
            variable.assign(value[0])


def fit(
    network: keras.Model,
    dataset: tf.data.Dataset,
    *,
    initial_epoch: int = 0,
    epochs: int = 1,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    shuffle: bool = False,
    verbose: str | int = "auto",
) -> keras.callbacks.History:
    """Trains as Keras's `fit` does, with all workers.

    Args:
        network: compiled and built in the scope of the strategy.
        dataset: this worker's part of every batch, all of one size.
        initial_epoch: number of the first epoch.
        epochs: number after the last one.
        callbacks: are called as by `fit`, on every worker.
        shuffle: as `fit` has it; a dataset is never shuffled.
        verbose: 0 for no progress bar; only the chief has one.

    Returns:
        The history, the same on all workers.
    """
    del shuffle
    strategy = network.distribute_strategy
    chief = part(strategy)[0] == 0
    if network not in _STEPS:
        _STEPS[network] = _training_step(network)
    steps = int(dataset.cardinality())
    distributed = _by_replica(strategy, dataset)
    calls = keras.callbacks.CallbackList(
        list(callbacks),
        add_history=True,
        add_progbar=chief and verbose != 0,
        verbose=1 if verbose == "auto" else verbose,
        epochs=epochs,
        steps=steps,
        model=network,
    )
    calls.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        network.reset_metrics()
        calls.on_epoch_begin(epoch)
        logs = {}
        for step, batch in zip(range(steps), distributed, strict=False):
            calls.on_train_batch_begin(step)
            found = _STEPS[network](batch)
            logs = {name: float(value) for name, value in found.items()}
            calls.on_train_batch_end(step, logs)
        calls.on_epoch_end(epoch, logs)
    calls.on_train_end(logs)
    return network.history


def predict(embedder: keras.Model, dataset: tf.data.Dataset) -> np.ndarray:
    """Descriptors of the images of all workers, on all workers.

    Args:
        embedder: [B, H, W, 3] -> [B, D].
        dataset: this worker's part of every batch of images, all of one size.

    Returns:
        [images of all workers, D]: batch by batch, in each the parts of the
        workers in their order.
    """
    strategy = embedder.distribute_strategy
    if embedder not in _EMBEDDING:
        _EMBEDDING[embedder] = _embedding_step(embedder)
    return np.concatenate(
        [
            _EMBEDDING[embedder](images).numpy()
            for images in _by_replica(strategy, dataset)
        ]
    )


def _training_step(network):
    strategy = network.distribute_strategy
    # The network must not be held by what it is the key of.
    reference = weakref.ref(network)

    @tf.function(reduce_retracing=True)
    def step(batch):
        found = strategy.run(reference().train_step, args=(batch,))
        return {
            name: strategy.reduce("MEAN", value, axis=None)
            for name, value in found.items()
        }

    return step


def _embedding_step(embedder):
    strategy = embedder.distribute_strategy
    reference = weakref.ref(embedder)

    def embed(images):
        descriptors = reference()(images, training=False)
        replica = tf.distribute.get_replica_context()
        return replica.all_gather(descriptors, axis=0)

    @tf.function(reduce_retracing=True)
    def step(images):
        found = strategy.run(embed, args=(images,))
        return strategy.experimental_local_results(found)[0]

    return step


def _by_replica(strategy, dataset):
    """Gives each replica of this worker its part of the worker's batches."""
    replicas = len(strategy.extended.worker_devices)
    if replicas > 1:
        dataset = dataset.map(
            lambda *batch: tf.nest.map_structure(
                lambda x: tf.reshape(
                    x, (replicas, x.shape[0] // replicas, *x.shape[1:])
                ),
                batch if len(batch) > 1 else batch[0],
            )
        ).unbatch()
    return strategy.distribute_datasets_from_function(lambda _: dataset)


def _gathered(strategy, arrays):
    """Each array of all replicas, [replicas, ...]; each worker has its own."""
    if strategy not in _GATHERING:
        _GATHERING[strategy] = _gathering_step(strategy)
    found = _GATHERING[strategy]([tf.constant(array[None]) for array in arrays])
    return [rows.numpy() for rows in found]


def _gathering_step(strategy):
    reference = weakref.ref(strategy)

    @tf.function(reduce_retracing=True)
    def gather(arrays):
        def own():
            replica = tf.distribute.get_replica_context()
            return replica.all_gather([tf.identity(x) for x in arrays], axis=0)

        found = reference().run(own)
        return [
            reference().experimental_local_results(rows)[0] for rows in found
        ]

    return gather
