"""Writing whole files and folders or nothing: temporary name, then rename."""

import contextlib
import fnmatch
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def folder_in_one_piece(path: str | Path) -> Iterator[Path]:
    """Gives a temporary folder that takes the place of `path` at the end.

    An existing `path` is replaced only once the new folder is complete; after
    an error or a kill it is as it was. The leftover of a killed run is removed
    by the next one.
    """
    path = Path(path)
    temporary = _prepare(path)
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir()
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _put_in_place(temporary, path)


class Unfinished:
    """A folder being filled, and how far it is.

    Attributes:
        folder: the temporary folder.
        done: what was recorded last, by this run or one before; 0 at first.
    """

    def __init__(self, folder: Path, made_from: dict[str, Any]):
        self.folder = folder
        self._progress = folder.with_name(f"{folder.name}.json")
        self._made_from = made_from
        self.done = 0
        if folder.is_dir() and self._progress.is_file():
            found = json.loads(self._progress.read_text(encoding="utf-8"))
            if found["made_from"] == made_from:
                self.done = found["done"]
                return
        self.forget()
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        self.record(0)

    def record(self, done: int) -> None:
        """Records how far it is; what is done must be on the disk."""
        write_json(self._progress, {"made_from": self._made_from, "done": done})
        self.done = done

    def forget(self) -> None:
        """Removes the record."""
        self._progress.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_to_resume(
    path: str | Path, made_from: dict[str, Any]
) -> Iterator[Unfinished]:
    """As `folder_in_one_piece`, for work that goes on after a kill.

    The temporary folder stays after an error or a kill. The next run goes on
    with it if `made_from` is the same, and starts with an empty one if not.

    Args:
        path: the folder to make.
        made_from: what decides the result, as JSON holds it.
    """
    path = Path(path)
    unfinished = Unfinished(_prepare(path), made_from)
    yield unfinished
    _put_in_place(unfinished.folder, path)
    unfinished.forget()


def put_back(path: str | Path) -> None:
    """Puts a folder back whose replacement a kill stopped half way."""
    path = Path(path)
    replaced = path.with_name(f".{path.name}.replaced")
    if replaced.exists() and not path.exists():
        replaced.rename(path)


def _prepare(path: Path) -> Path:
    """Clears what a kill left of a replacement; names a temporary folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    put_back(path)
    replaced = path.with_name(f".{path.name}.replaced")
    if replaced.exists():
        shutil.rmtree(replaced)
    return path.with_name(f".{path.name}.unfinished")


def _put_in_place(temporary: Path, path: Path) -> None:
    replaced = path.with_name(f".{path.name}.replaced")
    if path.exists():
        path.rename(replaced)
    temporary.rename(path)
    if replaced.exists():
        shutil.rmtree(replaced)


def settle_folder(path: Path) -> None:
    """After a kill in `folder_in_one_piece`: removes what is left beside."""
    temporary, replaced = _names_beside(path)
    if replaced.exists() and not path.exists():
        replaced.rename(path)
    for leftover in (temporary, replaced):
        if leftover.exists():
            shutil.rmtree(leftover)


def _names_beside(path: Path) -> tuple[Path, Path]:
    """Of the folder that is made, and of the one that it replaces."""
    return tuple(
        path.with_name(f".{path.name}.{state}")
        for state in ("unfinished", "replaced")
    )


@contextlib.contextmanager
def explained_writing(what: str, folder: str | Path) -> Iterator[None]:
    """Says what was being written where, if the system does not let us.

    Raises:
        OSError: in place of that of the system.
    """
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"Expected to write {what}. Received: folder={str(folder)!r} "
            f"({error.strerror or error}). Make room, or choose another "
            "folder, and run the command again: what is finished is kept.",
        ) from error


def link_or_copy(source: Path, target: Path) -> None:
    """Gives a file a second name; copies it where file systems cannot.

    Neither name's content may be changed after.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def check_replaceable(out: str | Path, *, names: set[str]) -> None:
    """Refuses to replace a folder that holds anything else than `names`.

    Args:
        out: the folder.
        names: of files and folders in it; `*` stands for anything.

    Raises:
        ValueError: names what else is there.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(
            f"Expected a folder to write to. Received: out={str(out)!r}, "
            "which is a file. Choose another folder."
        )
    others = [
        child.name
        for child in (out.iterdir() if out.is_dir() else [])
        if not any(fnmatch.fnmatch(child.name, name) for name in names)
    ]
    if others:
        raise ValueError(
            f"Expected a new or empty folder, or an earlier result: only "
            f"{sorted(names)}. Received: out={str(out)!r}, which also holds "
            f"{sorted(others)[:5]} and would be replaced. Choose another "
            "folder."
        )


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file in one piece."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.unfinished")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: str | Path, value: Any) -> None:
    """Writes JSON in one piece, readable and sorted as given."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path, *, made_by: str) -> Any:
    """Reads JSON.

    Raises:
        FileNotFoundError: it is not there; names the command that makes it.
        ValueError: it is not JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected {path.name} in a finished folder. Received: "
            f"path={str(path)!r}, which does not exist. Run {made_by} first."
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"Expected JSON. Received: path={str(path)!r} ({error}). The "
            f"folder is damaged: delete it and run {made_by} again."
        ) from error


def fingerprint(paths: list[Path], *, relative_to: Path) -> str:
    """sha256 over names and contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(str(path.relative_to(relative_to)).encode() + b"\0")
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
