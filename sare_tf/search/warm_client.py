"""The side of a command of `locate --keep_warm`: asks the warm process.

The first command starts the process, which stays and answers later ones without
their loading TensorFlow, index and model. `warm_protocol` says what both sides
agree on. This module needs neither numpy nor TensorFlow.
"""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from sare_tf.runtime.damage import Damaged
from sare_tf.search import warm_protocol
from sare_tf.search.answers import Answer
from sare_tf.search.prior import Prior

try:
    import fcntl
except ImportError:  # Windows, which `warm_protocol` refuses.
    fcntl = None

# Ours: seconds for loading an index, and for a batch of photographs.
_START_S, _ANSWER_S = 300.0, 600.0
_RETRY_S = 0.05
# Ours: processes to start for a call. The index may change while it is loaded.
_STARTS = 3
# Of a warm process, those that a command raises again.
_ERRORS = {
    kind.__name__: kind
    for kind in (
        ConnectionError,
        FileNotFoundError,
        ImportError,
        OSError,
        TimeoutError,
        ValueError,
    )
}
# Started ones, so that Python does not warn of processes that go on.
_STARTED = []


class WarmLocator:
    """Answers photographs as a `Locator` does, by a process that stays.

    The process is looked for, and started if need be, with every call: an index
    that was replaced since is never searched.

    Args:
        settings: of `warm_server.load`, with absolute paths.
        idle_s: seconds after which the process ends if nobody asks.

    Call arguments:
        encoded: bytes of B photographs.
        k: matches to find for each; all images if the index has fewer.
        leave_out: as of a `Locator`.
        prior: as of a `Locator`.

    Output:
        B answers.
    """

    def __init__(self, settings: Mapping[str, Any], *, idle_s: float):
        self._settings = settings
        self._idle_s = idle_s
        self._folder = warm_protocol.runtime_folder()
        self._key = warm_protocol.key_of(settings)
        self._is_noted = False

    def __call__(
        self,
        encoded: Sequence[bytes],
        *,
        k: int,
        leave_out: Sequence[str] | None = None,
        prior: Prior | None = None,
    ) -> list[Answer]:
        asked = {"k": k, "leave_out": leave_out}
        asked["prior"] = None if prior is None else prior.as_json()
        answers = self._ask(encoded, asked)
        if answers is None:
            with self._only_starter():
                # Another command may have started it meanwhile.
                answers = self._ask(encoded, asked)
                for _ in range(_STARTS):
                    if answers is not None:
                        break
                    self._start()
                    answers = self._ask(encoded, asked)
        if answers is None:
            raise ConnectionError(
                "Expected an answer of the process that --keep_warm started. "
                f"Received none; its log is {self._path('log')}. Leave out "
                "--keep_warm."
            )
        return answers

    def _path(self, ending: str) -> Path:
        return self._folder / f"{self._key}.{ending}"

    def _ask(
        self, encoded: Sequence[bytes], asked: Mapping[str, Any]
    ) -> list[Answer] | None:
        """Returns the answers; None if there is no process, or another one."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with connection:
                connection.settimeout(_ANSWER_S)
                connection.connect(str(self._path("sock")))
                with connection.makefile("rwb") as stream:
                    reply = self._converse(stream, encoded, asked)
        except TimeoutError as error:
            raise TimeoutError(
                "Expected an answer of the process that --keep_warm started "
                f"within {_ANSWER_S:g} s. Received none; its log is "
                f"{self._path('log')}. End it, or leave out --keep_warm."
            ) from error
        except (ConnectionError, EOFError, FileNotFoundError):
            return None
        if reply is None:
            return None
        _raise_again(reply)
        return [Answer.from_json(written) for written in reply["answers"]]

    def _converse(
        self, stream: Any, encoded: Sequence[bytes], asked: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        content = warm_protocol.content_of(self._settings)
        warm_protocol.send(stream, {"content": content, "idle_s": self._idle_s})
        hello, _ = warm_protocol.receive(stream)
        if hello["status"] != "ready":
            return None
        if not self._is_noted:
            self._is_noted = True
            for level, text in hello["notes"]:
                logging.log(logging.converter.standard_to_absl(level), text)
            logging.info(
                "Answered by process %d, which ends after %g idle minutes.",
                hello["process"],
                self._idle_s / 60,
            )
        warm_protocol.send(stream, asked, *encoded)
        return warm_protocol.receive(stream)[0]

    @contextlib.contextmanager
    def _only_starter(self) -> Iterator[None]:
        """Waits until no other command starts this process."""
        end = time.monotonic() + 2 * _START_S
        lock = os.open(self._path("lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > end:
                        raise TimeoutError(
                            "Expected that another command, which starts the "
                            "process of --keep_warm, ends. Received: it holds "
                            f"{self._path('lock')}. End it, or leave out "
                            "--keep_warm."
                        ) from error
                    time.sleep(_RETRY_S)
            yield
        finally:
            os.close(lock)

    def _start(self) -> None:
        """Starts a process, and waits until it has loaded everything.

        Raises:
            What loading raised.
        """
        self._path("sock").unlink(missing_ok=True)  # Of one that was killed.
        request = {
            "settings": self._settings,
            "path": str(self._path("sock")),
            "content": warm_protocol.content_of(self._settings),
            "idle_s": self._idle_s,
        }
        descriptor = os.open(
            self._path("log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
        )
        with open(descriptor, "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "sare_tf.search.warm_server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        _STARTED.append(process)
        with process.stdin as stdin, process.stdout as stdout:
            with contextlib.suppress(BrokenPipeError):
                stdin.write(json.dumps(request).encode() + b"\n")
                stdin.flush()
            if not select.select([stdout], [], [], _START_S)[0]:
                process.kill()
                process.wait()
            report = stdout.readline()
        if report.endswith(b"\n"):
            _raise_again(json.loads(report))


def _raise_again(reply: Mapping[str, Any]) -> None:
    """Raises the error that a reply describes, if it does.

    Raises:
        An error of `_ERRORS`, or ValueError for one of another kind.
    """
    if "path" in reply:
        raise Damaged(reply["message"], path=reply["path"])
    if "kind" in reply:
        kind = _ERRORS.get(reply["kind"], ValueError)
        raise kind(reply["message"])
