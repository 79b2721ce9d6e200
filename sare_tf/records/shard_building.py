"""One shard of records: built as a whole from its plan, by any engine.

    shards = record_plan.make(reading, ...)              # before any work
    built = record_shards.build(shard, root=..., folder=..., preparation=...)

`build` depends on nothing but its arguments and the files that the shard names,
so shards may be built in any order, on any number of threads, processes or
machines: the bytes are the same. It leaves three files in `folder`, which
`find` finds again in a later run:

    <digest>.tfrecord   the shard
    <digest>.parquet    the rows of its images
    <digest>.json       its receipt, which is written last: a shard without it
                        is not whole

`build_records` gathers the shards of a plan into records.
"""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf

from sare_tf.dataset import manifest
from sare_tf.dataset.readers.collector import Source
from sare_tf.records import records, stored_image
from sare_tf.records.shard_plan import Preparation, Shard
from sare_tf.runtime import atomic_files

# Files are prepared together up to these: many small ones, a few large ones.
_BATCH_BYTES = 1 << 20
_BATCH_FILES = 32

# As `map` of one iterable: results in order; it may work ahead.
InOrder = Callable[[Callable, Iterable], Iterable]


class Unsteady(ValueError):
    """A file of the dataset changed, or vanished, after it was planned."""


@dataclasses.dataclass(frozen=True)
class Built:
    """A shard that is whole.

    Attributes:
        path: its file.
        num_bytes: size of the file.
        count: images in it.
        rejected: image_id and reason of those that were refused.
        settled: False if a file was refused because reading it failed, which
            may go well another time: then the next run tries again.
    """

    path: Path
    num_bytes: int
    count: int
    rejected: list[tuple[str, str]]
    settled: bool

    def rows(self) -> pd.DataFrame:
        """Rows of its images, in order: `manifest.COLUMNS`, and
        `byte_offset`, `byte_length` and `sha256` as `records` has them."""
        return pd.read_parquet(self.path.with_suffix(".parquet"))


def find(shard: Shard, folder: Path) -> Built | None:
    """The shard, if an earlier `build` left it whole in the folder."""
    return _find(folder / f"{shard.digest}.tfrecord")


def _find(path: Path) -> Built | None:
    try:
        receipt = atomic_files.read_json(
            path.with_suffix(".json"), made_by="build"
        )
        if path.stat().st_size != receipt["num_bytes"]:
            return None
    except (OSError, KeyError, ValueError):
        return None
    rejected = [tuple(pair) for pair in receipt.pop("rejected")]
    return Built(path=path, rejected=rejected, **receipt)


def entry(shard: Shard, built: Built) -> dict[str, Any]:
    """What records.json says of a shard, and `reuse` reads there."""
    return {
        "count": built.count,
        "bytes": built.num_bytes,
        "rejected": built.rejected,
        # Empty: not to be used again, since reading a file failed.
        "source": shard.digest if built.settled else "",
    }


def reuse(
    shards: Iterable[Shard], *, finished: str | Path, folder: Path
) -> None:
    """Takes over shards of finished records, as if `build` had built them.

    Args:
        shards: those wanted.
        finished: folder of records, perhaps of others, damaged or absent: then
            less is taken over.
        folder: as of `build`.
    """
    finished = Path(finished)
    wanted = {shard.digest for shard in shards}
    try:
        metadata = atomic_files.read_json(
            finished / "records.json", made_by="build"
        )
        known = metadata["shards"]
        if wanted.isdisjoint(shard["source"] for shard in known.values()):
            return
        parts = manifest.read_parts(
            finished / "manifest.parquet",
            [shard["count"] for shard in known.values()],
        )
        for (name, shard), rows in zip(known.items(), parts, strict=True):
            if shard["source"] in wanted and (rows["shard"] == name).all():
                _take_over(finished / name, rows, shard, folder)
    except (FileNotFoundError, KeyError, ValueError):
        return


def _take_over(
    source: Path, rows: pd.DataFrame, known: dict[str, Any], folder: Path
) -> None:
    """Takes over a shard of finished records, if it has the size it had."""
    path = folder / f"{known['source']}.tfrecord"
    if _find(path) or not source.is_file():
        return
    if source.stat().st_size == known["bytes"]:
        path.unlink(missing_ok=True)
        atomic_files.link_or_copy(source, path)
        rows = rows.drop(columns="shard")
        _finish(path, rows, known["rejected"], settled=True)


def build(
    shard: Shard,
    *,
    root: Path,
    folder: Path,
    preparation: Preparation,
    in_order: InOrder = map,
) -> Built:
    """Builds a shard.

    Args:
        shard: the plan.
        root: folder that its sources are relative to.
        folder: where its files go; it exists.
        preparation: as the shard was planned with.
        in_order: maps a function over batches of images; builtin `map` works
            in this thread, another may work ahead in threads.

    Raises:
        Unsteady: the sources are not those that were planned.
        OSError: the folder cannot be written to. What was begun is removed.
    """
    prepare_batch = partial(_prepare_batch, root=root, preparation=preparation)
    rows = shard.read_rows()
    kept, rejected, settled = [], [], True
    position = 0
    # A name of its own: engines may try a shard twice at the same time.
    scratch = folder / f".{shard.digest}.{uuid.uuid4().hex}"
    path = scratch / f"{shard.digest}.tfrecord"
    try:
        with atomic_files.explained_writing(f"the shard {shard.name}", folder):
            scratch.mkdir()
            with _writer(path) as write:
                for batch in in_order(prepare_batch, _batches(shard, rows)):
                    for image in batch:
                        if isinstance(image, _Refused):
                            rejected.append((image.image_id, image.reason))
                            settled &= image.settled
                        else:
                            where = write(image.serialised)
                            kept.append(
                                (position, *image.size, *where, image.sha256)
                            )
                        position += 1
            _finish(path, _rows(rows, kept), rejected, settled=settled)
            for suffix in (".tfrecord", ".parquet", ".json"):
                whole = folder / f"{shard.digest}{suffix}"
                os.replace(path.with_suffix(suffix), whole)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return find(shard, folder)


