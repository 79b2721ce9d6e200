"""Other processes that read and decode images for train, on any machines.

    python -m sare_tf.data_service --service_port=5050          # dispatcher
    python -m sare_tf.data_service --dispatcher=grpc://a:5050   # each worker
    python -m sare_tf.train --flagfile=... --data_service=grpc://a:5050

It is the service of tf.data, for a machine whose cores cannot feed its GPUs.
Start one dispatcher, which divides the images among the workers, and any number
of workers. Workers may come and go while a training runs. They need the same
version of sare_tf and TensorFlow, and the records under the same path or
address. A process serves until Ctrl-C or SIGTERM.

Whoever reaches the ports can read the files of these processes: the service has
no passwords. Keep it in a network that you trust.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from absl import logging

from sare_tf import flags
from sare_tf.records import image_workers
from sare_tf.records.options import DataServiceOptions
from sare_tf.runtime import network_address, stage_results

service = tf.data.experimental.service

# Milliseconds after which the dispatcher takes a worker or a training for lost,
# and between the heartbeats by which it knows. Ours.
_LOST_MS = 10_000
_HEARTBEAT_MS = 1_000


def run(options: DataServiceOptions) -> str:
    """Serves until the process is asked to end.

    Args:
        options: options of the service.

    Returns:
        The address that was served.

    Raises:
        ConnectionError: there is no dispatcher at the address.
        OSError: the port is taken.
    """
    ended = threading.Event()
    host = options.service_host or network_address.host_for(options.dispatcher)
    with _ending_by_signals(ended):
        if options.dispatcher is None:
            port = network_address.free_port(options.service_port)
            role, server = "dispatcher", _started(_dispatcher, port)
            address = f"grpc://{host}:{port}"
            text = (
                f"The dispatcher serves at {address}. Ctrl-C ends it.\n"
                "Workers:  python -m sare_tf.data_service --dispatcher="
                f"{address}\nTraining: python -m sare_tf.train --flagfile=... "
                f"--data_service={address}"
            )
        else:
            image_workers.register()
            network_address.check_answers(
                options.dispatcher,
                advice="Start a dispatcher: python -m sare_tf.data_service "
                "--service_port=...",
            )
            port = network_address.free_port(options.service_port)
            address = f"grpc://{host}:{port}"
            role, server = "worker", _started(_worker, port, host, options)
            text = f"The worker serves at {address}. Ctrl-C ends it."
        stage_results.report("data_service", text, address=address, role=role)
        ended.wait()
        logging.info("The %s ends.", role)
        del server
    return address


def _dispatcher(port: int) -> service.DispatchServer:
    return service.DispatchServer(
        service.DispatcherConfig(
            port=port,
            worker_timeout_ms=_LOST_MS,
            job_gc_check_interval_ms=_LOST_MS,
            job_gc_timeout_ms=6 * _LOST_MS,
        )
    )


def _worker(
    port: int, host: str, options: DataServiceOptions
) -> service.WorkerServer:
    return service.WorkerServer(
        service.WorkerConfig(
            dispatcher_address=options.dispatcher.removeprefix("grpc://"),
            worker_address=f"{host}:{port}",
            port=port,
            heartbeat_interval_ms=_HEARTBEAT_MS,
            dispatcher_timeout_ms=_LOST_MS,
        )
    )


def _started(make: Callable[..., Any], port: int, *others: Any) -> Any:
    try:
        return make(port, *others)
    except tf.errors.OpError as error:
        raise OSError(
            "Expected a service that starts. Received: "
            f"{str(error).splitlines()[0]}, port={port}. Choose another "
            "--service_port, and see that the dispatcher answers."
        ) from error


@contextlib.contextmanager
def _ending_by_signals(ended: threading.Event) -> Iterator[None]:
    """Sets the event at SIGINT and SIGTERM, in a main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda *_: ended.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv) -> None:
    del argv
    run(DataServiceOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
