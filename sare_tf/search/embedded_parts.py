"""Images of records embedded in parts, by any executor.

    parts = embedded_parts.plan(rows, first=0, part_rows=512)  # before any work
    embedded_parts.embed(part, servable, task=task)            # anywhere
    embedded_parts.read(part, task.folder)                     # [n, D]

A part is one or more whole batches, so its descriptors are those of a stream
over all images. It depends only on the records and the export, so parts may be
embedded in any order, by any number of processes or machines. `embed` leaves
the part in the folder of the task as `<first>-<stop>.npy`, where a later run
finds it.
"""

import dataclasses
import functools
import platform
from pathlib import Path

import numpy as np
import pandas as pd

from sare_tf import serving
from sare_tf.records.records import Records
from sare_tf.runtime.resumable_parts import ResumableParts
from sare_tf.search import embedding


@dataclasses.dataclass(frozen=True)
class Part:
    """Images that are embedded together. It can be pickled.

    Attributes:
        first: number of the first image among all that are embedded.
        positions: int64 [n], rows of the images in the manifest of the records.
    """

    first: int
    positions: np.ndarray

    @property
    def stop(self) -> int:
        """Number of the image after the last one."""
        return self.first + len(self.positions)

    @property
    def name(self) -> str:
        """The name of its file, without suffix."""
        return f"{self.first:012d}-{self.stop:012d}"


@dataclasses.dataclass(frozen=True)
class Task:
    """What all parts have in common. It can be pickled.

    Attributes:
        folder: where the parts go; it exists, and holds parts of this task
            only.
        records: folder of the records.
        records_fingerprint: of the records that the parts were planned with.
        export_fingerprint: of the export that all parts are embedded by.
        batch_size: images of a batch.
        dtype: of the files, float32 or float16.
    """

    folder: Path
    records: Path
    records_fingerprint: str
    export_fingerprint: str
    batch_size: int
    dtype: str


def plan(rows: pd.DataFrame, *, first: int, part_rows: int) -> list[Part]:
    """Cuts rows into parts.

    Args:
        rows: rows of the manifest of records, with its index, of all images
            that are embedded.
        first: number of the row to begin with.
        part_rows: rows of each part but the last; a multiple of the batch
            size.
    """
    positions = rows.index.to_numpy(np.int64)
    return [
        Part(start, positions[start : start + part_rows])
        for start in range(first, len(rows), part_rows)
    ]


def embed(
    part: Part,
    servable: serving.Servable | serving.RemoteServable,
    *,
    task: Task,
) -> None:
    """Embeds a part.

    Args:
        part: of `plan`.
        servable: the exported model.
        task: the rest.

    Raises:
        FileNotFoundError: there are no such records here.
        OSError: the folder cannot be written to. Nothing is left of the part.
        ValueError: other records or another export, or as
            `embedding.embed_batches`.
    """
    records = _opened(task.records, task.records_fingerprint)
    _check_fingerprint(
        "export", servable.path, servable.fingerprint, task.export_fingerprint
    )
    rows = records.manifest.iloc[part.positions]
    batches = embedding.embed_batches(
        servable,
        records.read_images(rows),
        rows["image_id"].tolist(),
        batch_size=task.batch_size,
        show_progress=False,
    )
    descriptors = np.concatenate(
        [batch.astype(task.dtype) for batch in batches]
    )
    parts = ResumableParts(task.folder)
    with parts.write(part.name, what=f"the part {part.name}") as written:
        np.save(written.path(".npy"), descriptors)


def read(part: Part, folder: Path) -> np.ndarray:
    """Reads the descriptors [n, D] of a part that is whole."""
    return np.load(folder / f"{part.name}.npy")


# By fingerprint, too: other records may take the place of these.
@functools.lru_cache(maxsize=1)
def _opened(path: Path, fingerprint: str) -> Records:
    records = Records(path)
    _check_fingerprint("records", path, records.fingerprint, fingerprint)
    return records


def _check_fingerprint(
    name: str, path: str | Path, fingerprint: str, expected: str
) -> None:
    if fingerprint != expected:
        raise ValueError(
            f"Expected the {name} of this run on every worker, with "
            f"fingerprint {expected[:12]}. Received: {name}={str(path)!r} "
            f"with {fingerprint[:12]} on {platform.node()!r}. Mount the same "
            "folders everywhere and run the command again."
        )
