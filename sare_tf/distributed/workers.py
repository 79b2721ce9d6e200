"""Training on several machines, instead of Keras's `fit` and `predict`.

Every worker is a process that runs the same command and the same steps at the
same time. It reads its own part of every batch, and its gradient is added to
those of the others. All workers agree, because:

- All start with the chief's weights, and make the same changes to them.
- Images to mine from and to validate on are divided among the workers, and each
  gets the descriptors of all: W workers embed W times as fast. All choose among
  the same descriptors, and use the choice of the chief.
- The chief, worker 0, writes the checkpoints, and all read them. All must reach
  the folder of checkpoints, and the records or equal copies of them.

If a worker ends, is killed, or does not answer, the others stop with an error:
at their next step or, at the latest, when its heartbeat is missed. Start all
workers again with the same command: they resume after the last epoch that was
saved.

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

# Seconds that a worker waits for the others to be started. Ours.
START_S = 120.0
# Compiled steps, each made once: by network, by embedder, by strategy.
_STEPS = weakref.WeakKeyDictionary()
_EMBEDDING = weakref.WeakKeyDictionary()
_GATHERING = weakref.WeakKeyDictionary()


def is_used(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether there are several workers."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def part(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Returns which part of a batch this worker reads, and of how many."""
    if not is_used(strategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    return resolver.task_id, resolver.cluster_spec().num_tasks("worker")


def start(workers: Sequence[str]) -> tf.distribute.Strategy:
    """Waits for the other workers, and makes the strategy of all.

    TensorFlow waits without end, runs no other Python meanwhile and ignores
    SIGTERM. So the process ends if it takes longer than `START_S`.

    Args:
        workers: addresses of all workers, as in TF_CONFIG.

    Returns:
        The strategy.
    """
    logging.info(
        "Waiting for all of the workers %s. If they have not come within %d s, "
        "this process ends: start all of them with the same command.",
        list(workers),
        START_S,
    )
    # faulthandler ends the process without running Python.
    faulthandler.dump_traceback_later(START_S, exit=True)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def lost_workers_named(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Explains the errors of TensorFlow that mean a lost worker.

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
            "with the same command: they resume after the last epoch."
        ) from error


def from_chief(
    strategy: tf.distribute.Strategy, array: np.ndarray
) -> np.ndarray:
    """Returns the chief's array on all workers.

    Args:
        strategy: of the training.
        array: this worker's array; it has the same shape on all workers.
    """
    if not is_used(strategy):
        return array
    return _gathered(strategy, [np.asarray(array)])[0][0]


def check_same(strategy: tf.distribute.Strategy, text: str) -> None:
    """Refuses workers that were not started with the same command.

    Args:
        strategy: of the training.
        text: the settings of this worker, and the epoch where it begins.

    Raises:
        ValueError: another worker has another text.
    """
    if not is_used(strategy):
        return
    digest = hashlib.sha256(text.encode()).digest()
    digests = _gathered(strategy, [np.frombuffer(digest, np.int32)])[0]
    others = np.flatnonzero((digests != digests[0]).any(axis=1))
    if len(others):
        raise ValueError(
            "Expected all workers to have the same flags, records and "
            "checkpoints. Received: replicas "
            f"{others.tolist()} with others than the chief. Start all workers "
            "with the same command, and with --checkpoints in a folder that "
            "all of them reach."
        )


def take_weights_of_chief(network: keras.Model) -> None:
    """Copies the chief's weights and optimizer state to all workers."""
    strategy = network.distribute_strategy
    if is_used(strategy):
        variables = [*network.variables, *network.optimizer.variables]
        values = [
            keras.ops.convert_to_numpy(variable) for variable in variables
        ]
        of_all = _gathered(strategy, values)
        for variable, by_replica in zip(variables, of_all, strict=True):
            variable.assign(by_replica[0])


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
    """Trains with all workers, like Keras's `fit`.

    Args:
        network: compiled and built in the scope of the strategy.
        dataset: this worker's part of every batch; all have the same size.
        initial_epoch: number of the first epoch.
        epochs: number after the last epoch.
        callbacks: called as `fit` calls them, on every worker.
        shuffle: ignored, as `fit` ignores it for a dataset.
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
            metrics = _STEPS[network](batch)
            logs = {name: float(value) for name, value in metrics.items()}
            calls.on_train_batch_end(step, logs)
        calls.on_epoch_end(epoch, logs)
    calls.on_train_end(logs)
    return network.history


def predict(embedder: keras.Model, dataset: tf.data.Dataset) -> np.ndarray:
    """Embeds the images of all workers, and returns them on all workers.

    Args:
        embedder: [B, H, W, 3] -> [B, D].
        dataset: this worker's part of every batch of images; all have the same
            size.

    Returns:
        Descriptors [images of all workers, D]: batch by batch, and in each
        batch the parts of the workers in their order.
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
    # The step must not hold the network, which is its key in `_STEPS`.
    reference = weakref.ref(network)

    @tf.function(reduce_retracing=True)
    def step(batch):
        metrics = strategy.run(reference().train_step, args=(batch,))
        return {
            name: strategy.reduce("MEAN", value, axis=None)
            for name, value in metrics.items()
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
        descriptors = strategy.run(embed, args=(images,))
        return strategy.experimental_local_results(descriptors)[0]

    return step


def _by_replica(strategy, dataset):
    """Divides this worker's batches among its replicas."""
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
    """Returns the arrays of all replicas, [replicas, ...] for each array."""
    if strategy not in _GATHERING:
        _GATHERING[strategy] = _gathering_step(strategy)
    gather = _GATHERING[strategy]
    of_all = gather([tf.constant(array[None]) for array in arrays])
    return [array.numpy() for array in of_all]


def _gathering_step(strategy):
    reference = weakref.ref(strategy)

    @tf.function(reduce_retracing=True)
    def gather(arrays):
        def own():
            replica = tf.distribute.get_replica_context()
            return replica.all_gather([tf.identity(x) for x in arrays], axis=0)

        strategy = reference()
        return [
            strategy.experimental_local_results(array)[0]
            for array in strategy.run(own)
        ]

    return gather
