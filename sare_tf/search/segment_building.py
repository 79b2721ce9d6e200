"""Database images of records -> the descriptors of a segment.

Images are embedded in this process as a stream, or in parts by an executor.
Descriptors go to disk as they come, so memory holds a batch of images. A run
that was killed is resumed.
"""

import functools
import itertools
import shutil
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from absl import logging

from sare_tf import serving
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files
from sare_tf.runtime.executors import Executor
from sare_tf.runtime.resumable_parts import ResumableParts
from sare_tf.search import descriptor_arrays, embedded_parts, embedding

# Images after which descriptors are forced to disk; those of a part. Ours.
_RECORD_EVERY = 512


def embed(
    unfinished: atomic_files.Unfinished,
    records: Records,
    rows: pd.DataFrame,
    servable: serving.Servable | serving.RemoteServable,
    *,
    batch_size: int,
    dtype: str,
    executor: Executor | None,
) -> None:
    """Writes descriptors.npy of a segment; `segments.finish` does the rest.

    Args:
        unfinished: the folder of the segment.
        records: the records.
        rows: rows of their manifest, of the N images to embed.
        servable: the exported model.
        batch_size: images of a batch.
        dtype: of the descriptors on disk, float32 or float16.
        executor: embeds parts of the images. None: this process embeds all as
            a stream, and uses parts that an executor finished before.

    Raises:
        OSError: the executor failed, or a part is absent after it.
        ValueError: as `embedding.embed_batches`.
    """
    shape = (len(rows), servable.dimension)
    descriptor_arrays.start_or_resume(unfinished, shape=shape, dtype=dtype)
    done = unfinished.done
    if done:
        logging.info("Resuming after %d images.", done)
    logging.info("Embedding %d database images.", len(rows) - done)
    # Whole batches, so that a run that resumes makes the same ones.
    record_every = batch_size * max(1, _RECORD_EVERY // batch_size)
    parts = embedded_parts.plan(rows, first=done, part_rows=record_every)
    task = embedded_parts.Task(
        folder=unfinished.folder.resolve() / "parts",
        records=records.path.resolve(),
        records_fingerprint=records.fingerprint,
        export_fingerprint=servable.fingerprint,
        batch_size=batch_size,
        dtype=dtype,
    )
    if executor:
        _embed_parts(parts, task, servable, executor)
    descriptor_arrays.write(
        _descriptors(parts, task, records, servable, unfinished),
        unfinished,
        shape=shape,
        dtype=dtype,
        record_every=record_every,
    )
    shutil.rmtree(task.folder, ignore_errors=True)


def _embed_parts(
    parts: Sequence[embedded_parts.Part],
    task: embedded_parts.Task,
    servable: serving.Servable | serving.RemoteServable,
    executor: Executor,
) -> None:
    """Has an executor embed the parts that are not whole yet."""
    task.folder.mkdir(exist_ok=True)
    folder = ResumableParts(task.folder)
    missing = [part for part in parts if folder.find(part.name) is None]
    logging.info(
        "%d of %d parts are embedded already.",
        len(parts) - len(missing),
        len(parts),
    )
    executor.map(
        functools.partial(embedded_parts.embed, task=task),
        missing,
        folder=task.folder,
        load=functools.partial(serving.load, servable.source),
    )
    folder.gather([part.name for part in parts])


def _descriptors(
    parts: Sequence[embedded_parts.Part],
    task: embedded_parts.Task,
    records: Records,
    servable: serving.Servable | serving.RemoteServable,
    unfinished: atomic_files.Unfinished,
) -> Iterator[np.ndarray]:
    """Yields descriptors [b, D] in order: of whole parts, or embedded here."""
    folder = ResumableParts(task.folder)
    for is_whole, group in itertools.groupby(
        parts, key=lambda part: folder.find(part.name) is not None
    ):
        if not is_whole:
            positions = np.concatenate([part.positions for part in group])
            rows = records.manifest.iloc[positions]
            yield from embedding.embed_batches(
                servable,
                records.read_images(rows),
                rows["image_id"].tolist(),
                batch_size=task.batch_size,
            )
            continue
        for part in group:
            yield embedded_parts.read(part, task.folder)
            # Removed once descriptors.npy holds it safely.
            if part.stop <= unfinished.done:
                folder.remove(part.name)
