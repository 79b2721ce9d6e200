"""What all readers share: walking a folder, and what a reading is."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

EXTENSIONS = (".jpg", ".jpeg", ".png")
ROLES = {"database": "database", "queries": "query"}


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a reader found.

    Attributes:
        manifest: one row per image; `image_id` is the path relative to `root`.
        root: folder that the image ids are relative to.
        rejected: (path relative to `root`, reason) of files left out.
    """

    manifest: pd.DataFrame
    root: Path
    rejected: list[tuple[str, str]]


def image_root(dataset: Path) -> Path:
    """The folder `images` of a dataset where it has one, else itself."""
    images = dataset / "images"
    return images if images.is_dir() else dataset


def walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, sorted; follows links, but no circle twice.

    Hidden files and folders are passed over, as operating systems leave them.
    """
    yield from _walk(folder, frozenset())


def is_image(path: Path) -> bool:
    """True for the extensions that are read, in any case."""
    return path.suffix.lower() in EXTENSIONS


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    above = above | {identity}
    with os.scandir(folder) as entries:
        names = sorted(
            (entry.name, entry.is_dir())
            for entry in entries
            if not entry.name.startswith(".")
        )
    for name, is_folder in names:
        if is_folder:
            yield from _walk(folder / name, above)
        else:
            yield folder / name
