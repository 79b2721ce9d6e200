"""Files in object storage: their sizes, and ranges of their bytes.

    https:// http://   HTTP with ranges, as object storage and web servers have
    gs:// and others   whatever `tf.io.gfile` reads; gs:// needs
                       `pip install "tensorflow[gcs-filesystem]"`

A file that is opened has a size, and over HTTP mostly an ETag. Each range that
comes is compared with them, so that a file that changes meanwhile is refused.
Requests that fail for a reason that may pass (no connection, an answer that
breaks off, 408, 429, 5xx) are repeated `ATTEMPTS` times, after longer and
longer pauses. Connections stay open. Proxies of the environment are not used.
"""

import atexit
import collections
import contextlib
import dataclasses
import functools
import http.client
import random
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from sare_tf import __version__

# Requests at a time. With 20 ms for each, 1,600 in a second.
REQUESTS = 32
# Of one request: together they take up to 13 s, and the time of the requests.
ATTEMPTS = 7
_PAUSE_S = 0.2
# Longest wait for a server to connect, or to send anything.
_TIMEOUT_S = 30.0
_REDIRECTS = 5
_MAY_PASS = {408, 425, 429, 500, 502, 503, 504}
_AGENT = {"User-Agent": f"sare_tf/{__version__}", "Accept-Encoding": "identity"}
# Connections that no request uses, by scheme and server.
_IDLE: dict[tuple[str, str], list[http.client.HTTPConnection]] = (
    collections.defaultdict(list)
)
# Files as they were when they were opened, by address.
_OPENED: dict[str, "OpenedFile"] = {}


class RemotePath(PurePosixPath):
    """A folder or file in object storage, such as `https://host/records`."""

    __slots__ = ()

    def __str__(self):
        # PurePosixPath has made one slash of two.
        return super().__str__().replace(":/", "://", 1)

    def absolute(self) -> "RemotePath":
        """Returns the path itself, as an address has no current folder."""
        return self

    def resolve(self) -> "RemotePath":
        """Returns the path itself, as an address has no links."""
        return self


def is_remote(path: object) -> bool:
    """Returns whether a path is an address, such as `gs://bucket/folder`."""
    return "://" in str(path)


@functools.cache
def pool() -> ThreadPoolExecutor:
    """Returns the threads of this process that wait for requests."""
    return ThreadPoolExecutor(REQUESTS, "sare_tf requests")


@dataclasses.dataclass(frozen=True)
class OpenedFile:
    """A remote file as it was when it was opened.

    Attributes:
        address: its address.
        size: its bytes.
        tag: its ETag; "" where the server has none.
    """

    address: str
    size: int
    tag: str = ""


class _MayPass(Exception):
    """A failure that may not come again."""

    def __init__(self, reason: str, *, wait_s: float = 0.0):
        super().__init__(reason)
        self.wait_s = wait_s


def opened(address: str) -> OpenedFile:
    """Asks for the size of a file, which is that of later ranges.

    Raises:
        FileNotFoundError: there is no such file.
        ConnectionError: the server cannot be reached, or refuses.
    """
    _OPENED[address] = _asked(address)
    return _OPENED[address]


def opened_before(address: str) -> OpenedFile:
    """Returns a file as it was when this process opened it last."""
    return _OPENED.get(address) or opened(address)


def read(address: str) -> bytes:
    """Reads a whole file; raises as `opened`."""
    if not _is_http(address):
        import tensorflow as tf

        with _explained_gfile(address), tf.io.gfile.GFile(address, "rb") as f:
            return f.read()
    return _answer("GET", address, {}, expected=(200,))[2]


def read_range(file: OpenedFile, start: int, length: int) -> bytes:
    """Reads some bytes of a file.

    Args:
        file: the file, as it was opened.
        start: position of the first byte.
        length: number of bytes, all of which the file has.

    Raises:
        FileNotFoundError: there is no such file any more.
        ConnectionError: the server cannot be reached, refuses, or does not
            answer ranges; or the file has changed.
    """
    end = start + length
    if end > file.size:
        raise ValueError(
            f"Expected a range within {file.size} bytes. Received: bytes "
            f"{start} to {end} of {file.address}."
        )
    if not _is_http(file.address):
        return _read_gfile(file, start, length)
    status, headers, content = _answer(
        "GET",
        file.address,
        {"Range": f"bytes={start}-{end - 1}"},
        expected=(200, 206, 416),
        length=length,
    )
    total = headers.get("content-range", "").rpartition("/")[2]
    tag = _tag(headers)
    if status == 206:
        is_changed = total.isdecimal() and int(total) != file.size
    else:
        is_changed = status == 416 or len(content) != file.size
    if is_changed or (tag and file.tag and tag != file.tag):
        raise ConnectionError(
            "Expected files that do not change while they are read. Received: "
            f"{file.address}, which has another "
            f"{'size' if is_changed else 'ETag'} than when it was opened. Run "
            "the command again, when nothing writes there."
        )
    if status == 200:
        raise ConnectionError(
            "Expected a server that answers ranges of bytes. Received: all of "
            f"{file.address} for {length} bytes of it. Copy the folder to a "
            "disk, or to storage that answers ranges."
        )
    return content


