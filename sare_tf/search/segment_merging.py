"""Segments of an index made into one, without the images that were removed.

No image is embedded again. The new segment is written beside the others, and
index.json, written last, names it instead of them: whoever opens the index
finds it as it was or as it is, and a merge that was killed did not happen.

`tidy` keeps an index that changes every day quick and small. It merges what was
added last with the segments before it, as long as these are not more than twice
as large. So each segment is more than twice as large as the next one: of 100
images a day, 100,000 make at most 10 segments, and each image is copied at most
as often. It also merges segments of which a stated share was removed.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from sare_tf.runtime import atomic_files, file_digests
from sare_tf.search import (
    codes,
    descriptor_arrays,
    index_files,
    segments,
)
from sare_tf.search.opened_index import Index
from sare_tf.search.options import TuningOptions

# A segment is merged with later ones if it is at most this much larger. Ours.
_LARGER = 2
# Numbers copied at a time: 256 MiB of float32. Ours.
_COPIED_NUMBERS = 1 << 26


def tidy(folder: Path, *, stale: float) -> dict[str, Any]:
    """Merges segments that are small, or of which much was removed.

    Args:
        folder: of an index.
        stale: share of the images of a segment that may be removed; 0: nothing
            is merged.

    Returns:
        Content of index.json.

    Raises:
        ValueError: the index is damaged, or was changed meanwhile.
    """
    if not stale:
        return index_files.read(folder)
    found = Index.open(folder, exact=True, check=False)
    first = first_to_merge(
        [len(segment.live) for segment in found.segments],
        [len(segment.descriptors) for segment in found.segments],
        stale=stale,
    )
    if first is None:
        return found.metadata
    # Damage would be copied, and get digests of its own.
    before = Index.open(folder, exact=True)
    merge(before, first=first, tuning=tuning_of(before.metadata))
    return index_files.read(folder)


def first_to_merge(
    live: Sequence[int], counts: Sequence[int], *, stale: float
) -> int | None:
    """Returns from which segment on all are merged; None: none are.

    Args:
        live: images of each segment that were not removed.
        counts: images of each segment.
        stale: as of `tidy`.
    """
    last = len(live) - 1
    first, merged = last, live[last]
    while first and live[first - 1] <= _LARGER * merged:
        first -= 1
        merged += live[first]
    for number, (left, count) in enumerate(zip(live, counts, strict=True)):
        if count - left >= stale * count:
            first = min(first, number)
            return first
    return None if first == last else first


def merge(before: Index, *, first: int, tuning: TuningOptions) -> None:
    """Makes one segment of the last segments of an index.

    Args:
        before: the opened index, of one folder.
        first: number of the first segment that is merged.
        tuning: how the settings of ScaNN are chosen.

    Raises:
        ValueError: the index was changed meanwhile.
    """
    (folder,) = before.folders
    metadata = dict(before.metadata)
    kept, merged = metadata["segments"][:first], before.segments[first:]
    count = sum(len(segment.live) for segment in merged)
    whole = folder / "merged"
    name = f"merged-{metadata['changes'] + 1:05d}"
    if count:
        rows = before.manifest.iloc[-count:]
        with atomic_files.folder_to_resume(
            whole,
            {"of": metadata, "first": first, **words_of(tuning)},
        ) as unfinished:
            _write_rows(unfinished, merged, metadata["dimension"])
            segment = segments.finish(
                unfinished.folder, rows, tuning, dtype=metadata["dtype"]
            )
            # Codes are not made again, so this was measured before.
            segment["code_recall"] = metadata["segments"][first].get(
                "code_recall"
            )
        _check_unchanged(folder, before)
        shutil.rmtree(folder / name, ignore_errors=True)
        whole.rename(folder / name)
        kept = [*kept, {"folder": name, **segment}]
    metadata["segments"] = kept
    _keep_removed(folder, before, first, metadata)
    if not first:
        metadata |= words_of(tuning)
    write_change(folder, metadata)
    logging.info(
        "Merged %d segments: %d images in %d segments.",
        len(merged),
        metadata["count"],
        len(kept),
    )


def _write_rows(
    unfinished: atomic_files.Unfinished,
    merged: Sequence[segments.Segment],
    dimension: int,
) -> None:
    """Copies what is stored of the images, numbers or codes."""
    arrays = [segment.descriptors for segment in merged]
    if isinstance(arrays[0], codes.DecodedRows):
        # All segments of an index share a codec.
        write_codec(arrays[0], unfinished.folder)
        arrays = [rows.codes for rows in arrays]
    stored = descriptor_arrays.GatheredRows(
        arrays, [segment.live for segment in merged]
    )
    step = max(1, _COPIED_NUMBERS // dimension)
    form = {"shape": stored.shape, "dtype": stored.dtype.name}
    descriptor_arrays.start_or_resume(unfinished, **form)
    descriptor_arrays.write(
        (
            stored[start : start + step]
            for start in range(unfinished.done, len(stored), step)
        ),
        unfinished,
        **form,
    )


def write_codec(rows: np.ndarray | codes.DecodedRows, folder: Path) -> None:
    """Writes the codec of decoded rows to the folder of another segment."""
    if isinstance(rows, codes.DecodedRows):
        with atomic_files.file_in_one_piece(
            folder / descriptor_arrays.CODEC
        ) as temporary:
            codes.write(rows.codec, temporary)


def _keep_removed(
    folder: Path, before: Index, first: int, metadata: dict[str, Any]
) -> None:
    """Writes which images of the segments that stay were removed."""
    removed, start = [], 0
    for segment in before.segments[:first]:
        rows = np.arange(len(segment.descriptors))
        removed.append(start + np.setdiff1d(rows, segment.live))
        start += len(rows)
    removed = np.concatenate([np.zeros(0, np.int64), *removed])
    write_removed(folder, removed, metadata)


def write_removed(
    folder: Path, removed: np.ndarray, metadata: dict[str, Any]
) -> None:
    """Writes the rows that were removed, and names the file in metadata.

    Args:
        folder: of the index.
        removed: int64, rows counted through all segments.
        metadata: content of index.json, which is changed.
    """
    metadata["removed"] = None
    metadata.pop("digests", None)
    if len(removed):
        name = f"removed-{metadata['changes'] + 1:05d}.npy"
        with atomic_files.file_in_one_piece(folder / name) as temporary:
            with temporary.open("wb") as file:
                np.save(file, removed)
        metadata["removed"] = name
        metadata["digests"] = file_digests.of(folder, [name])


def tuning_of(metadata: dict[str, Any]) -> TuningOptions:
    """Returns how ScaNN's settings were chosen, by index.json."""
    return TuningOptions(
        target_recall=metadata["target_recall"],
        tune_tree=metadata.get("tune_tree", False),
        reorder_from=metadata.get("reorder_from", "memory"),
    )


def words_of(tuning: TuningOptions) -> dict[str, Any]:
    """Returns the entries of index.json that `tuning_of` reads."""
    return {
        "target_recall": tuning.target_recall,
        "tune_tree": tuning.tune_tree,
        "reorder_from": tuning.reorder_from,
    }


def write_change(folder: Path, metadata: dict[str, Any]) -> None:
    """Makes a change count, then removes files that it replaced."""
    metadata["changes"] += 1
    index_files.write(folder, metadata)
    used = {segment["folder"] for segment in metadata["segments"]}
    used.add(metadata["removed"])
    unused = [
        path
        for pattern in ("added*", "merged*", "removed-*")
        for path in folder.glob(pattern)
        if path.name not in used
    ]
    if "." not in used:
        unused += [folder / name for name in segments.FILES]
    for path in unused:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _check_unchanged(folder: Path, before: Index) -> None:
    now = index_files.read(folder)
    if now != before.metadata:
        raise ValueError(
            "Expected no change of the index while its segments were merged. "
            f"Received: index={str(folder)!r} with {now['changes']} changes, "
            f"not {before.metadata['changes']}. Those changes are kept; run "
            "the command again."
        )
