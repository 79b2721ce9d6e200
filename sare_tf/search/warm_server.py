"""The warm process: `python -m sare_tf.search.warm_server`.

`warm_client` starts it with its settings as JSON on the standard input. It
loads index and model, says so in a line on the standard output, and answers
one command after the other. It ends when nobody has asked for the time that the
last command named, when a command means another index, model or code, or by a
signal; `kill` is safe at any time.
"""

import json
import logging as standard_logging
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from sare_tf.runtime import tensorflow_import
from sare_tf.runtime.damage import Damaged
from sare_tf.search import warm_protocol
from sare_tf.search.prior import Prior

# Ours: seconds for which a command may be silent while it is answered.
_SILENCE_S = 30.0
_BACKLOG = 16


def load(settings: Mapping[str, Any]) -> Callable:
    """Opens the index and its model, as `Locator` does.

    Args:
        settings: `index`, folders; `servable`, fields of `ServableOptions`;
            `rerank`, fields of `RerankOptions`, or None;
            and `exact`, `check`, `positive_radius_m` and `reject_below` of
            `Locator`.
    """
    tensorflow_import.without_keras()
    from sare_tf import serving
    from sare_tf.search.locator import Locator
    from sare_tf.search.options import RerankOptions
    from sare_tf.serving.options import ServableOptions

    rest = dict(settings)
    options = ServableOptions(**rest.pop("servable"))
    rerank = rest.pop("rerank")
    return Locator(
        export=serving.named(options),
        rerank=rerank and RerankOptions(**rerank),
        **rest,
    )


class WarmServer:
    """Answers commands at a socket until it has been idle for long.

    Args:
        locator: answers photographs, as a `Locator`.
        path: the socket.
        content: `warm_protocol.content_of` what is loaded.
        idle_s: seconds after which it ends if nobody asks.
        notes: levels and texts that every command repeats in its log.
    """

    def __init__(
        self,
        locator: Callable,
        *,
        path: Path,
        content: str,
        idle_s: float,
        notes: Sequence[tuple[int, str]],
    ):
        self._locator = locator
        self._path = path
        self._content = content
        self._idle_s = idle_s
        self._notes = notes
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(_BACKLOG)
        self._bound = _identity(path)

    def serve(self) -> None:
        """Answers until it ends; the socket is then removed."""
        last = time.monotonic()
        is_right = True
        try:
            while is_right:
                left = last + self._idle_s - time.monotonic()
                if left <= 0:
                    break
                self._listener.settimeout(left)
                try:
                    connection, _ = self._listener.accept()
                except TimeoutError:
                    continue
                is_right = self._answer_all(connection)
                last = time.monotonic()
        finally:
            # First the name, so that nobody who comes now is sent away. Whoever
            # waits at the socket finds it closed, and starts another process.
            self._remove_name()
            self._listener.close()

    def _remove_name(self) -> None:
        """Removes the socket, unless another process has bound the name since.

        Whoever was sent away starts one at once, often before this one ends.
        """
        if self._bound is not None and _identity(self._path) == self._bound:
            self._path.unlink(missing_ok=True)
        self._bound = None

    def _answer_all(self, connection: socket.socket) -> bool:
        """Answers one command; returns whether this process is still right."""
        with connection, connection.makefile("rwb") as stream:
            if not _is_same_user(connection):
                return True
            connection.settimeout(_SILENCE_S)
            try:
                return self._answer(stream)
            except (EOFError, OSError, ValueError, KeyError) as error:
                logging.warning("A command ended: %r", error)
                return True

    def _answer(self, stream: Any) -> bool:
        hello, _ = warm_protocol.receive(stream)
        if hello["content"] != self._content:
            self._remove_name()
            warm_protocol.send(stream, {"status": "other"})
            logging.info("Ended: a command means another index, model or code.")
            return False
        self._idle_s = float(hello["idle_s"])
        warm_protocol.send(
            stream,
            {"status": "ready", "process": os.getpid(), "notes": self._notes},
        )
        request, photographs = warm_protocol.receive(stream)
        try:
            prior = request.get("prior")
            answers = self._locator(
                photographs,
                k=request["k"],
                leave_out=request.get("leave_out"),
                prior=None if prior is None else Prior.from_json(prior),
            )
            reply = {
                "status": "answers",
                "answers": [answer.as_json() for answer in answers],
            }
        except Exception as error:  # The command shows it, and this goes on.
            logging.exception("A command failed.")
            reply = {"status": "failed", **_described(error)}
        warm_protocol.send(stream, reply)
        return True


class _Notes(standard_logging.Handler):
    """Keeps what is logged while index and model are loaded."""

    def __init__(self):
        super().__init__(standard_logging.INFO)
        self.kept = []

    def emit(self, record: standard_logging.LogRecord) -> None:
        self.kept.append((record.levelno, record.getMessage()))


def _described(error: Exception) -> dict[str, str]:
    described = {"kind": type(error).__name__, "message": str(error)}
    if isinstance(error, Damaged):
        described["path"] = str(error.path)
    return described


def _identity(path: Path) -> tuple[int, int] | None:
    """Returns device and inode of a path; None if nothing is there."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _is_same_user(connection: socket.socket) -> bool:
    """Returns whether the other side is of the same user, where Linux says."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, size
    )
    _, user, _ = struct.unpack("3i", credentials)
    return user == os.getuid()


def main() -> None:
    """Loads what the standard input names, says so, and serves."""
    request = json.loads(sys.stdin.readline())
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What anything prints goes to the log.
    logging.set_verbosity(logging.INFO)
    notes = _Notes()
    logging.get_absl_logger().addHandler(notes)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.chdir("/")  # A folder may be removed while this runs.
    try:
        # What is loaded may change meanwhile: then it is not what is asked for.
        locator = load(request["settings"])
        server = WarmServer(
            locator,
            path=Path(request["path"]),
            content=request["content"],
            idle_s=request["idle_s"],
            notes=notes.kept,
        )
    except Exception as error:
        logging.exception("Not started.")
        report.write(json.dumps(_described(error)) + "\n")
        report.close()
        sys.exit(1)
    logging.get_absl_logger().removeHandler(notes)
    report.write("{}\n")
    report.close()
    server.serve()


if __name__ == "__main__":
    main()
