"""Files of a dataset: finding them, and reading tables and lists."""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from sare_tf.dataset.manifest import BLOCK_ROWS
from sare_tf.dataset.names import SPLITS
from sare_tf.dataset.sqlite_database import sorted_names
from sare_tf.runtime import text_files

EXTENSIONS = (".jpg", ".jpeg", ".png")
# Read with the extra heif, see `dataset.heif`.
HEIF_EXTENSIONS = (".heic", ".heif")
# Copies of photographs by Synology, macOS (in zip files) and Windows.
_OF_SYSTEMS = {"@eaDir", "__MACOSX", "$RECYCLE.BIN"}
# Folder of a layout -> role of its images.
ROLE_FOLDERS = {"database": "database", "queries": "query"}


def is_image(path: str | os.PathLike[str]) -> bool:
    """Returns whether a name ends as an image's does, in any case."""
    ending = os.path.splitext(path)[1].lower()
    return ending in EXTENSIONS or ending in HEIF_EXTENSIONS


def walk(folder: Path) -> Iterator[str]:
    """Yields all files below a folder, sorted; follows links, but no circle.

    Hidden files and folders are left out, as operating systems leave them, and
    the folders of thumbnails and deleted files that some of them make.

    Yields:
        Paths relative to the folder, with slashes.
    """
    yield from _walk(os.fspath(folder), "", frozenset())


def image_root(dataset: Path) -> Path:
    """Returns the folder `images` of a dataset if it has one, else itself."""
    images = dataset / "images"
    return images if images.is_dir() else dataset


def split_folders(root: Path) -> list[str]:
    """Returns which of the folders train, val and test are at the top.

    Raises:
        ValueError: one is, beside database/ or queries/.
    """
    splits = [name for name in SPLITS if (root / name).is_dir()]
    roles = [name for name in ROLE_FOLDERS if (root / name).is_dir()]
    if splits and roles:
        raise ValueError(
            "Expected either split folders or database/ and queries/ at the "
            f"top. Received: dataset={str(root)!r} with {splits + roles}."
        )
    return splits


def only_file(dataset: Path, *patterns: str) -> Path:
    """Returns the only file at the top of a dataset that matches.

    Args:
        dataset: the folder.
        *patterns: glob patterns; the first that any file matches counts.

    Raises:
        ValueError: no file matches, or several do.
    """
    matches = []
    for pattern in patterns:
        matches = sorted(
            path for path in dataset.glob(pattern) if path.name[0] != "."
        )
        if matches:
            break
    if len(matches) != 1:
        raise ValueError(
            f"Expected one file {' or '.join(patterns)} in the dataset. "
            f"Received: dataset={str(dataset)!r} with "
            + (", ".join(path.name for path in matches) or "none")
            + ". Choose another --reader, or move the others away."
        )
    return matches[0]


def read_table(path: Path, *columns: str) -> pd.DataFrame:
    """Reads a CSV file of a known dataset; every value is text.

    Args:
        path: the file.
        *columns: columns that it must have.

    Raises:
        ValueError: the file is absent or unreadable, or lacks a column.
    """
    return pd.concat(read_blocks(path, *columns), ignore_index=True)


def read_blocks(path: Path, *columns: str) -> Iterator[pd.DataFrame]:
    """Reads a CSV file as `read_table` does, some rows at a time.

    Yields:
        At least one block.
    """
    try:
        with pd.read_csv(
            path,
            dtype=str,
            keep_default_na=False,
            encoding=text_files.encoding_of(path),
            chunksize=BLOCK_ROWS,
        ) as blocks:
            for block in blocks:
                _check_columns(path, block, columns)
                yield block
    except (
        OSError,
        UnicodeError,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
    ) as error:
        raise ValueError(
            f"Expected a CSV file. Received: path={str(path)!r} ({error}). "
            "Check --dataset, or get the file again."
        ) from error


def read_lines(path: Path) -> Iterator[str]:
    """Yields the lines of a text file that are not empty, without spaces.

    Raises:
        ValueError: the file is absent, or neither UTF-8 nor UTF-16.
    """
    return filter(None, map(str.strip, text_files.read_lines(path)))


def number(text: str) -> float:
    """Returns a number of a table; NaN if the text is none."""
    try:
        # Typeset tables have a minus sign. Python reads 1_000 as 1000.
        return float(text.replace("\u2212", "-").replace("_", "?"))
    except ValueError:
        return float("nan")


class Spellings:
    """Finds files whose names differ from a list only in their accents.

    Unicode has two spellings of a letter with an accent. File systems of macOS
    write the longer one, tables mostly hold the shorter one.

    Args:
        root: a folder. Each folder below it is listed once.
    """

    def __init__(self, root: Path):
        self._root = root
        self._listed = {}

    def find(self, path: PurePosixPath) -> str:
        """Returns a path below the root as it is on disk; empty if absent."""
        spelled = PurePosixPath()
        for name in path.parts:
            if not os.path.lexists(self._root / spelled / name):
                short = unicodedata.normalize("NFC", name)
                name = self._names(spelled).get(short, "")
                if not name:
                    return ""
            spelled /= name
        return str(spelled) if os.path.isfile(self._root / spelled) else ""

    def _names(self, folder: PurePosixPath) -> dict[str, str]:
        """Returns shorter spelling -> name of the files of a folder."""
        if folder not in self._listed:
            try:
                names = os.listdir(self._root / folder)
            except OSError:
                names = []
            self._listed[folder] = {
                unicodedata.normalize("NFC", name): name
                for name in names
                if not name.isascii()
            }
        return self._listed[folder]


def _check_columns(
    path: Path, table: pd.DataFrame, columns: Sequence[str]
) -> None:
    missing = [name for name in columns if name not in table]
    if missing:
        raise ValueError(
            f"Expected the columns {', '.join(columns)}. Received: "
            f"path={str(path)!r} without {missing}. Choose another --reader, "
            "or get the file again."
        )


def _is_folder(entry: os.DirEntry) -> bool:
    """Returns False for a link to itself, too: reading it will say why."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _walk(
    folder: str, below: str, above: frozenset[tuple[int, int]]
) -> Iterator[str]:
    """Yields files of a folder, each after its path `below` the first one."""
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    above = above | {identity}
    with os.scandir(folder) as entries:
        # A folder is marked by a character that no name holds, and so sorts
        # before all names that begin with its own.
        names = sorted_names(
            entry.name + "\0" * _is_folder(entry)
            for entry in entries
            if not entry.name.startswith(".") and entry.name not in _OF_SYSTEMS
        )
        for name in names:
            if name.endswith("\0"):
                name = name[:-1]
                inside = os.path.join(folder, name)
                yield from _walk(inside, f"{below}{name}/", above)
            else:
                yield below + name
