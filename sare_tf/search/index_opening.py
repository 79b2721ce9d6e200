"""Reads the folders of an index, and refuses what is damaged or differs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from sare_tf.runtime import file_digests, sealed_json
from sare_tf.runtime.damage import Damaged
from sare_tf.search import index_files, segments
from sare_tf.search.index_folders import PartAddress

if TYPE_CHECKING:
    from sare_tf.search.remote_part import RemotePart


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """A folder of an index, or a part that another process serves.

    Args:
        name: the folder, or the address of the part.
        folders: where what was measured of it lies.
        all_metadata: index.json of each.
        segments: what is searched.
        part: the only segment, if it is a part.
    """

    name: str
    folders: Sequence[Path]
    all_metadata: Sequence[dict[str, Any]]
    segments: Sequence["segments.Segment | RemotePart"]
    part: "RemotePart | None" = None


def check_one_export(opened: Sequence[Opened]) -> None:
    """Refuses indexes whose descriptors cannot be compared.

    Folders may hold numbers and codes, of which a warning is logged: distances
    of codes are rough, so their images rank less well among others.

    Args:
        opened: the folders and parts of an index.

    Raises:
        ValueError: they are of different exports or lengths, or there are parts
            of different types.
    """
    first = opened[0]
    has_parts = any(one.part is not None for one in opened)
    for one in opened:
        for metadata in one.all_metadata:
            for name in ("export_fingerprint", "dimension", "dtype"):
                expected = first.all_metadata[0][name]
                if metadata[name] == expected:
                    continue
                what = (
                    f"{one.name!r} with another {name} than {first.name!r}: "
                    f"{_short(metadata[name])}, not {_short(expected)}."
                )
                if name == "dtype" and not has_parts:
                    logging.warning("Distances differ in precision: %s", what)
                    continue
                raise ValueError(
                    "Expected indexes that one export built, with the same "
                    f"--index_dtype. Received: {what} Build them again with "
                    "one."
                )


def _short(value: Any) -> str:
    """The start of a fingerprint, or all of another value."""
    return str(value)[:12]


def open_one(path: Path | PartAddress, *, exact: bool, check: bool) -> Opened:
    """Opens a folder of an index, or connects to a part.

    Args:
        path: the folder, or the part.
        exact: search exactly, without ScaNN.
        check: compare the files with their digests.

    Raises:
        FileNotFoundError: no finished index is there.
        Damaged: it is.
        ConnectionError: the part does not answer.
        ValueError: the part does not search exactly, as it shall.
    """
    if isinstance(path, Path):
        metadata, of_folder = open_folder(path, exact=exact, check=check)
        return Opened(
            name=str(path),
            folders=[path],
            all_metadata=[metadata],
            segments=of_folder,
        )
    # Folders need no client of HTTP.
    from sare_tf.search.remote_part import RemotePart

    part = RemotePart(path)
    if exact and part.is_approximate:
        raise ValueError(
            "Expected parts that search exactly, for --exact_search. Received: "
            f"{part.url}, which searches by ScaNN. Start it with "
            "--exact_search, too."
        )
    return Opened(
        name=part.url,
        folders=part.folders,
        all_metadata=part.all_metadata,
        segments=[part],
        part=part,
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
