"""The tables and shards of records in object storage."""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from sare_tf.runtime import remote_files
from sare_tf.runtime.remote_files import RemotePath

_TABLES = ("records.json", "manifest.parquet", "relations.parquet")


def joined(folder: Path | RemotePath, name: str) -> Path | RemotePath:
    """Returns the path of a shard, whose name may be a whole path."""
    if remote_files.is_remote(name):
        return RemotePath(name)
    return folder / name


@contextlib.contextmanager
def tables(
    folder: RemotePath,
) -> Iterator[tuple[Path, Callable[[str], int]]]:
    """Copies the tables to a disk, and opens the shards.

    Yields:
        A folder with the tables, which is removed afterwards, and a function
        that returns the bytes of a shard.

    Raises:
        ConnectionError: a server does not give them.
        FileNotFoundError: no finished records are there.
    """
    with tempfile.TemporaryDirectory() as copy:
        copy = Path(copy)
        for name in _TABLES:
            try:
                content = remote_files.read(str(folder / name))
            except FileNotFoundError as error:
                if name == "relations.parquet":
                    continue
                raise FileNotFoundError(
                    "Expected finished records. Received: "
                    f"records={str(folder)!r}. {error} Build records on a "
                    "disk, and copy the folder there."
                ) from error
            (copy / name).write_bytes(content)
        names = _shards(copy / "records.json")
        # Each takes a request.
        addresses = [str(folder / name) for name in names]
        files = remote_files.pool().map(remote_files.opened, addresses)
        sizes = {
            name: file.size for name, file in zip(names, files, strict=True)
        }
        try:
            yield copy, sizes.__getitem__
        except ValueError as error:
            message = str(error).replace(str(copy), str(folder))
            raise ValueError(message) from error


def _shards(path: Path) -> list[str]:
    """Returns the names of the shards, if records.json can be read at all."""
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["shards"])
    except (ValueError, KeyError, TypeError):
        return []  # whoever opens the tables says what is wrong with them
