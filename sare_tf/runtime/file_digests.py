"""Digests of files: whether they are still what was written.

    digests = file_digests.of(folder, ["manifest.parquet"])   # name -> SHA-256
    file_digests.check(folder, digests)                       # or a ValueError

They are the sums that `sha256sum` prints. Files are read as streams, one on
each core.
"""

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sare_tf.runtime.cores import CORES


def of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Returns the hex SHA-256 of files.

    Args:
        folder: the folder.
        names: paths of the files in it, with slashes.
    """
    names = list(names)
    # Digesting releases the interpreter's lock.
    with ThreadPoolExecutor(CORES) as pool:
        digests = pool.map(lambda name: _of_file(folder / name), names)
        return dict(zip(names, digests, strict=True))


def differing(folder: Path, expected: Mapping[str, str]) -> list[str]:
    """Returns the names of files that are not those of their digests.

    Args:
        folder: the folder.
        expected: what `of` returned when the files were written.

    Raises:
        OSError: a file cannot be read.
    """
    digests = of(folder, expected)
    return [name for name in expected if digests[name] != expected[name]]


def check(folder: Path, expected: Mapping[str, str]) -> None:
    """Refuses files that are not those of their digests.

    Raises:
        OSError: a file cannot be read.
        ValueError: names the files that differ.
    """
    if names := differing(folder, expected):
        raise ValueError(
            f"{', '.join(names)}: not as written, the SHA-256 is another"
        )


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
