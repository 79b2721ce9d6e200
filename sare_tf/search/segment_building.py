"""Database images of records -> a segment of an index.

Descriptors are embedded in this process as a stream, or in parts elsewhere,
and go to disk as they come: memory holds a batch of images. A run that was
killed goes on where it was.
"""

import functools
import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from absl import logging

from sare_tf import serving
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files
from sare_tf.search import embedding, segments

# Images after which what was embedded is safe on disk; those of a part.
_RECORD_EVERY = 512


def make(
    unfinished: atomic_files.Unfinished,
    opened: Records,
    rows: pd.DataFrame,
    servable: serving.Servable | serving.RemoteServable,
    *,
    batch_size: int,
    dtype: str,
    target_recall: float,
    tune_tree: bool,
    for_each: Callable[..., None] | None,
) -> dict[str, Any]:
    """Embeds rows of records into a folder; see `segments.finish`."""
    done = unfinished.done
    if done:
        logging.info("Going on after %d images.", done)
    logging.info("Embedding %d database images.", len(rows) - done)
    # Whole batches, so that a run that goes on makes the same ones.
    record_every = batch_size * max(1, _RECORD_EVERY // batch_size)
    parts = embedding.plan(rows, first=done, part_rows=record_every)
    folder = unfinished.folder.resolve() / "parts"
    if for_each:
        _embed_parts(
            parts,
            folder,
            opened,
            servable,
            batch_size=batch_size,
            dtype=dtype,
            for_each=for_each,
        )
    segments.write_descriptors(
        _descriptors(
            parts, folder, opened, servable, unfinished, batch_size=batch_size
        ),
        unfinished,
        shape=(len(rows), servable.dimension),
        dtype=dtype,
        record_every=record_every,
    )
    shutil.rmtree(folder, ignore_errors=True)
    return segments.finish(
        unfinished.folder,
        rows,
        target_recall=target_recall,
        tune_tree=tune_tree,
    )


def _embed_parts(
    parts: Sequence[embedding.Part],
    folder: Path,
    opened: Records,
    servable: serving.Servable | serving.RemoteServable,
    *,
    batch_size: int,
    dtype: str,
    for_each: Callable[..., None],
) -> None:
    """Has the parts embedded that are not in the folder yet.

    Raises:
        OSError: one is not there after all.
    """
    folder.mkdir(exist_ok=True)
    missing = [part for part in parts if not part.is_whole(folder)]
    logging.info(
        "Of %d parts, %d are there already.",
        len(parts),
        len(parts) - len(missing),
    )
    embed = functools.partial(
        embedding.embed_part,
        folder=folder,
        records=opened.path.resolve(),
        records_fingerprint=opened.fingerprint,
        export_fingerprint=servable.fingerprint,
        batch_size=batch_size,
        dtype=dtype,
    )
    for_each(
        embed,
        missing,
        folder=folder,
        load=functools.partial(serving.load, servable.source),
    )
    absent = [part for part in missing if not part.is_whole(folder)]
    if absent:
        raise OSError(
            "Expected every part to be embedded. Received: folder="
            f"{str(folder)!r} without {len(absent)} of {len(parts)}, such as "
            f"{absent[0].path(folder).name}. The workers need this folder "
            "under the same path, on a file system that they share."
        )


def _descriptors(
    parts: Sequence[embedding.Part],
    folder: Path,
    opened: Records,
    servable: serving.Servable | serving.RemoteServable,
    unfinished: atomic_files.Unfinished,
    *,
    batch_size: int,
) -> Iterator[np.ndarray]:
    """Descriptors of parts in order, [b, D] each: read, or embedded here."""
    for whole, group in itertools.groupby(
        parts, key=lambda part: part.is_whole(folder)
    ):
        if not whole:
            positions = np.concatenate([part.positions for part in group])
            rows = opened.manifest.iloc[positions]
            yield from embedding.embed_batches(
                servable,
                opened.read_images(rows),
                rows["image_id"].tolist(),
                batch_size=batch_size,
            )
            continue
        for part in group:
            yield part.read(folder)
            # Not twice on disk, once it is safe there.
            if part.stop <= unfinished.done:
                part.path(folder).unlink()
