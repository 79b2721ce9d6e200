"""Which folders of indexes a path stands for."""

from collections.abc import Iterable
from pathlib import Path


def expand(paths: Iterable[str | Path]) -> list[Path]:
    """Returns the folders of indexes that paths stand for.

    Args:
        paths: folders of indexes, or of such folders, which are taken in the
            order of their names.
    """
    folders = []
    for path in map(Path, paths):
        shards = []
        if path.is_dir() and not (path / "index.json").is_file():
            shards = sorted(
                child.parent for child in path.glob("[!.]*/index.json")
            )
        folders += shards or [path]
    return folders
