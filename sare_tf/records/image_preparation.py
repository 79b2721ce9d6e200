"""Images of a shard: read, checked and serialised, or refused."""

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from sare_tf.dataset import heif, jpeg_damage
from sare_tf.dataset.readers.collector import Source
from sare_tf.records import records, stored_image
from sare_tf.records.shard_plan import Preparation
from sare_tf.records.stored_image import Look

# Files are prepared together up to these: ours.
_BATCH_BYTES = 1 << 20
_BATCH_FILES = 32


class Unsteady(ValueError):
    """A file of the dataset changed, or vanished, after it was planned."""


@dataclasses.dataclass(frozen=True)
class Task:
    """An image to prepare.

    Attributes:
        image_id: its name.
        source: its file, or part of a file.
        place: its group in the plan.
        num_bytes: size of the file, as planned.
        modified_ns: time of the file, as planned.
    """

    image_id: str
    source: Source
    place: str
    num_bytes: int
    modified_ns: int


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An image as it is stored.

    Attributes:
        serialised: the Example.
        sha256: of the encoded image.
        size: height and width, upright.
        complaint: libjpeg's complaint of the file, which decodes all the same;
            empty for none.
    """

    serialised: bytes
    sha256: str
    size: tuple[int, int]
    complaint: str


@dataclasses.dataclass(frozen=True)
class Refused:
    """An image that is not stored.

    Attributes:
        image_id: its name.
        reason: why.
        settled: False if reading its file failed, which may go well another
            time.
    """

    image_id: str
    reason: str
    settled: bool = True


def batches(
    rows: pd.DataFrame, sources: Mapping[str, Source]
) -> Iterator[list[Task]]:
    """Yields files to prepare together: many small ones, or a few large ones.

    Args:
        rows: rows of a plan.
        sources: of a shard.
    """
    batch, num_bytes = [], 0
    columns = ("image_id", "group", "bytes", "modified_ns")
    for image_id, place, size, modified_ns in zip(
        *(rows[name] for name in columns), strict=True
    ):
        source = sources.get(image_id) or Source(image_id)
        batch.append(Task(image_id, source, place, size, modified_ns))
        num_bytes += size
        if num_bytes > _BATCH_BYTES or len(batch) == _BATCH_FILES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def prepare_batch(
    batch: list[Task], *, root: Path, preparation: Preparation
) -> list[Prepared | Refused]:
    """Reads, checks and serialises images, or says why they are refused.

    Args:
        batch: the files.
        root: folder that their paths are relative to.
        preparation: what is done to the images.

    Raises:
        Unsteady: a file is not as planned.
    """
    files_read = [_read_or_refuse(root, task) for task in batch]
    looks = [Look(None, "")] * len(batch)
    if not preparation.jpeg_quality:
        # An image that is cut is decoded anyway.
        looks = stored_image.look(
            [
                b"" if task.source.box or isinstance(file, Refused) else file
                for task, file in zip(batch, files_read, strict=True)
            ],
            verify=preparation.verify,
        )
    return [
        file
        if isinstance(file, Refused)
        else _prepare(task, file, look, preparation)
        for task, file, look in zip(batch, files_read, looks, strict=True)
    ]


def _read_or_refuse(root: Path, task: Task) -> bytes | Refused:
    try:
        return heif.as_jpeg(_read(root, task))
    except Unsteady:
        raise
    except heif.MissingDecoder as error:
        return Refused(task.image_id, str(error), settled=False)
    except ValueError as error:
        return Refused(task.image_id, str(error))
    except OSError as error:
        # A file whose status could not be read has another digest once it can.
        settled = task.modified_ns == -1
        return Refused(task.image_id, f"cannot be read: {error}", settled)


def _prepare(
    task: Task, file: bytes, look: Look, preparation: Preparation
) -> Prepared | Refused:
    try:
        encoded, height, width = stored_image.prepare(
            file,
            box=task.source.box,
            preparation=preparation,
            size=look.size,
        )
    except ValueError as error:
        return Refused(task.image_id, str(error))
    complaint = look.complaint
    is_decoded = task.source.box or preparation.jpeg_quality
    if is_decoded and preparation.verify:
        complaint = jpeg_damage.complaint(file)
    return Prepared(
        records.serialise(encoded, image_id=task.image_id, place=task.place),
        hashlib.sha256(encoded).hexdigest(),
        (height, width),
        complaint,
    )


def _read(root: Path, task: Task) -> bytes:
    """Reads a file.

    Raises:
        Unsteady: the file is not as planned.
        OSError: the file cannot be read.
    """
    path = os.path.join(root, task.source.path)
    planned = (task.num_bytes, task.modified_ns)
    try:
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            actual = (status.st_size, status.st_mtime_ns)
            encoded = file.read() if actual == planned else b""
    except FileNotFoundError:
        if task.modified_ns == -1:
            raise
        actual, encoded = None, b""
    if actual != planned or len(encoded) != task.num_bytes:
        raise Unsteady(
            "Expected images that stay as they are while records are built. "
            f"Received: {path!r}, which has "
            + ("vanished." if actual is None else "changed.")
            + " Run the command again: finished shards are kept."
        )
    return encoded
