"""The index of a folder of photographs, brought up to date.

It always has one segment, of exactly the images of the records. Descriptors of
images that an earlier index has are copied from it, the others are embedded.
Axis letters: N images, D descriptor length.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from absl import logging

from sare_tf import serving
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files
from sare_tf.search import (
    descriptor_arrays,
    embedding,
    index_files,
    segments,
)
from sare_tf.search.opened_index import Index
from sare_tf.search.options import TuningOptions

# Rows that are written, and forced to disk, at a time.
_BLOCK_ROWS = 128
_DTYPE = "float32"


def update(
    path: Path,
    records: Records,
    servable: serving.Servable | serving.RemoteServable,
    *,
    split: str,
    batch_size: int,
) -> int:
    """Makes the index of a split of records, in one piece.

    A run that was killed is resumed.

    Args:
        path: folder of the index.
        records: the records.
        servable: the model.
        split: whose database images are indexed.
        batch_size: images embedded at a time.

    Returns:
        How many images were embedded.

    Raises:
        OSError: the index cannot be written.
        ValueError: an image cannot be embedded.
    """
    atomic_files.put_back(path)
    rows = records.rows(split, "database").reset_index(drop=True)
    earlier = _open(path, servable.fingerprint)
    copied = _rows_in(earlier, rows)
    made_from = {
        "export_fingerprint": servable.fingerprint,
        "records_fingerprint": records.fingerprint,
        "split": split,
        "shard": "0/1",
        "dtype": _DTYPE,
    }
    num_new = int((copied < 0).sum())
    if earlier and not num_new and _is_of(earlier, made_from):
        # Of a run that was killed when the index was in its place.
        path.with_name(f".{path.name}.unfinished.json").unlink(missing_ok=True)
        return 0
    logging.info(
        "Embedding %d photographs; %d are in the index already.",
        num_new,
        len(rows) - num_new,
    )
    tuning = TuningOptions()
    with (
        atomic_files.explained_writing("the index", path.parent),
        atomic_files.folder_to_resume(
            path, {**made_from, "batch_size": batch_size}
        ) as unfinished,
    ):
        first = unfinished.done
        new = rows[(copied < 0) & (np.arange(len(rows)) >= first)]
        embedded = embedding.embed_batches(
            servable,
            records.read_images(new),
            new["image_id"].tolist(),
            batch_size=batch_size,
        )
        descriptor_arrays.write(
            _in_order(copied[first:], earlier, embedded),
            unfinished,
            shape=(len(rows), servable.dimension),
            dtype=_DTYPE,
            record_every=_BLOCK_ROWS,
        )
        index_files.write_new(
            unfinished.folder,
            segments.finish(unfinished.folder, rows, tuning, dtype=_DTYPE),
            made_from=made_from,
            dimension=servable.dimension,
            tuning=tuning,
        )
    return num_new


def _open(path: Path, fingerprint: str) -> Index | None:
    """Returns the index of before, if it is whole and of the same model."""
    try:
        index = Index.open(path, exact=True)
    except (OSError, ValueError):
        return None
    if index.metadata["export_fingerprint"] != fingerprint:
        return None
    return index


def _is_of(index: Index, made_from: dict[str, str]) -> bool:
    return all(
        index.metadata.get(name) == made_from[name] for name in made_from
    )


def _rows_in(index: Index | None, rows: pd.DataFrame) -> np.ndarray:
    """Returns the row of each image in an index, int64 [N]; -1: it has none.

    An image that was changed under its name has another digest.
    """
    if index is None or "sha256" not in index.manifest:
        return np.full(len(rows), -1)
    known = pd.MultiIndex.from_frame(index.manifest[["image_id", "sha256"]])
    wanted = pd.MultiIndex.from_frame(rows[["image_id", "sha256"]])
    return known.get_indexer(wanted)


def _in_order(
    copied: np.ndarray,
    earlier: Index | None,
    embedded: Iterator[np.ndarray],
) -> Iterator[np.ndarray]:
    """Yields the descriptors of images in blocks, float32 [b, D].

    Args:
        copied: row of each image in `earlier`, or -1.
        earlier: the index to copy from.
        embedded: descriptors of the images with -1, in batches.
    """
    waiting = []
    for start in range(0, len(copied), _BLOCK_ROWS):
        block = copied[start : start + _BLOCK_ROWS]
        is_new = block < 0
        num_new = int(is_new.sum())
        while sum(map(len, waiting)) < num_new:
            waiting.append(next(embedded))
        descriptors = [None] * len(block)
        if num_new:
            ready = np.concatenate(waiting)
            waiting = [ready[num_new:]]
            for position, row in zip(
                np.flatnonzero(is_new), ready[:num_new], strict=True
            ):
                descriptors[position] = row
        for position in np.flatnonzero(~is_new):
            descriptors[position] = earlier.descriptors[block[position]]
        yield np.stack(descriptors)
