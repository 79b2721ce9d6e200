"""Encoded images -> descriptors: as a stream, or in parts by any engine.

    for batch in embedding.embed_batches(servable, images, image_ids): ...

    parts = embedding.plan(rows, first=0, part_rows=512)   # before any work
    embedding.embed_part(part, servable, folder=..., ...)  # anywhere
    part.read(folder)                                      # [n, D]

A part is some whole batches, so its descriptors are those of the stream. It
depends on nothing but the records and the export, so parts may be embedded in
any order, on any number of processes or machines. `embed_part` leaves one file
in `folder`, `<first>-<stop>.npy`, which a later run finds again.
"""

import dataclasses
import functools
import itertools
import os
import platform
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from sare_tf import serving
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files
from sare_tf.search.opened_index import check_unit


def embed_batches(
    servable: serving.Servable | serving.RemoteServable,
    encoded_images: Iterable[bytes],
    image_ids: Sequence[str],
    *,
    batch_size: int = 32,
    show_progress: bool = True,
) -> Iterator[np.ndarray]:
    """Embeds encoded images as a stream.

    Args:
        servable: the exported model.
        encoded_images: bytes of N images, read one batch at a time.
        image_ids: their N names, for messages.
        batch_size: images of a batch.
        show_progress: a bar, as long as it lasts.

    Yields:
        Of each batch, float32 [B, D], rows of unit length.

    Raises:
        ValueError: an image that cannot be decoded, or whose descriptor is
            not a finite unit vector; the message names it. Or fewer images
            than names.
    """
    count = len(image_ids)
    stream = iter(encoded_images)
    with tqdm(
        total=count,
        unit="image",
        desc="embed",
        leave=False,
        disable=not show_progress,
    ) as progress:
        for start in range(0, count, batch_size):
            names = image_ids[start : start + batch_size]
            batch = list(itertools.islice(stream, len(names)))
            if len(batch) != len(names):
                raise ValueError(
                    f"Expected {count} images. Received: "
                    f"{start + len(batch)}. The records are damaged: build "
                    "them again."
                )
            descriptors, valid = servable(batch)
            _check_valid(valid, names)
            check_unit(descriptors, names)
            yield descriptors
            progress.update(len(names))


@dataclasses.dataclass(frozen=True)
class Part:
    """Images that are embedded together. It can be pickled.

    Attributes:
        first: number of the first one among all that are embedded.
        positions: int64 [n], where they are in the manifest of the records.
    """

    first: int
    positions: np.ndarray

    @property
    def stop(self) -> int:
        """Number of the image after the last one."""
        return self.first + len(self.positions)

    def path(self, folder: Path) -> Path:
        """Its file."""
        return folder / f"{self.first:012d}-{self.stop:012d}.npy"

    def is_whole(self, folder: Path) -> bool:
        """Whether an earlier `embed_part` left it in the folder."""
        try:
            found = np.load(self.path(folder), mmap_mode="r")
        except (EOFError, OSError, ValueError):
            return False
        return len(found) == len(self.positions)

    def read(self, folder: Path) -> np.ndarray:
        """Descriptors [n, D]."""
        return np.load(self.path(folder))


def plan(rows: pd.DataFrame, *, first: int, part_rows: int) -> list[Part]:
    """Cuts rows into parts.

    Args:
        rows: of a manifest of records, with its index; of all that are
            embedded.
        first: number of the row to begin with.
        part_rows: of each part but the last; a multiple of the batch size.
    """
    positions = rows.index.to_numpy(np.int64)
    return [
        Part(start, positions[start : start + part_rows])
        for start in range(first, len(rows), part_rows)
    ]


def embed_part(
    part: Part,
    servable: serving.Servable | serving.RemoteServable,
    *,
    folder: Path,
    records: Path,
    records_fingerprint: str,
    export_fingerprint: str,
    batch_size: int,
    dtype: str,
) -> None:
    """Embeds a part.

    Args:
        part: of `plan`.
        servable: the exported model.
        folder: where its file goes; it exists.
        records: their folder.
        records_fingerprint: of the records that were planned with.
        export_fingerprint: of the export that all parts are embedded by.
        batch_size: images of a batch.
        dtype: of the file, float32 or float16.

    Raises:
        FileNotFoundError: no such records here.
        OSError: the folder cannot be written to. What was begun is removed.
        ValueError: other records or another export, or as of `embed_batches`.
    """
    source = _opened(records)
    for name, found, expected in (
        ("records", source.fingerprint, records_fingerprint),
        ("export", servable.fingerprint, export_fingerprint),
    ):
        if found != expected:
            path = {"records": records, "export": servable.path}[name]
            raise ValueError(
                f"Expected the {name} of this run on every worker, with "
                f"fingerprint {expected[:12]}. Received: {name}={str(path)!r} "
                f"with {found[:12]} on {platform.node()!r}. Mount the same "
                "folders everywhere and run the command again."
            )
    rows = source.manifest.iloc[part.positions]
    batches = embed_batches(
        servable,
        source.read_images(rows),
        rows["image_id"].tolist(),
        batch_size=batch_size,
        show_progress=False,
    )
    descriptors = np.concatenate([batch.astype(dtype) for batch in batches])
    path = part.path(folder)
    # A name of its own: engines may try a part twice at the same time.
    unfinished = folder / f".{path.stem}.{uuid.uuid4().hex}.unfinished"
    try:
        with atomic_files.explained_writing(f"the part {path.name}", folder):
            with unfinished.open("wb") as file:
                np.save(file, descriptors)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@functools.lru_cache(maxsize=1)
def _opened(path: Path) -> Records:
    return Records(path)


def _check_valid(valid: np.ndarray, names: Sequence[str]) -> None:
    """Refuses images that cannot be decoded, naming them."""
    if not valid.all():
        bad = [names[row] for row in np.flatnonzero(~valid)]
        raise ValueError(
            "Expected JPEG or PNG images that can be decoded. Received: "
            + ", ".join(bad[:5])
            + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
            + ", which cannot. Repair or remove them."
        )
