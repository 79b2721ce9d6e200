"""Reads the folder of an index, and refuses what is damaged."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sare_tf.runtime import file_digests, sealed_json
from sare_tf.runtime.damage import Damaged
from sare_tf.search import index_files, segments


def check_one_export(
    all_metadata: Sequence[dict[str, Any]], folders: Sequence[Path]
) -> None:
    """Refuses indexes whose descriptors cannot be compared.

    Args:
        all_metadata: index.json of each.
        folders: their folders.

    Raises:
        ValueError: they are of different exports or lengths.
    """
    for metadata, folder in zip(all_metadata, folders, strict=True):
        for name in ("export_fingerprint", "dimension"):
            if metadata[name] != all_metadata[0][name]:
                raise ValueError(
                    "Expected indexes that one export built. Received: "
                    f"{str(folder)!r} with another {name} than "
                    f"{str(folders[0])!r}. Build them again with one."
                )


def open_folder(
    folder: Path, *, exact: bool, check: bool
) -> tuple[dict[str, Any], list[segments.Segment]]:
    """Returns index.json and the segments of one folder.

    Args:
        folder: the folder of an index.
        exact: search exactly, without ScaNN.
        check: compare its files with their digests.

    Raises:
        FileNotFoundError: no finished index is there.
        Damaged: it is.
    """
    while True:
        metadata = index_files.read(folder)
        try:
            opened = _segments(folder, metadata, exact=exact, check=check)
            return metadata, opened
        except Damaged:
            # A change may have removed files that were about to be read.
            if index_files.read(folder) == metadata:
                raise


def _segments(
    folder: Path, metadata: dict[str, Any], *, exact: bool, check: bool
) -> list[segments.Segment]:
    """Opens the segments that index.json names."""
    try:
        removed = _removed(folder, metadata, check=check)
        opened, first = [], 0
        for description in metadata["segments"]:
            sealed_json.check_types(description, {"folder": str, "count": int})
            stop = first + description["count"]
            in_segment = removed[(removed >= first) & (removed < stop)]
            opened.append(
                segments.Segment(
                    folder / description["folder"],
                    description,
                    removed=in_segment - first,
                    exact=exact,
                    check=check,
                )
            )
            first = stop
        if sum(len(segment.live) for segment in opened) != metadata["count"]:
            raise ValueError(f"there are not {metadata['count']} images")
        for segment in opened:
            if segment.descriptors.shape[1] != metadata["dimension"]:
                raise ValueError(
                    f"descriptors are not of length {metadata['dimension']}"
                )
    except (OSError, ValueError) as error:
        again = f"run {index_files.COMMAND} again"
        if metadata.get("built_from") == "vectors":
            again = "build it again with Index.build"
        raise Damaged(
            f"Expected a whole index. Received: index={str(folder)!r} "
            f"({error}). Delete it and {again}.",
            path=folder,
        ) from error
    return opened


def _removed(
    folder: Path, metadata: dict[str, Any], *, check: bool
) -> np.ndarray:
    """Reads the rows that were removed, int64 [n], and refuses others."""
    if metadata["removed"] is None:
        return np.zeros(0, np.int64)
    if check:
        file_digests.check(folder, metadata.get("digests", {}))
    removed = np.load(folder / metadata["removed"])
    if removed.ndim != 1 or removed.dtype != np.int64:
        raise ValueError(f"{metadata['removed']} holds no list of rows")
    return removed
