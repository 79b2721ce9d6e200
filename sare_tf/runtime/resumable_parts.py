"""Parts of a result, built in any order and kept until all are there.

    parts = ResumableParts(folder)
    missing = [name for name in names if parts.find(name) is None]
    with parts.write(name, what="a shard") as part:      # anywhere, any order
        part.path(".npy").write_bytes(...)
        part.facts["count"] = 12
    whole = parts.gather(names)                          # all, or an error

A part is one or more files of one stem, and a receipt:

    <name>.npy    a file of the part; any suffix but .json
    <name>.json   the receipt: sizes and digests of the files, and facts of the
                  caller

The receipt is written last, so a part without one is not whole: a build that
was killed finds the parts that it finished and builds the others, and those
that were damaged since. A name must tell parts of different content apart, for
example by a digest of what the part is made from. Processes and machines may
build parts of one folder, also the same part twice at the same time.
"""

import contextlib
import dataclasses
import glob
import shutil
import uuid
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from sare_tf.runtime import atomic_files, file_digests, sealed_json

_RECEIPT = ".json"
# Each record has checksums, which every reader compares.
_WITH_CHECKSUMS = {".tfrecord"}


@dataclasses.dataclass(frozen=True)
class Part:
    """A part that is whole, or that is being written.

    Attributes:
        folder: where its files are.
        name: the stem of its files.
        sizes: suffix of each file -> bytes; empty while it is being written.
        facts: what the caller records of it, as JSON holds it.
    """

    folder: Path
    name: str
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def path(self, suffix: str) -> Path:
        """Returns the path of one of its files, such as ".npy"."""
        return self.folder / f"{self.name}{suffix}"


class ResumableParts:
    """The parts in a folder.

    Args:
        folder: the folder. It must exist before a part is written.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def find(self, name: str) -> Part | None:
        """Returns a part if it is whole, else None.

        Its files are compared with their digests. A warning names the file that
        is damaged.
        """
        try:
            receipt = sealed_json.read(
                self.folder / f"{name}{_RECEIPT}",
                made_by="the command",
                types={"sizes": dict, "facts": dict},
            )
            part = Part(self.folder, name, receipt["sizes"], receipt["facts"])
            for suffix, size in part.sizes.items():
                if (actual := part.path(suffix).stat().st_size) != size:
                    raise ValueError(
                        f"{part.path(suffix)} has {actual} bytes, not {size}"
                    )
            # An earlier version wrote no digests.
            file_digests.check(self.folder, receipt.get("digests", {}))
        except FileNotFoundError:
            return None
        except (AttributeError, OSError, TypeError, ValueError) as error:
            logging.warning("Building a damaged part again: %s", error)
            return None
        return part

    @contextlib.contextmanager
    def write(self, name: str, *, what: str) -> Iterator[Part]:
        """Writes a part, which replaces an earlier one of that name.

        The part has a temporary folder to write its files to. They are put in
        place after the body, each in one piece, and the receipt after them.
        An error leaves nothing of the part.

        Args:
            name: the name.
            what: the part in words, for the message of an error.

        Yields:
            The part: write to `path(suffix)`, and set `facts`.

        Raises:
            OSError: the folder cannot be written to.
        """
        # Its own folder, since a part may be written twice at the same time.
        scratch = self.folder / f".{name}.{uuid.uuid4().hex}"
        part = Part(scratch, name)
        try:
            with atomic_files.explained_writing(what, self.folder):
                scratch.mkdir()
                yield part
                files = sorted(scratch.iterdir())
                sizes = {path.suffix: path.stat().st_size for path in files}
                receipt = part.path(_RECEIPT)
                digested = [
                    path.name
                    for path in files
                    if path.suffix not in _WITH_CHECKSUMS
                ]
                sealed_json.write(
                    receipt,
                    {
                        "sizes": sizes,
                        "digests": file_digests.of(scratch, digested),
                        "facts": part.facts,
                    },
                )
                for path in (*files, receipt):
                    atomic_files.replace(path, self.folder / path.name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def gather(self, names: Sequence[str]) -> list[Part]:
        """Returns all parts of the names, in their order.

        Raises:
            OSError: a part is not whole.
        """
        parts = {name: self.find(name) for name in names}
        absent = [name for name, part in parts.items() if part is None]
        if absent:
            raise OSError(
                "Expected every part to be built. Received: folder="
                f"{str(self.folder)!r} without {len(absent)} of {len(parts)}, "
                f"such as {absent[0]}. Run the command again. Workers on other "
                "machines need this folder under the same path, on a file "
                "system that all of them share."
            )
        return [parts[name] for name in names]

    def remove(self, name: str) -> None:
        """Removes a part, its receipt first."""
        (self.folder / f"{name}{_RECEIPT}").unlink(missing_ok=True)
        for path in self.folder.glob(f"{glob.escape(name)}.*"):
            path.unlink()

    def discard_others(self, names: Collection[str]) -> None:
        """Removes all but the parts of the names, and what kills left.

        No part may be written at the same time.
        """
        names = set(names)
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.stem not in names:
                path.unlink()
