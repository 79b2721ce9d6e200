"""Downloads of files: checked, and whole or not at all.

A file is streamed to a temporary name beside its place, compared with the
length that the server stated and with its SHA-256, and then renamed. An error
leaves nothing behind.
"""

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from sare_tf import __version__
from sare_tf.runtime import atomic_files, progress, run_lock

_CHUNK_BYTES = 1 << 20
_AGENT = {"User-Agent": f"sare_tf/{__version__}"}


def fetch(
    url: str, path: str | Path, *, sha256: str, timeout_s: float = 30.0
) -> Path:
    """Downloads a file, unless it is there already.

    Proxies are those of the environment (`https_proxy`).

    Args:
        url: its address.
        path: where it goes. Its folder is made.
        sha256: the digest, in hex, or the beginning of it.
        timeout_s: the longest wait for the server to send anything.

    Returns:
        `path`.

    Raises:
        ConnectionError: the server cannot be reached, refuses, or breaks off.
        OSError: the file cannot be written.
        ValueError: the file that came, or that lies there, has another digest.
    """
    path = Path(path)
    if path.exists():
        _check_digest(path, _digest_of(path), sha256, url=url, place=path)
        return path
    with atomic_files.explained_writing("a download", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with run_lock.only_run(path), atomic_files.file_in_one_piece(path) as part:
        logging.info("Downloading %s.", url)
        try:
            with _opened(url, timeout_s) as response:
                digest = _stream(response, part)
        except _Failure as error:
            raise ConnectionError(
                f"Expected to download {path.name}. Received: {error}, from "
                f"{url}. {advice(url, path)}, or try again."
            ) from error
        _check_digest(part, digest, sha256, url=url, place=path)
    return path


def advice(url: str, path: str | Path) -> str:
    """Says how to get a file by hand, such as without a network."""
    return f"Fetch {url} on any machine and put it at {str(path)!r}"


class _Failure(Exception):
    """The reason why a download failed."""


def _opened(url: str, timeout_s: float) -> http.client.HTTPResponse:
    try:
        request = urllib.request.Request(url, headers=_AGENT)
        # `urlopen` would keep the proxies that were set at its first call.
        opener = urllib.request.build_opener()
        return opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        raise _Failure(f"the answer {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise _Failure(f"no connection ({reason})") from error


def _stream(response: http.client.HTTPResponse, part: Path) -> str:
    """Writes what a server sends, and returns its digest.

    Raises:
        OSError: the file cannot be written.
        _Failure: the server breaks off.
    """
    stated = response.headers.get("Content-Length", "")
    total = int(stated) if stated.isdecimal() else None
    digest, received = hashlib.sha256(), 0
    with (
        atomic_files.explained_writing("a download", part.parent),
        part.open("wb") as file,
        progress.bar("download", total=total, unit="B") as bar,
    ):
        for chunk in _chunks(response):
            file.write(chunk)
            digest.update(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    if total is not None and received != total:
        raise _Failure(
            f"a download that broke off after {received:,} of {total:,} bytes"
        )
    return digest.hexdigest()


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _Failure(f"a download that broke off ({error})") from error
        if not chunk:
            return
        yield chunk


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_digest(
    path: Path, digest: str, expected: str, *, url: str, place: Path
) -> None:
    """Refuses a file of another digest.

    Args:
        path: the file.
        digest: its digest.
        expected: the beginning of the digest that it should have.
        url: where it comes from.
        place: where it belongs.
    """
    if digest.startswith(expected):
        return
    what = "a download" if path != place else f"path={str(path)!r}"
    remedy = "Try again later" if path != place else "Delete it and try again"
    raise ValueError(
        f"Expected {place.name} with a SHA-256 that begins with "
        f"{expected[:16]}. Received: {what} of {path.stat().st_size:,} bytes "
        f"with {digest[:16]}, which is damaged or another file. {remedy}; a "
        f"proxy may have answered in place of {url}."
    )
