"""Serves a WSGI application on this machine, within limits, until it is ended.

SIGTERM ends it gracefully: it takes no more connections, the requests that are
there are answered, and then it ends. Ctrl-C ends it at once.
"""

import contextlib
import ipaddress
import os
import signal
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator

import waitress
from absl import logging

from sare_tf.pages.options import ServeOptions

# Connections at a time, and seconds that a connection may be silent. Ours.
_CONNECTIONS, _SILENCE_S = 512, 30
# Threads beside those that wait for answers: for the page and its images.
_OTHER_THREADS = 4
_POLL_S = 0.05


class Load:
    """Counts the requests of an application, and whether it is to end.

    Attributes:
        is_ending: whether SIGTERM came.
    """

    def __init__(self):
        self.is_ending = False
        self._count = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def one_more(self) -> Iterator[None]:
        """Counts a request while it is answered."""
        with self._lock:
            self._count += 1
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1

    def __len__(self) -> int:
        return self._count


def serve(
    app: Callable, *, host: str, port: int, limits: ServeOptions, load: Load
) -> None:
    """Serves until SIGTERM or Ctrl-C.

    Args:
        app: the application.
        host: address or name to listen at.
        port: the port; 0: any free port.
        limits: what it holds at a time.
        load: counts its requests.

    Raises:
        OSError: the address cannot be listened at.
    """

    def counted(environ, start_response):
        with load.one_more():
            return list(app(environ, start_response))

    with _listen(host, port) as listener:
        port = listener.getsockname()[1]
        server = waitress.create_server(
            counted,
            sockets=[listener],
            # Photographs wait, and as many searches of a part may.
            threads=limits.serve_batch
            + 2 * limits.serve_waiting
            + _OTHER_THREADS,
            connection_limit=_CONNECTIONS,
            channel_timeout=_SILENCE_S,
            # The page answers a little too much, waitress anything more.
            max_request_body_size=2 * (limits.upload_mebibytes << 20),
            ident=None,
        )
        shown = f"[{host}]" if ":" in host else host
        logging.info(
            "Open http://%s:%d in a browser. Ctrl-C ends it.", shown, port
        )
        try:
            with _ended_gracefully(server, load, limits.serve_within_s):
                server.run()
        finally:
            server.close()


@contextlib.contextmanager
def _ended_gracefully(
    server: waitress.server.BaseWSGIServer, load: Load, within_s: float
) -> Iterator[None]:
    """Ends the body after SIGTERM, when what was sent is answered."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread has signals.
        return

    def finish() -> None:
        end = time.monotonic() + within_s
        while time.monotonic() < end and (len(load) or _is_sending(server)):
            time.sleep(_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    def end(*_) -> None:
        if load.is_ending:
            raise SystemExit  # The second signal, also that of `finish`.
        load.is_ending = True
        logging.info("SIGTERM: answering %d requests.", len(load))
        server.accepting = False
        threading.Thread(target=finish, daemon=True).start()

    earlier = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _is_sending(server: waitress.server.BaseWSGIServer) -> bool:
    """Returns whether answers are still on their way to a client."""
    return any(
        channel.total_outbufs_len or channel.requests
        for channel in list(server.active_channels.values())
    )


def is_this_host(named: str, host: str) -> bool:
    """Whether a Host header names this server as no other site could.

    A name can be made to lead anywhere by its owner; an address cannot.
    """
    try:
        name = urllib.parse.urlsplit(f"//{named}").hostname or ""
    except ValueError:
        return False
    if name in ("localhost", host.lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(
            "Expected an address of this machine with a free port. Received: "
            f"--host={host} --port={port} ({error}). Choose another --port."
        ) from error
    address = listener.getsockname()[0]
    if not ipaddress.ip_address(address).is_loopback:
        logging.warning(
            "Everyone who reaches %s can see the database's images and send "
            "photographs, without a password and without encryption. With "
            "--host=127.0.0.1, only this machine can.",
            host,
        )
    return listener
