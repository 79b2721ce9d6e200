"""Training in processes of their own: several workers, or several replicas.

    python tests/toy_workers.py '{"records": ..., "checkpoints": ..., ...}'

Trains with the arguments of `train.run`; TF_CONFIG says which worker it is. Of
these the script itself takes: `cpus`, how many logical CPU devices there are;
`killed_at`, the number of the dataset of tuples, from 1, before which the
process is killed; and `start_s`, how long it waits for other workers.
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

ROOT = Path(__file__).parents[1]


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


def finish(*processes: subprocess.Popen, within_s: int = 240) -> None:
    """Waits; shows what a process wrote if it failed."""
    outputs = []
    try:
        for process in processes:
            outputs.append(process.communicate(timeout=within_s)[0])
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]


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
    import tensorflow as tf

    from sare_tf import pipeline, train, worker_loop

    arguments = json.loads(sys.argv[1])
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * arguments.pop("cpus", 1)
    )
    worker_loop.START_S = arguments.pop("start_s", worker_loop.START_S)
    pipeline.tuple_dataset = _killing(
        pipeline.tuple_dataset, arguments.pop("killed_at", None)
    )
    train.run(**arguments)


if __name__ == "__main__":
    main()
