"""A dispatcher and workers of data_service, in processes of their own."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from paths import ROOT


class Service:
    """A dispatcher and its workers.

    Attributes:
        address: address of the dispatcher.
        processes: the dispatcher, then the workers.
    """

    def __init__(self, workers: int):
        self.processes = [start("--service_port=0")]
        self.address = address_of(self.processes[0])
        given = [f"--dispatcher={self.address}"] * workers
        self.processes += [start(flag) for flag in given]
        for process in self.processes[1:]:
            address_of(process)

    def stop(self) -> None:
        """Kills all processes."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
            process.stdout.close()


@contextlib.contextmanager
def running(*, workers: int) -> Iterator[Service]:
    """Yields a service, which is killed afterwards."""
    service = Service(workers)
    try:
        yield service
    finally:
        service.stop()


def start(*arguments: str, before: Sequence[str] = ()) -> subprocess.Popen:
    """Starts a process of data_service.

    Args:
        *arguments: its flags.
        before: a command that starts the command, such as taskset.
    """
    return subprocess.Popen(
        [*before, sys.executable, "-m", "sare_tf.data_service"]
        + ["--service_host=localhost", "--json", "--quiet", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def address_of(process: subprocess.Popen) -> str:
    """Waits for a process to serve; returns its address."""
    line = process.stdout.readline()
    assert line, f"data_service ended with {process.wait()}"
    return json.loads(line)["address"]
