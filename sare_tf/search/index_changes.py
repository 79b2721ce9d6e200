"""Changes of an index: images added, removed, and one segment made again.

index.json is written last and names what counts, so a change that was killed
did not happen. One change at a time; the index may be searched meanwhile.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from absl import logging

from sare_tf import serving
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files
from sare_tf.search import opened_index, segment_building, segments
from sare_tf.search.opened_index import COMMAND, Index

# Rows copied at a time in numbers: 256 MiB of float32.
_COPIED_NUMBERS = 1 << 26


def add(
    *,
    index: str | Path,
    records: str | Path,
    export: str | Path | serving.Server,
    split: str = "test",
    batch_size: int = 32,
    for_each: Callable[..., None] | None = None,
) -> Path:
    """Adds the database images of a split of other records to an index.

    Args:
        index: folder of the index.
        records: folder of `build_records`, with the images to add.
        export: folder of the export that built the index, or a server of it.
        split: whose database images are added.
        batch_size: images embedded at a time.
        for_each: as of `index.run`.

    Returns:
        `index`.

    Raises:
        FileNotFoundError: index, records or export are absent or unfinished.
        ValueError: another export, images that the index has already, or what
            `index.run` raises.
    """
    folder = _one_folder(index)
    found = Index.open(folder, exact=True)
    opened = Records(records)
    rows = opened.rows(split, "database")
    servable = serving.load(export)
    found.check_export(servable)
    _check_new(found, rows["image_id"])
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
        segment = segment_building.make(
            unfinished,
            opened,
            rows,
            servable,
            batch_size=batch_size,
            dtype=found.metadata["dtype"],
            target_recall=found.metadata["target_recall"],
            tune_tree=found.metadata.get("tune_tree", False),
            for_each=for_each,
        )
    # Other changes may have come meanwhile.
    found = Index.open(folder, exact=True)
    found.check_export(servable)
    _check_new(found, rows["image_id"])
    metadata = dict(found.metadata)
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
    logging.info(
        "Added %d images: %d in %s, in %d segments.",
        len(rows),
        metadata["count"],
        folder,
        len(metadata["segments"]),
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
        FileNotFoundError: the index or the file is not there.
        ValueError: no id, one that the index does not hold, or all that it
            holds.
    """
    folder = _one_folder(index)
    found = Index.open(folder, exact=True)
    if not Path(ids).is_file():
        raise FileNotFoundError(
            "Expected a text file of image ids, one a line. Received: "
            f"remove_ids={str(ids)!r}, which is no file."
        )
    lines = Path(ids).read_text(encoding="utf-8").splitlines()
    named = pd.Index([line for line in lines if line.strip()]).unique()
    rows = pd.Index(found.manifest["image_id"]).get_indexer(named)
    if not len(named) or (rows < 0).any():
        unknown = named[rows < 0]
        raise ValueError(
            "Expected ids of images of the index, one a line. Received: "
            f"remove_ids={str(ids)!r} with {len(named)} ids, of which the "
            f"index {str(folder)!r} lacks {len(unknown)}: "
            f"{', '.join(unknown[:5])}. Nothing was removed; correct the file."
        )
    if len(rows) == len(found.manifest):
        raise ValueError(
            f"Expected to keep some images. Received: remove_ids={str(ids)!r} "
            f"with all {len(rows)} of the index. Delete its folder instead."
        )
    metadata = dict(found.metadata)
    live, start = [], 0
    for part in found.segments:
        live.append(start + part.live)
        start += len(part.descriptors)
    kept = np.delete(np.concatenate(live), rows)
    removed = np.setdiff1d(np.arange(start), kept)
    name = f"removed-{metadata['changes'] + 1:05d}.npy"
    np.save(folder / name, removed)
    metadata["removed"] = name
    metadata["count"] = len(kept)
    _write_change(folder, metadata)
    logging.info(
        "Removed %d images: %d in %s. --compact frees what %d take.",
        len(rows),
        len(kept),
        folder,
        len(removed),
    )
    return folder


