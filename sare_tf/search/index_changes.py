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
    file_digests,
    stage_results,
    text_files,
)
from sare_tf.runtime.executors import Executor
from sare_tf.search import (
    descriptor_arrays,
    index_files,
    segment_building,
    segments,
)
from sare_tf.search.opened_index import Index
from sare_tf.search.options import TuningOptions

# Numbers copied at a time: 256 MiB of float32. Ours.
_COPIED_NUMBERS = 1 << 26


def add(
    *,
    index: str | Path,
    records: str | Path,
    export: str | Path | serving.Server,
    split: str = "test",
    batch_size: int = 32,
    executor: Executor | None = None,
) -> Path:
    """Adds the database images of a split of other records to an index.

    Args:
        index: folder of the index.
        records: folder of `build_records`, with the images to add.
        export: folder of the export that built the index, or a server of it.
        split: the split whose database images are added.
        batch_size: images embedded at a time.
        executor: embeds parts of the images; None: this process embeds all.

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
    tuning = TuningOptions(
        target_recall=before.metadata["target_recall"],
        tune_tree=before.metadata.get("tune_tree", False),
    )
    whole = folder / "added"
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
            dtype=before.metadata["dtype"],
            executor=executor,
        )
        segment = segments.finish(unfinished.folder, rows, tuning)
    # Other changes may have come meanwhile.
    now = Index.open(folder, exact=True, check=False)
    now.check_export(servable)
    _check_absent(now, rows["image_id"])
    metadata = dict(now.metadata)
    name = f"added-{metadata['changes'] + 1:05d}"
    shutil.rmtree(folder / name, ignore_errors=True)
    whole.rename(folder / name)
    metadata["segments"] = [
        *metadata["segments"],
        {"folder": name, **segment},
    ]
    metadata["added_records_fingerprints"] = [
        *metadata["added_records_fingerprints"],
        opened.fingerprint,
    ]
    metadata["count"] += len(rows)
    _write_change(folder, metadata)
    report(
        f"Added {len(rows)} images: {metadata['count']} in {folder}, in "
        f"{len(metadata['segments'])} segments.",
        folder,
        metadata,
        action="added",
    )
    return folder


def remove(*, index: str | Path, ids: str | Path) -> Path:
    """Removes images from an index.

    Args:
        index: folder of the index.
        ids: text file, one image id a line.

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
    name = f"removed-{metadata['changes'] + 1:05d}.npy"
    with atomic_files.file_in_one_piece(folder / name) as temporary:
        with temporary.open("wb") as file:
            np.save(file, removed)
    metadata["removed"] = name
    metadata["digests"] = file_digests.of(folder, [name])
    metadata["count"] = len(kept)
    _write_change(folder, metadata)
    report(
        f"Removed {len(rows)} images: {len(kept)} in {folder}. --compact frees "
        f"the space of {len(removed)} removed images.",
        folder,
        metadata,
        action="removed",
    )
    return folder


def compact(*, index: str | Path, tuning: TuningOptions) -> Path:
    """Makes one segment of an index, without the removed images.

    No image is embedded again. The index is unchanged until it is replaced.

    Args:
        index: folder of the index.
        tuning: how the settings of ScaNN are chosen.

    Returns:
        `index`.

    Raises:
        FileNotFoundError: no finished index is there.
        ValueError: it is damaged, was changed meanwhile, or its folder holds
            something else.
    """
    folder = _one_folder(index)
    atomic_files.check_replaceable(folder, names=index_files.NAMES)
    before = Index.open(folder, exact=True)
    metadata = dict(before.metadata)
    step = max(1, _COPIED_NUMBERS // metadata["dimension"])
    with atomic_files.folder_to_resume(
        folder,
        {
            "compacted": metadata,
            "target_recall": tuning.target_recall,
            "tune_tree": tuning.tune_tree,
        },
    ) as unfinished:
        shape = (metadata["count"], metadata["dimension"])
        descriptor_arrays.start_or_resume(
            unfinished, shape=shape, dtype=metadata["dtype"]
        )
        descriptor_arrays.write(
            (
                before.descriptors[first : first + step]
                for first in range(unfinished.done, metadata["count"], step)
            ),
            unfinished,
            shape=shape,
            dtype=metadata["dtype"],
        )
        segment = segments.finish(unfinished.folder, before.manifest, tuning)
        _check_unchanged(folder, before)
        metadata["segments"] = [{"folder": ".", **segment}]
        metadata["removed"] = None
        metadata.pop("digests", None)
        metadata["target_recall"] = tuning.target_recall
        metadata["tune_tree"] = tuning.tune_tree
        index_files.write(unfinished.folder, metadata)
    report(
        f"Index of {metadata['count']} images in {folder}.",
        folder,
        metadata,
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


def _check_unchanged(folder: Path, before: Index) -> None:
    now = index_files.read(folder)
    if now != before.metadata:
        raise ValueError(
            "Expected no change of the index while it was compacted. Received: "
            f"index={str(folder)!r} with {now['changes']} changes, not "
            f"{before.metadata['changes']}. Those changes are kept; run the "
            "command again."
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


def _write_change(folder: Path, metadata: dict[str, Any]) -> None:
    """Makes a change count, then removes files that it replaced."""
    metadata["changes"] += 1
    index_files.write(folder, metadata)
    used = {segment["folder"] for segment in metadata["segments"]}
    used.add(metadata["removed"])
    for path in [*folder.glob("added*"), *folder.glob("removed-*")]:
        if path.name not in used:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
