"""Which photographs are in a folder, by names, sizes and times only."""

import dataclasses
import hashlib
import os
from pathlib import Path

from sare_tf.dataset.readers import files_on_disk


@dataclasses.dataclass(frozen=True)
class Listing:
    """The photographs of a folder.

    Attributes:
        count: their number.
        digest: of their names, sizes and times of change.
    """

    count: int
    digest: str


def list_photographs(folder: Path) -> Listing:
    """Lists the photographs of a folder and of the folders in it.

    No file is opened.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: there is no photograph in it.
    """
    if not folder.is_dir():
        kind = "a file" if folder.exists() else "which does not exist"
        raise FileNotFoundError(
            "Expected a folder of photographs. Received: "
            f"--photos={str(folder)!r}, {kind}. Photographs to look up come "
            "after the flags."
        )
    digest, count, others = hashlib.sha256(), 0, []
    for name in files_on_disk.walk(folder):
        if not files_on_disk.is_image(name):
            others.append(name)
            continue
        size, modified_ns = _status(folder / name)
        line = f"{name}\0{size}\0{modified_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
        count += 1
    if not count:
        raise ValueError(_without_photographs(folder, others))
    return Listing(count, digest.hexdigest())


def _status(path: Path) -> tuple[int, int]:
    """Returns size and time; -1 for a file that vanished or cannot be read."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _without_photographs(folder: Path, others: list[str]) -> str:
    received = "no file" if not others else f"{len(others)} other files"
    if others:
        received += f", such as {others[0]}"
    return (
        "Expected photographs in the folder: files that end in "
        f"{', '.join(files_on_disk.EXTENSIONS)}. Received: "
        f"--photos={str(folder)!r} with {received}. Put photographs there, or "
        "name another folder."
    )
