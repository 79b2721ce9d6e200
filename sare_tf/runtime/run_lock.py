"""One run at a time in an output: the second is refused at once.

While a stage writes NAME, it holds a lock on a file beside it:

    .NAME.lock   process, host, start and command of the run, as JSON

The system releases the lock when the process ends, however it ends, so a file
that a kill left behind stops nobody; the next run removes it. Workers of
distributed training and of Beam belong to the run of the process that holds the
lock. On file systems without locks, a warning takes its place.
"""

import contextlib
import datetime
import functools
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import logging

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def only_run(path: str | Path | None) -> Iterator[None]:
    """Holds the lock of an output.

    Args:
        path: the folder or file that is written; None: nothing is.

    Raises:
        BlockingIOError: another run writes it.
    """
    if path is None or "://" in str(path) or fcntl is None:
        yield
        return
    target = Path(path).resolve()
    lock = target.with_name(f".{target.name}.lock")
    with _folders(lock.parent):
        descriptor = _acquire(lock, path)
        try:
            yield
        finally:
            if descriptor is not None:
                # Removed while it is held: whoever waits for it looks again.
                lock.unlink(missing_ok=True)
                os.close(descriptor)


def one_at_a_time(name: str) -> Callable:
    """Makes a decorator of a stage's `run`, which then holds a lock.

    Args:
        name: attribute of the options that is the path of the output, or None
            where the stage writes nothing.
    """

    def decorate(run: Callable) -> Callable:
        @functools.wraps(run)
        def locked(options: Any, **keywords: Any) -> Any:
            with only_run(getattr(options, name)):
                return run(options, **keywords)

        return locked

    return decorate


@contextlib.contextmanager
def _folders(folder: Path) -> Iterator[None]:
    """Makes a folder, and removes it if it is empty in the end."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    # If it cannot be made, the stage says so when it writes.
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for one in made:
                one.rmdir()


def _acquire(lock: Path, path: str | Path) -> int | None:
    """Returns a descriptor that holds the lock, or None if there are none."""
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:  # The stage says so when it writes.
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(lock, descriptor):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, json.dumps(_this_run()).encode())
                return descriptor
        except BlockingIOError as error:
            holder = os.pread(descriptor, 1 << 16, 0)
            os.close(descriptor)
            raise _refusal(path, holder) from error
        except OSError as error:
            logging.warning(
                "The file system of %s has no locks (%s): run one command at a "
                "time in it.",
                *(lock.parent, error.strerror),
            )
            os.close(descriptor)
            lock.unlink(missing_ok=True)
            return None
        os.close(descriptor)


def _is_at(lock: Path, descriptor: int) -> bool:
    """Returns whether a descriptor is that of the file in place."""
    try:
        return os.path.samestat(os.stat(lock), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _this_run() -> dict[str, Any]:
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "started": f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}",
        "command": " ".join(sys.argv),
    }


def _refusal(path: str | Path, holder: bytes) -> BlockingIOError:
    who = "another run"
    with contextlib.suppress(ValueError, KeyError, TypeError):
        run = json.loads(holder)
        who = (
            f"process {run['process']} of host {run['host']} since "
            f"{run['started']} ({run['command']})"
        )
    return BlockingIOError(
        f"Expected one run at a time. Received: {str(path)!r}, which is being "
        f"written by {who}. Wait for it, stop it, or choose another folder."
    )