def _asked(address: str) -> OpenedFile:
    if not _is_http(address):
        import tensorflow as tf

        with _explained_gfile(address):
            return OpenedFile(address, tf.io.gfile.stat(address).length)
    _, headers, _ = _answer("HEAD", address, {}, expected=(200,))
    length = headers.get("content-length", "")
    if not length.isdecimal():
        raise ConnectionError(
            "Expected a server that states the sizes of files. Received: "
            f"{address} without Content-Length. Copy the folder to a disk, or "
            "to storage that states them."
        )
    return OpenedFile(address, int(length), _tag(headers))


def _is_http(address: str) -> bool:
    return address.startswith(("https://", "http://"))


def _tag(headers: Mapping[str, str]) -> str:
    return headers.get("etag", "")


def _answer(
    method: str,
    address: str,
    headers: Mapping[str, str],
    *,
    expected: tuple[int, ...],
    length: int | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Requests until an answer comes that is expected, whole.

    Args:
        method: GET or HEAD.
        address: of the file.
        headers: of the request.
        expected: statuses that are returned.
        length: bytes that an answer with status 206 has.
    """
    for attempt in range(ATTEMPTS):
        try:
            status, answered, content = _followed(method, address, headers)
            if status in _MAY_PASS:
                wait = answered.get("retry-after", "")
                raise _MayPass(
                    f"the answer {status}",
                    wait_s=min(float(wait) if wait.isdecimal() else 0, 30),
                )
            if status == 206 and len(content) != length:
                raise _MayPass(f"{len(content)} of {length} bytes")
            break
        except _MayPass as failure:
            if attempt + 1 == ATTEMPTS:
                raise ConnectionError(
                    f"Expected to read {address}. Received: {failure}, "
                    f"{ATTEMPTS} times. Run the command again when the server "
                    "can be reached."
                ) from failure
            pause = _PAUSE_S * 2**attempt * random.uniform(0.5, 1.0)
            time.sleep(max(pause, failure.wait_s))
    if status in expected:
        return status, answered, content
    if status in (404, 410):
        raise FileNotFoundError(
            f"Expected a file at {address}. Received: the answer {status}."
        )
    raise ConnectionError(
        f"Expected to be allowed to read {address}. Received: the answer "
        f"{status}. Check the address and who may read it."
    )


def _followed(
    method: str, address: str, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], bytes]:
    """Requests a file, also where the server says it is elsewhere."""
    for _ in range(_REDIRECTS):
        status, answered, content = _request(method, address, headers)
        if status not in (301, 302, 303, 307, 308):
            return status, answered, content
        address = urllib.parse.urljoin(address, answered.get("location", ""))
    return status, answered, content


def _request(
    method: str, address: str, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], bytes]:
    """Makes one request, over a connection that is open already if possible."""
    url = urllib.parse.urlsplit(address)
    idle = _IDLE[url.scheme, url.netloc]
    target = urllib.parse.quote(url.path or "/", safe="/%")
    target += f"?{url.query}" if url.query else ""
    while True:
        try:
            connection, is_new = idle.pop(), False
        except IndexError:
            connection, is_new = _connection(url.scheme, url.netloc), True
        try:
            connection.request(method, target, headers={**_AGENT, **headers})
            with connection.getresponse() as response:
                content = response.read()
                answered = {k.lower(): v for k, v in response.getheaders()}
                is_kept = not response.will_close
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            if is_new:
                raise _MayPass(f"{type(error).__name__}: {error}") from error
            # Mostly a connection that the server closed when it was idle.
            continue
        if is_kept:
            idle.append(connection)
        else:
            connection.close()
        return response.status, answered, content


@atexit.register
def _close_idle() -> None:
    for connections in _IDLE.values():
        for connection in connections:
            connection.close()


def _connection(scheme: str, server: str) -> http.client.HTTPConnection:
    kinds = {
        "https": http.client.HTTPSConnection,
        "http": http.client.HTTPConnection,
    }
    if scheme not in kinds:
        raise ConnectionError(
            "Expected a server that leads to https:// or http://. Received: "
            f"{scheme}://{server}."
        )
    return kinds[scheme](server, timeout=_TIMEOUT_S)


def _read_gfile(file: OpenedFile, start: int, length: int) -> bytes:
    import tensorflow as tf

    with (
        _explained_gfile(file.address),
        tf.io.gfile.GFile(file.address, "rb") as opened_file,
    ):
        opened_file.seek(start)
        content = opened_file.read(length)
    if len(content) != length:
        raise ConnectionError(
            "Expected files that do not change while they are read. Received: "
            f"{len(content)} of {length} bytes from {file.address}. Run the "
            "command again, when nothing writes there."
        )
    return content


@contextlib.contextmanager
def _explained_gfile(address: str) -> Iterator[None]:
    """Raises errors of files for those of TensorFlow."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(
            f"Expected a file at {address}. Received: none."
        ) from error
    except tf.errors.OpError as error:
        raise ConnectionError(
            f"Expected to read {address}. Received: "
            f"{str(error).splitlines()[0]}. gs:// needs pip install "
            '"tensorflow[gcs-filesystem]"; other storage has to be copied, or '
            "read by https://."
        ) from error