def compact(
    *,
    index: str | Path,
    target_recall: float = 0.0,
    tune_tree: bool = False,
) -> Path:
    """Makes one segment of an index, without what was removed.

    Nothing is embedded again. Until it is done the index is as it was.

    Args:
        index: folder of the index.
        target_recall: as of `index.run`.
        tune_tree: as of `index.run`.

    Returns:
        `index`.

    Raises:
        FileNotFoundError: no finished index is there.
        ValueError: it is damaged, or holds something else; or `tune_tree`
            without a target.
    """
    check_tuning(target_recall, tune_tree)
    folder = _one_folder(index)
    atomic_files.check_replaceable(folder, names=opened_index.NAMES)
    found = Index.open(folder, exact=True)
    metadata = dict(found.metadata)
    step = max(1, _COPIED_NUMBERS // metadata["dimension"])
    with atomic_files.folder_to_resume(
        folder,
        {
            "compacted": metadata,
            "target_recall": target_recall,
            "tune_tree": tune_tree,
        },
    ) as unfinished:
        segments.write_descriptors(
            (
                found.descriptors[start : start + step]
                for start in range(unfinished.done, metadata["count"], step)
            ),
            unfinished,
            shape=(metadata["count"], metadata["dimension"]),
            dtype=metadata["dtype"],
        )
        segment = segments.finish(
            unfinished.folder,
            found.manifest,
            target_recall=target_recall,
            tune_tree=tune_tree,
        )
        _check_unchanged(folder, found)
        metadata["segments"] = [{"folder": ".", **segment}]
        metadata["removed"] = None
        metadata["target_recall"] = target_recall
        metadata["tune_tree"] = tune_tree
        opened_index.write_metadata(unfinished.folder, metadata)
    logging.info("Index of %d images in %s.", metadata["count"], folder)
    return folder


def check_tuning(target_recall: float, tune_tree: bool) -> None:
    """Refuses a choice of trees that has no target.

    Raises:
        ValueError: there is none.
    """
    if tune_tree and not target_recall:
        raise ValueError(
            "Expected a recall that the tree is tuned to. Received: "
            "tune_tree=True, target_recall=0. Give --target_recall=0.99, or "
            "another."
        )


def _check_new(found: Index, image_ids: pd.Series) -> None:
    known = image_ids[image_ids.isin(found.manifest["image_id"])]
    if len(known):
        raise ValueError(
            "Expected images that the index does not hold. Received: "
            f"{len(known)} that it holds, such as {known.iloc[0]!r}. Nothing "
            "was added. Remove those first (--remove_ids) to replace them."
        )


def _check_unchanged(folder: Path, found: Index) -> None:
    now = atomic_files.read_json(folder / "index.json", made_by=COMMAND)
    if now != found.metadata:
        raise ValueError(
            "Expected no change of the index while it was compacted. Received: "
            f"index={str(folder)!r} with {now['changes']} changes, not "
            f"{found.metadata['changes']}. The index is as it was; run the "
            "command again."
        )


def _one_folder(index: str | Path) -> Path:
    folder = Path(index)
    atomic_files.put_back(folder)
    if not (folder / "index.json").is_file():
        raise FileNotFoundError(
            "Expected the folder of one index, which holds index.json. "
            f"Received: index={str(index)!r}. Change shards one by one; build "
            f"an index with {COMMAND}."
        )
    return folder


def _write_change(folder: Path, metadata: dict[str, Any]) -> None:
    """Makes a change count, then removes what no longer does."""
    metadata["changes"] += 1
    opened_index.write_metadata(folder, metadata)
    named = {part["folder"] for part in metadata["segments"]}
    named.add(metadata["removed"])
    for path in [*folder.glob("added*"), *folder.glob("removed-*")]:
        if path.name not in named:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
