"""Files and folders written whole or not at all: temporary name, then rename.

A file or folder NAME has two companions beside it while it is written:

    .NAME.unfinished   the new one, until it is complete
    .NAME.replaced     the old folder, until the new one is in its place

Files are replaced by one rename. Folders need two, so a kill between them
leaves no folder of the name; the next run puts the old one back.

Before a rename, what is renamed is forced to the disk, and after it the folder
of the name: a power loss leaves the old content or the new one, too.
"""

import contextlib
import fnmatch
import hashlib
import json
import operator
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def flush(path: str | Path) -> None:
    """Forces a file, or a folder and all that is in it, to the disk."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            flush(child)
        _flush_names(path)
    elif path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _flush_names(folder: Path) -> None:
    """Forces the names of files in a folder to the disk."""
    # Not every file system, nor Windows, opens or forces folders.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _Replacement:
    """A folder, or file, that is replaced; see the module."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.unfinished = self.path.with_name(f".{self.path.name}.unfinished")
        self._replaced = self.path.with_name(f".{self.path.name}.replaced")

    def recover(self) -> None:
        """Undoes or completes the renames of a folder that a kill stopped."""
        if self._replaced.exists():
            if self.path.exists():
                shutil.rmtree(self._replaced)
            else:
                self._replaced.rename(self.path)

    def begin(self) -> None:
        """Recovers, and makes the folder that all this lies in."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.recover()

    def discard(self) -> None:
        """Removes the unfinished folder."""
        if self.unfinished.exists():
            shutil.rmtree(self.unfinished)

    def commit(self) -> None:
        """Puts the unfinished folder in place of the old one."""
        flush(self.unfinished)
        if self.path.exists():
            self.path.rename(self._replaced)
        self.unfinished.rename(self.path)
        _flush_names(self.path.parent)
        self.recover()


@contextlib.contextmanager
def folder_in_one_piece(path: str | Path) -> Iterator[Path]:
    """Makes a folder in one piece.

    An existing `path` is replaced only once the new folder is complete; after
    an error or a kill it is as it was. The next run removes what a killed one
    left.

    Args:
        path: the folder to make, or to replace.

    Yields:
        A temporary folder, which takes the place of `path` after the body.
    """
    replacement = _Replacement(path)
    replacement.begin()
    replacement.discard()
    replacement.unfinished.mkdir()
    try:
        yield replacement.unfinished
    except BaseException:
        shutil.rmtree(replacement.unfinished, ignore_errors=True)
        raise
    replacement.commit()


class Unfinished:
    """A folder that is being filled, and how far it is.

    Attributes:
        folder: the temporary folder.
        done: the progress recorded last, by this run or an earlier one; 0 at
            first.
        sha256: the digest that was recorded with it; empty for none.
    """

    def __init__(self, folder: Path, made_from: dict[str, Any]):
        self.folder = folder
        self._progress = folder.with_name(f"{folder.name}.json")
        self._made_from = made_from
        self.done, self.sha256 = 0, ""
        if not (folder.is_dir() and self._read()):
            self.start_over()

    def _read(self) -> bool:
        """Reads the record; returns whether it is of the same work."""
        try:
            recorded = json.loads(self._progress.read_text(encoding="utf-8"))
            if recorded["made_from"] != self._made_from:
                return False
            self.done = operator.index(recorded["done"])
            self.sha256 = recorded.get("sha256", "")
        # Absent, or damaged: the work begins again.
        except (KeyError, OSError, RecursionError, TypeError, ValueError):
            return False
        return True

    def start_over(self) -> None:
        """Empties the folder."""
        self.forget()
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir()
        self.record(0)

    def record(self, done: int, *, sha256: str = "") -> None:
        """Records progress; what is done must be on the disk already.

        Args:
            done: how much is done.
            sha256: digest of what is done, by which a run that resumes notices
                damage.
        """
        content = {"made_from": self._made_from, "done": done, "sha256": sha256}
        write_json(self._progress, content)
        self.done, self.sha256 = done, sha256

    def forget(self) -> None:
        """Removes the record."""
        self._progress.unlink(missing_ok=True)


def unfinished_bytes(path: str | Path) -> int:
    """Returns how much of a folder a run that was stopped has written."""
    folder = _Replacement(path).unfinished
    return sum(
        child.stat().st_size for child in folder.rglob("*") if child.is_file()
    )


@contextlib.contextmanager
def folder_to_resume(
    path: str | Path, made_from: dict[str, Any]
) -> Iterator[Unfinished]:
    """Makes a folder in one piece, by several runs if need be.

    Like `folder_in_one_piece`, but keeps unfinished work for the next run: the
    temporary folder stays after an error or a kill. The next run resumes in it
    if `made_from` is the same, and starts with an empty one if not.

    Args:
        path: the folder to make, or to replace.
        made_from: what decides the result, as JSON holds it.

    Yields:
        The folder to fill.
    """
    replacement = _Replacement(path)
    replacement.begin()
    unfinished = Unfinished(replacement.unfinished, made_from)
    yield unfinished
    replacement.commit()
    unfinished.forget()


def put_back(path: str | Path) -> None:
    """Undoes or completes a replacement of a folder that a kill stopped."""
    _Replacement(path).recover()


def settle_folder(path: str | Path) -> None:
    """Puts a folder back, and removes the unfinished one beside it."""
    replacement = _Replacement(path)
    replacement.recover()
    replacement.discard()


@contextlib.contextmanager
def file_in_one_piece(path: str | Path) -> Iterator[Path]:
    """Writes a file in one piece.

    Args:
        path: the file to write, or to replace.

    Yields:
        A temporary path to write to, which takes the place of `path` after the
        body. An error removes it.
    """
    replacement = _Replacement(path)
    try:
        yield replacement.unfinished
        replace(replacement.unfinished, path)
    finally:
        replacement.unfinished.unlink(missing_ok=True)


def replace(source: str | Path, target: str | Path) -> None:
    """Renames a file, which takes the place of another, see the module."""
    flush(source)
    os.replace(source, target)
    _flush_names(Path(target).parent)


@contextlib.contextmanager
def explained_writing(what: str, folder: str | Path) -> Iterator[None]:
    """Explains an error of the system by what was being written where.

    Args:
        what: what is being written, such as "records".
        folder: where it is written to.

    Raises:
        OSError: instead of the system's.
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
    """Gives a file a second name; copies it if the file system cannot.

    The content of either must not be changed afterwards.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def check_new(out: str | Path, *, kind: str = "folder") -> None:
    """Refuses a path that exists.

    Args:
        out: the path, given as `--out`.
        kind: "folder" or "file", for the message.

    Raises:
        ValueError: it exists.
    """
    if Path(out).exists():
        raise ValueError(
            f"Expected a new {kind}. Received: out={str(out)!r}, which exists. "
            "Choose another --out, or remove it."
        )


def check_replaceable(out: str | Path, *, names: set[str]) -> None:
    """Refuses to replace a folder that holds anything but given names.

    Args:
        out: the folder.
        names: names that files and folders in it may have; `*` stands for any
            letters.

    Raises:
        ValueError: it holds something else, which the message names.
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
    with file_in_one_piece(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes JSON in one piece, indented, with keys in the order given."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path, *, made_by: str) -> Any:
    """Reads JSON.

    Args:
        path: the file.
        made_by: the command that makes it, for messages.

    Raises:
        FileNotFoundError: the file is absent.
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
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"Expected JSON. Received: path={str(path)!r} ({error}). The "
            f"folder is damaged: delete it and run {made_by} again."
        ) from error


def fingerprint(paths: list[Path], *, relative_to: Path) -> str:
    """Returns the sha256 of names and contents of files, in the order given.

    Args:
        paths: the files.
        relative_to: a folder above all of them; names are relative to it.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(str(path.relative_to(relative_to)).encode() + b"\0")
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
