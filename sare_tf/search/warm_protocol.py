"""What a warm process and the commands that it answers agree on.

A warm process holds an opened index and its model, and answers later calls of
`locate --keep_warm`. It listens at a Unix socket in a folder that only the user
may enter:

    $XDG_RUNTIME_DIR/sare_tf/      or sare_tf-<user id>/ among temporary files
        <key>.sock                 the socket; <key> stands for the settings
        <key>.lock                 held while a process is started
        <key>.log                  what the process logs

A message is a line of JSON and the bytes that its `sizes` announce. A command
first says which code, index and model it means. A process that has loaded
others ends, so that no answer comes from an index that was replaced, or from
another version. This module needs neither numpy nor TensorFlow.
"""

import hashlib
import json
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from sare_tf import __version__
from sare_tf.search import bound_file, index_folders
from sare_tf.serving import export_folder

# Ours. Bytes of the longest line, of a photograph and of all those of a batch.
_MOST_LINE, _MOST_BYTES, _MOST_OF_ALL = 1 << 24, 1 << 29, 1 << 32
# A socket's name has at most 107 bytes on Linux, and 103 on macOS.
_MOST_PATH = 103
_PACKAGE = Path(__file__).parents[1]


def key_of(settings: Mapping[str, Any]) -> str:
    """Returns the name of the process of these settings.

    Args:
        settings: of `warm_server.load`, with absolute paths.
    """
    identity = [settings, sys.executable, str(_PACKAGE)]
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content_of(settings: Mapping[str, Any]) -> str:
    """Returns a digest of the code, the index and the model as they are now.

    index.json is written last and names the digests of all other files;
    sare_tf.json holds the fingerprint of the model.

    Args:
        settings: of `warm_server.load`, with absolute paths.

    Raises:
        FileNotFoundError: the export does not exist.
    """
    digest = hashlib.sha256(f"{__version__} {_newest_source()}".encode())
    files = [
        folder / name
        for folder in index_folders.expand(settings["index"])
        for name in ("index.json", *bound_file.NAMES)
    ]
    export = settings["servable"].get("export")
    if export and not settings["servable"].get("server"):
        files.append(export_folder.version_of(Path(export)) / "sare_tf.json")
    for file in files:
        content = file.read_bytes() if file.is_file() else b"absent"
        digest.update(f"{file}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def runtime_folder() -> Path:
    """Makes the folder of sockets, and returns it.

    Raises:
        OSError: Unix sockets are missing, or the folder is open to others.
    """
    if not hasattr(socket, "AF_UNIX") or not hasattr(os, "getuid"):
        raise OSError(
            "Expected a system with Unix sockets for --keep_warm. Received: "
            f"{sys.platform}. Leave out --keep_warm."
        )
    user = os.getuid()
    system = os.environ.get("XDG_RUNTIME_DIR", "")
    candidates = [Path(tempfile.gettempdir()) / f"sare_tf-{user}"]
    if system and os.path.isdir(system) and os.access(system, os.W_OK):
        candidates.insert(0, Path(system) / "sare_tf")
    candidates.append(Path(f"/tmp/sare_tf-{user}"))
    folder = next(
        (one for one in candidates if len(str(one)) + 22 <= _MOST_PATH),
        candidates[-1],
    )
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    is_own = (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == user
        and not status.st_mode & 0o077
    )
    if not is_own:
        raise OSError(
            "Expected a folder that only this user may enter, for --keep_warm. "
            f"Received: {str(folder)!r} of user {status.st_uid} with mode "
            f"{stat.S_IMODE(status.st_mode):o}. Remove it, or leave out "
            "--keep_warm."
        )
    return folder


def send(stream: BinaryIO, message: Mapping[str, Any], *parts: bytes) -> None:
    """Sends a message.

    Args:
        stream: of a socket.
        message: what JSON can hold.
        *parts: bytes that follow it.
    """
    sizes = [len(part) for part in parts]
    stream.write(json.dumps({**message, "sizes": sizes}).encode() + b"\n")
    for part in parts:
        stream.write(part)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], Sequence[bytes]]:
    """Receives a message and its parts.

    Args:
        stream: of a socket.

    Raises:
        EOFError: the other side has ended.
        ValueError: what comes is no message.
    """
    line = stream.readline(_MOST_LINE)
    if not line.endswith(b"\n"):
        raise EOFError
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError(f"no message: {line[:40]!r}")
    sizes = message.pop("sizes", None)
    if not isinstance(sizes, list) or not all(
        type(size) is int and 0 <= size <= _MOST_BYTES for size in sizes
    ):
        raise ValueError(f"no sizes: {line[:40]!r}")
    if sum(sizes) > _MOST_OF_ALL:
        raise ValueError(f"{sum(sizes)} bytes are too many")
    parts = [stream.read(size) for size in sizes]
    if [len(part) for part in parts] != sizes:
        raise EOFError
    return message, parts


def _newest_source() -> int:
    """Returns when a module of this package last changed, in nanoseconds."""
    return max(
        entry.stat().st_mtime_ns
        for folder, _, _ in os.walk(_PACKAGE)
        for entry in os.scandir(folder)
        if entry.name.endswith(".py")
    )
