"""Changes of an index: images added or removed, and compaction.

index.json is written last and names the files that count, so a change that was
killed did not happen. Make one change at a time. The index may be searched
meanwhile.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sare_tf import serving
from sare_tf.records.records import Records
from sare_tf.runtime import (
    atomic_files,
    stage_results,
    text_files,
)
from sare_tf.runtime.executors import Executor
from sare_tf.search import (
    descriptor_arrays,
    index_files,
    index_size,
    segment_building,
    segment_merging,
    segments,
)
from sare_tf.search.opened_index import Index
from sare_tf.search.options import TuningOptions


def add(
    *,
    index: str | Path,
    records: str | Path,
    export: str | Path | serving.Server,
    split: str = "test",
    batch_size: int = 32,
    executor: Executor | None = None,
    stale: float = 0.0,
) -> Path:
    """Adds the database images of a split of other records to an index.

    Args:
        index: folder of the index.
        records: folder of `build_records`, with the images to add.
        export: folder of the export that built the index, or a server of it.
        split: the split whose database images are added.
        batch_size: images embedded at a time.
        executor: embeds parts of the images; None: this process embeds all.
        stale: as of `segment_merging.tidy`, which follows.

    Returns:
        `index`.

    Raises:
        FileNotFoundError: index, records or export are absent or unfinished.
        ImportError, OSError: the executor failed.
        ValueError: another export, images that the index has already, or
            images that cannot be embedded.
    """
    folder = _one_folder(index)
    before = Index.open(folder, exact=True)
    _check_plain(before)
    opened = Records(records)
    rows = opened.rows(split, "database")
    servable = serving.load(export)
    before.check_export(servable)
    _check_absent(before, rows["image_id"])
    tuning = segment_merging.tuning_of(before.metadata)
    dtype = before.metadata["dtype"]
    whole = folder / "added"
    size = len(rows), servable.dimension
    index_size.check(whole, *size, dtype=dtype, tuning=tuning)
    with atomic_files.folder_to_resume(
        whole,
        {
            "export_fingerprint": servable.fingerprint,
            "records_fingerprint": opened.fingerprint,
            "split": split,
            "batch_size": batch_size,
        },
    ) as unfinished:
        segment_building.embed(
            unfinished,
            opened,
            rows,
            servable,
            batch_size=batch_size,
            dtype=descriptor_arrays.dtype_embedded(dtype),
            executor=executor,
        )
        # One codec, so that codes of all segments can be put together.
        segment_merging.write_codec(
            before.segments[0].descriptors, unfinished.folder
        )
        segment = segments.finish(unfinished.folder, rows, tuning, dtype=dtype)
    # Other changes may have come meanwhile.
    now = Index.open(folder, exact=True, check=False)
    now.check_export(servable)
    _check_absent(now, rows["image_id"])
    _append(folder, whole, segment, dict(now.metadata), opened.fingerprint)
    metadata = segment_merging.tidy(folder, stale=stale)
    report(
        f"Added {len(rows)} images: {metadata['count']} in {folder}, in "
        f"{len(metadata['segments'])} segments.",
        folder,
        metadata,
        action="added",
    )
    return folder


def add_vectors(
    *,
    index: str | Path,
    descriptors: np.ndarray,
    rows: pd.DataFrame,
    stale: float = 0.0,
) -> Path:
    """Adds descriptors of any source to an index of such.

    Args:
        index: folder of an index that `Index.build` made.
        descriptors: float [N, D], rows of unit length.
        rows: manifest of the N images, as `vector_index.rows_of` makes it.
        stale: as of `segment_merging.tidy`, which follows.

    Returns:
        `index`.

    Raises:
        FileNotFoundError: the index is absent.
        ValueError: an index that an export built, another descriptor length,
            rows that are no unit vectors, or images that it has already.
    """
    folder = _one_folder(index)
    before = Index.open(folder, exact=True, check=False)
    _check_plain(before)
    metadata = dict(before.metadata)
    if metadata["export_fingerprint"] is not None or np.shape(descriptors) != (
        len(rows),
        metadata["dimension"],
    ):
        raise ValueError(
            f"Expected descriptors [{len(rows)}, {metadata['dimension']}], and "
            "an index that Index.build made. Received: descriptors.shape="
            f"{np.shape(descriptors)} for {str(folder)!r}."
        )
    descriptor_arrays.check_unit(descriptors, rows["image_id"].tolist())
    _check_absent(before, rows["image_id"])
    whole, dtype = folder / "added", metadata["dtype"]
    with atomic_files.folder_in_one_piece(whole) as new:
        embedded = descriptor_arrays.dtype_embedded(dtype)
        np.save(new / descriptor_arrays.FLOATS, descriptors.astype(embedded))
        segment_merging.write_codec(before.segments[0].descriptors, new)
        segment = segments.finish(
            new, rows, segment_merging.tuning_of(metadata), dtype=dtype
        )
    _append(folder, whole, segment, metadata, None)
    segment_merging.tidy(folder, stale=stale)
    return folder


def _append(
    folder: Path,
    whole: Path,
    segment: dict[str, Any],
    metadata: dict[str, Any],
    fingerprint: str | None,
) -> None:
    """Makes a new segment count.

    Args:
        folder: of the index.
        whole: of the new segment.
        segment: what `segments.finish` returned.
        metadata: index.json without it.
        fingerprint: of the records that it was made from; None: of none.
    """
    name = f"added-{metadata['changes'] + 1:05d}"
    shutil.rmtree(folder / name, ignore_errors=True)
    whole.rename(folder / name)
    descriptor_arrays.remove_coded(folder / name)
    metadata["segments"] = [
        *metadata["segments"],
        {"folder": name, **segment},
    ]
    if fingerprint is not None:
        metadata["added_records_fingerprints"] = [
            *metadata["added_records_fingerprints"],
            fingerprint,
        ]
    metadata["count"] += segment["count"]
    segment_merging.write_change(folder, metadata)


def remove(*, index: str | Path, ids: str | Path, stale: float = 0.0) -> Path:
    """Removes images from an index.

    Args:
        index: folder of the index.
        ids: text file, one image id a line.
        stale: as of `segment_merging.tidy`, which follows.

    Returns:
        `index`.

    Raises:
        FileNotFoundError: the index or the file is absent.
        ValueError: the file names no image, all images of the index, or an
            image that the index does not hold.
    """
    folder = _one_folder(index)
    before = Index.open(folder, exact=True)
    rows = _rows_of_ids(before, ids)
    metadata = dict(before.metadata)
    live, first = [], 0
    for segment in before.segments:
        live.append(first + segment.live)
        first += len(segment.descriptors)
    kept = np.delete(np.concatenate(live), rows)
    removed = np.setdiff1d(np.arange(first), kept)
    segment_merging.write_removed(folder, removed, metadata)
    metadata["count"] = len(kept)
    segment_merging.write_change(folder, metadata)
    metadata = segment_merging.tidy(folder, stale=stale)
    held = sum(segment["count"] for segment in metadata["segments"])
    report(
        f"Removed {len(rows)} images: {len(kept)} in {folder}. --compact frees "
        f"the space of {held - len(kept)} removed images.",
        folder,
        metadata,
        action="removed",
    )
    return folder


def compact(*, index: str | Path, tuning: TuningOptions) -> Path:
    """Makes one segment of an index, without the removed images.

    No image is embedded again, see `segment_merging`.

    Args:
        index: folder of the index.
        tuning: how the settings of ScaNN are chosen.

    Returns:
        `index`.

    Raises:
        FileNotFoundError: no finished index is there.
        ValueError: it is damaged, or was changed meanwhile.
    """
    folder = _one_folder(index)
    before = Index.open(folder, exact=True)
    segment_merging.merge(before, first=0, tuning=tuning)
    report(
        f"Index of {before.metadata['count']} images in {folder}.",
        folder,
        index_files.read(folder),
        action="compacted",
    )
    return folder


def report(
    text: str,
    folder: Path,
    metadata: dict[str, Any],
    *,
    action: str,
    next_command: str | None = None,
) -> None:
    """Reports an index that was made, kept or changed, as the stage's result.

    Args:
        text: what was done, in words.
        folder: of the index.
        metadata: content of index.json.
        action: "made", "kept", "added", "removed" or "compacted".
        next_command: what to run next.
    """
    stage_results.report(
        "index",
        text,
        path=folder,
        action=action,
        count=metadata["count"],
        segments=len(metadata["segments"]),
        next_command=next_command,
    )


def _rows_of_ids(index: Index, ids: str | Path) -> np.ndarray:
    """Returns the rows of images that a text file names, in its order."""
    if not Path(ids).is_file():
        raise FileNotFoundError(
            "Expected a text file of image ids, one a line. Received: "
            f"remove_ids={str(ids)!r}, which is no file."
        )
    lines = text_files.read_lines(ids)
    image_ids = pd.Index([line for line in lines if line.strip()]).unique()
    rows = pd.Index(index.manifest["image_id"]).get_indexer(image_ids)
    if not len(image_ids) or (rows < 0).any():
        unknown = image_ids[rows < 0]
        raise ValueError(
            "Expected ids of images of the index, one a line. Received: "
            f"remove_ids={str(ids)!r} with {len(image_ids)} ids. The index "
            f"{index.path!r} lacks {len(unknown)}: {', '.join(unknown[:5])}. "
            "Nothing was removed; correct the file."
        )
    if len(rows) == len(index.manifest):
        raise ValueError(
            f"Expected to keep some images. Received: remove_ids={str(ids)!r} "
            f"with all {len(rows)} of the index. Delete its folder instead."
        )
    return rows


def _check_absent(index: Index, image_ids: pd.Series) -> None:
    known = image_ids[image_ids.isin(index.manifest["image_id"])]
    if len(known):
        raise ValueError(
            "Expected images that the index does not hold. Received: "
            f"{len(known)} that it holds, such as {known.iloc[0]!r}. Nothing "
            "was added. Remove those first (--remove_ids) to replace them."
        )


def _check_plain(index: Index) -> None:
    """Refuses to add images to an index whose descriptors are augmented."""
    if index.metadata.get("augment_database"):
        raise ValueError(
            "Expected an index without database augmentation: the neighbours "
            f"of its images would change. Received: index={index.path!r}. "
            "Build an index of all images anew."
        )


def _one_folder(index: str | Path) -> Path:
    folder = Path(index)
    atomic_files.put_back(folder)
    if not (folder / "index.json").is_file():
        raise FileNotFoundError(
            "Expected the folder of one index, which holds index.json. "
            f"Received: index={str(index)!r}. Change shards one by one; build "
            f"an index with {index_files.COMMAND}."
        )
    return folder
