"""Writing whole files and folders or nothing: temporary name, then rename."""

import contextlib
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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.unfinished")
    replaced = path.with_name(f".{path.name}.replaced")
    if replaced.exists() and not path.exists():
        replaced.rename(path)
    for leftover in (temporary, replaced):
        if leftover.exists():
            shutil.rmtree(leftover)
    temporary.mkdir()
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
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

    Raises:
        ValueError: names what else is there.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(
            f"Expected a folder to write to. Received: out={str(out)!r}, "
            "which is a file. Choose another folder."
        )
    others = out.is_dir() and {child.name for child in out.iterdir()} - names
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
