"""Training in processes of their own: several workers, or several replicas.

    python tests/toy_workers.py '{"records": ..., "checkpoints": ..., ...}'

Trains with the arguments of `train.run`; TF_CONFIG says which worker it is. Of
these the script itself takes: `cpus`, how many logical CPU devices there are;
`killed_at`, the number of the dataset of tuples, from 1, before which the
process is killed; `then`, the arguments of a second run in the process; and
`start_s`, how long it waits for other workers.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import toy_training
from paths import ROOT

from sare_tf import train
from sare_tf.distributed import workers
from sare_tf.training import datasets
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import read_state

# Of 12 queries: two epochs of two rounds, of one and two batches. SGD, as Adam
# would make much of the rounding of a gradient that is nearly 0.
OPTIONS = {
    **toy_training.OPTIONS,
    "tuples_per_batch": 4,
    "refresh_every_queries": 8,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    # A list would be one value for each worker.
    "augment": ("crop", "colour"),
}


def start(
    workers: int, *, others: Sequence[int] = (), **arguments
) -> list[subprocess.Popen]:
    """Starts one process per worker; a list as an argument has one for each.

    Beside them, workers on other ports are named, and not started.
    """
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(free_port()) for _ in range(workers)]
    cluster = {"worker": [f"localhost:{port}" for port in [*ports, *others]]}
    processes = []
    for index in range(workers):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": cluster, "task": task})
        own = {
            key: value[index] if isinstance(value, list) else value
            for key, value in arguments.items()
        }
        processes.append(_process(own, {"TF_CONFIG": config}))
    return processes


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """Holds a port on which nothing answers."""
    with socket.socket() as held:
        held.bind(("localhost", 0))
        yield held.getsockname()[1]


def start_alone(**arguments) -> subprocess.Popen:
    """Starts a process that is no worker."""
    return _process(arguments, {})


def output(process: subprocess.Popen, *, within_s: int = 300) -> str:
    """Waits for the end of a process, and leaves none behind."""
    try:
        return process.communicate(timeout=within_s)[0]
    finally:
        process.kill()


def finish(*processes: subprocess.Popen) -> None:
    """Waits; shows what a process wrote if it failed."""
    outputs = [output(process) for process in processes]
    for process, text in zip(processes, outputs, strict=True):
        assert process.returncode == 0, text[-3000:]


def assert_same_training(one: str | Path, other: str | Path) -> None:
    """Compares what two runs came to, to 1e-5."""
    last = read_state(one)[1]["last"]
    for a, b in zip(
        *[read_state(run)[1]["history"] for run in (one, other)], strict=True
    ):
        assert a["recall_at"] == b["recall_at"]
        if a["epoch"]:
            # Not so small that any loss would do.
            assert a["loss"] > 0.01
            np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
    for a, b in zip(
        *[
            keras.models.load_model(f"{run}/{last}/model.keras").get_weights()
            for run in (one, other)
        ],
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(
        *[np.load(f"{run}/{last}/remembered.npy") for run in (one, other)]
    )


def _process(arguments: dict, environment: dict) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, __file__, json.dumps(arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _killing(make, number: int | None):
    """Kills this process before the dataset of a number is made."""
    made = []

    def wrapped(*args, **options):
        made.append(1)
        if len(made) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return make(*args, **options)

    return wrapped


def main() -> None:
    """Trains."""
    arguments = json.loads(sys.argv[1])
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * arguments.pop("cpus", 1)
    )
    workers.START_S = arguments.pop("start_s", workers.START_S)
    datasets.tuple_dataset = _killing(
        datasets.tuple_dataset, arguments.pop("killed_at", None)
    )
    then = arguments.pop("then", None)
    train.run(TrainingOptions(**arguments))
    if then:
        train.run(TrainingOptions(**then))


if __name__ == "__main__":
    main()