@contextlib.contextmanager
def _writer(path: Path) -> Iterator[Callable[[bytes], tuple[int, int]]]:
    """Gives a function that writes one record: to its offset and length.

    Raises:
        OSError: the file cannot be written whole.
    """
    num_bytes = 0

    def write(serialised: bytes) -> tuple[int, int]:
        nonlocal num_bytes
        writer.write(serialised)
        begin, length = num_bytes, len(serialised) + records.FRAME_BYTES
        num_bytes += length
        return begin, length

    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            yield write
    except tf.errors.OpError as error:
        raise OSError(error.message) from error
    if path.stat().st_size != num_bytes:
        raise OSError(f"{path.name} was not written whole")


def _finish(
    path: Path, rows: pd.DataFrame, rejected: list, *, settled: bool
) -> None:
    """Writes what makes a shard whole."""
    manifest.write(rows, path.with_suffix(".parquet"))
    receipt = {
        "num_bytes": path.stat().st_size,
        "count": len(rows),
        "rejected": rejected,
        "settled": settled,
    }
    atomic_files.write_json(path.with_suffix(".json"), receipt)


@dataclasses.dataclass(frozen=True)
class _Task:
    """A file to prepare; size and time as planned."""

    image_id: str
    source: Source
    place: str
    num_bytes: int
    modified_ns: int


@dataclasses.dataclass(frozen=True)
class _Prepared:
    serialised: bytes
    sha256: str
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class _Refused:
    image_id: str
    reason: str
    settled: bool = True


def _batches(shard: Shard, rows: pd.DataFrame) -> Iterator[list[_Task]]:
    batch, num_bytes = [], 0
    columns = ("image_id", "group", "bytes", "modified_ns")
    for image_id, place, size, modified_ns in zip(
        *(rows[name] for name in columns), strict=True
    ):
        source = shard.sources.get(image_id) or Source(image_id)
        batch.append(_Task(image_id, source, place, size, modified_ns))
        num_bytes += size
        if num_bytes > _BATCH_BYTES or len(batch) == _BATCH_FILES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _prepare_batch(
    batch: list[_Task], *, root: Path, preparation: Preparation
) -> list[_Prepared | _Refused]:
    """Reads, checks and serialises images; or says why they are refused."""
    files_read = [_read_or_refuse(root, task) for task in batch]
    sizes = [None] * len(batch)
    if preparation.verify and not preparation.jpeg_quality:
        # An image that is cut is decoded anyway.
        sizes = stored_image.dct_scaled_sizes(
            [
                b"" if task.source.box or isinstance(file, _Refused) else file
                for task, file in zip(batch, files_read, strict=True)
            ]
        )
    return [
        file
        if isinstance(file, _Refused)
        else _prepare(task, file, dct_scaled, preparation)
        for task, file, dct_scaled in zip(batch, files_read, sizes, strict=True)
    ]


def _read_or_refuse(root: Path, task: _Task) -> bytes | _Refused:
    try:
        return _read(root, task)
    except OSError as error:
        # A file that could not be looked at is another once it can.
        settled = task.modified_ns == -1
        return _Refused(task.image_id, f"cannot be read: {error}", settled)


def _prepare(
    task: _Task,
    encoded: bytes,
    dct_scaled: tuple[int, int] | None,
    preparation: Preparation,
) -> _Prepared | _Refused:
    try:
        encoded, height, width = stored_image.prepare(
            encoded,
            box=task.source.box,
            preparation=preparation,
            dct_scaled=dct_scaled,
        )
    except ValueError as error:
        return _Refused(task.image_id, str(error))
    return _Prepared(
        records.serialise(encoded, image_id=task.image_id, place=task.place),
        hashlib.sha256(encoded).hexdigest(),
        (height, width),
    )


def _read(root: Path, task: _Task) -> bytes:
    """Bytes of a file.

    Raises:
        Unsteady: it is not as planned.
        OSError: it cannot be read.
    """
    path = os.path.join(root, task.source.path)
    planned = (task.num_bytes, task.modified_ns)
    try:
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            found = (status.st_size, status.st_mtime_ns)
            encoded = file.read() if found == planned else b""
    except FileNotFoundError:
        if task.modified_ns == -1:
            raise
        found, encoded = None, b""
    if found != planned or len(encoded) != task.num_bytes:
        raise Unsteady(
            "Expected images that stay as they are while records are built. "
            f"Received: {path!r}, which has "
            + ("vanished." if found is None else "changed.")
            + " Run the command again: finished shards are kept."
        )
    return encoded


def _rows(planned: pd.DataFrame, kept: list[tuple]) -> pd.DataFrame:
    """Rows of the images that were kept, and where they are."""
    numbers = ("position", "height", "width", "byte_offset", "byte_length")
    found = pd.DataFrame(kept, columns=[*numbers, "sha256"])
    found = found.astype(dict.fromkeys(numbers, "int64"))
    rows = planned.iloc[found.pop("position")][list(manifest.COLUMNS)]
    rows = rows.reset_index(drop=True)
    for name in found:
        rows[name] = found[name].to_numpy()
    return rows
