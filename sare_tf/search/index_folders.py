"""Which folders of indexes, or parts of one, a path stands for."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartAddress:
    """A part of an index that another process searches.

    Args:
        url: http://host:port of a `locate --serve`.
        timeout_s: seconds for each of its answers.
        start_s: seconds to wait until it is there.
    """

    url: str
    timeout_s: float = 10.0
    start_s: float = 60.0

    def __str__(self) -> str:
        return self.url


IndexPath = str | Path | PartAddress


def is_address(path: IndexPath) -> bool:
    """Returns whether a path is the address of a part in another process."""
    return str(path).startswith(("http://", "https://"))


def expand(paths: Iterable[IndexPath]) -> list[Path | PartAddress]:
    """Returns the folders of indexes, and the parts, that paths stand for.

    Args:
        paths: folders of indexes, or of such folders, which are taken in the
            order of their names; or addresses of parts.
    """
    expanded = []
    for path in paths:
        if isinstance(path, PartAddress):
            expanded.append(path)
        elif is_address(path):
            expanded.append(PartAddress(url=str(path)))
        else:
            expanded += _folders(Path(path))
    return expanded


def _folders(path: Path) -> list[Path]:
    shards = []
    if path.is_dir() and not (path / "index.json").is_file():
        shards = sorted(child.parent for child in path.glob("[!.]*/index.json"))
    return shards or [path]
