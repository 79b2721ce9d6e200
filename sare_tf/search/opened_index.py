"""An opened index: the images nearest to a query, over all its segments.

    index.json        what the index was made from, its segments and changes
    .                 the first segment; see `segments`
    added-00001/      a segment for each time images were added
    removed-00002.npy int64, rows that were removed: rows of all segments,
                      counted through

An index is read at its index.json, which is written last; so it is always
that of before or after a change. Several indexes of one export are searched
as one, shards of a database.
"""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

import sare_tf
from sare_tf import serving
from sare_tf.runtime import atomic_files
from sare_tf.search import exact_search, segments

COMMAND = "python -m sare_tf.index --flagfile=..."
# What an index's folder may hold.
NAMES = {
    "index.json",
    *segments.FILES,
    "added*",
    "removed-*",
    ".*.unfinished*",
}
_UNIT_TOLERANCE = 1e-4


class Index:
    """A finished index.

    Attributes:
        path: its folder, or folders separated by commas.
        metadata: index.json; of several folders, of the first.
        manifest: DataFrame; row i describes row i of the descriptors.
        descriptors: float32 or float16 [N, D], read when asked for.
        searches_with: "scann" or "exact".
        records_fingerprints: of all records whose images are in it.
    """

    def __init__(self, path: str, folders: Sequence[Path], *, exact: bool):
        self.path = path
        opened = [_open_folder(folder, exact=exact) for folder in folders]
        self.metadata = opened[0][0]
        self.segments = [some for _, parts in opened for some in parts]
        self.records_fingerprints = {
            fingerprint
            for metadata, _ in opened
            for fingerprint in (
                metadata["records_fingerprint"],
                *metadata["added_records_fingerprints"],
            )
        }
        for folder, (metadata, _) in zip(folders, opened, strict=True):
            for name in ("export_fingerprint", "dimension"):
                if metadata[name] != self.metadata[name]:
                    raise ValueError(
                        "Expected indexes that one export built. Received: "
                        f"{str(folder)!r} with another {name} than "
                        f"{str(folders[0])!r}. Build them again with one."
                    )
        self.manifest = pd.concat(
            [part.manifest.iloc[part.live] for part in self.segments],
            ignore_index=True,
        )
        twice = self.manifest["image_id"].duplicated()
        if twice.any():
            raise ValueError(
                "Expected every image once in an index and its shards. "
                f"Received: index={path!r} with {twice.sum()} images twice, "
                f"such as {self.manifest['image_id'][twice].iloc[0]!r}. Remove "
                "them from one shard (--remove_ids)."
            )
        self.descriptors = self.segments[0].descriptors
        if len(self.descriptors) != len(self.manifest) or self.segments[1:]:
            self.descriptors = segments.Rows(
                [part.descriptors for part in self.segments],
                [part.live for part in self.segments],
            )
        approximate = any(part.searcher for part in self.segments)
        self.searches_with = "scann" if approximate else "exact"

    @classmethod
    def open(cls, path: str | Path, *, exact: bool = False) -> "Index":
        """Opens an index, or several as one.

        Args:
            path: the folder; or a folder of such folders, which are taken in
                the order of their names; or several of either, separated by
                commas.
            exact: search exactly, without ScaNN. Search is exact, too, where
                ScaNN cannot be imported; a warning says so.

        Raises:
            FileNotFoundError: no finished index is there.
            ValueError: one is damaged, or several do not belong together.
        """
        return cls(str(path), _folders(str(path)), exact=exact)

    def search(
        self, descriptors: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the nearest database images.

        Args:
            descriptors: [Q, D], rows of unit length.
            k: neighbours per query.

        Returns:
            int64 [Q, k] rows of `manifest`, nearest first, and float32 [Q, k]
            squared distances. With float16 descriptors ScaNN's distances are
            off by up to some 1e-4.

        Raises:
            ValueError: another descriptor length, rows that are not unit
                vectors, or k larger than the database.
        """
        count, dimension = self.descriptors.shape
        if np.ndim(descriptors) != 2 or np.shape(descriptors)[1] != dimension:
            raise ValueError(
                f"Expected descriptors [Q, {dimension}]. Received: "
                f"descriptors.shape={np.shape(descriptors)}. Embed with the "
                "export that the index was built with."
            )
        if not 1 <= k <= count:
            raise ValueError(
                f"Expected k from 1 to the {count} images of the index. "
                f"Received: k={k}. Ask for fewer neighbours."
            )
        descriptors = np.ascontiguousarray(descriptors, np.float32)
        check_unit(
            descriptors, [f"query {row}" for row in range(len(descriptors))]
        )
        parts, start = [], 0
        for part in self.segments:
            if len(part.live):
                rows, distances = part.search(
                    descriptors, min(k, len(part.live))
                )
                parts.append((start + rows, distances))
                start += len(part.live)
        return exact_search.merge(parts, k)

    def check_export(
        self, servable: serving.Servable | serving.RemoteServable
    ) -> None:
        """Refuses a model other than the one that built the index.

        Raises:
            ValueError: the fingerprints differ.
        """
        expected = self.metadata["export_fingerprint"]
        if servable.fingerprint != expected:
            raise ValueError(
                f"Expected the export that built the index {str(self.path)!r}, "
                f"with fingerprint {expected[:12]}. Received: export="
                f"{str(servable.path)!r} with {servable.fingerprint[:12]}. "
                f"Run {COMMAND} with this export, or name the other one."
            )


def check_unit(descriptors: np.ndarray, names: Sequence[str]) -> None:
    """Refuses descriptors [B, D] that are not finite unit vectors.

    Raises:
        ValueError: names the first one.
    """
    norms = np.linalg.norm(descriptors, axis=1)
    # Written so that NaN is refused, too.
    bad = np.flatnonzero(~(np.abs(norms - 1) <= _UNIT_TOLERANCE))
    if len(bad):
        raise ValueError(
            "Expected descriptors that are finite and of length 1. Received: "
            f"length {norms[bad[0]]:.6g} for {names[bad[0]]}. The model "
            "diverged or does not normalise: train or export again."
        )


def write_metadata(folder: Path, metadata: dict[str, Any]) -> None:
    """Writes index.json, with the versions of what made it."""
    atomic_files.write_json(
        folder / "index.json", {**metadata, "versions": versions()}
    )


def versions() -> dict[str, str | None]:
    """Versions of what made a result."""
    try:
        scann = importlib.metadata.version("scann")
    except importlib.metadata.PackageNotFoundError:
        scann = None
    return {
        "sare_tf": sare_tf.__version__,
        "tensorflow": tf.__version__,
        "scann": scann,
        "numpy": np.__version__,
    }


def _folders(path: str) -> list[Path]:
    """Folders of the indexes that a path names."""
    parts = [path] if Path(path).exists() else path.split(",")
    folders = []
    for part in map(Path, parts):
        shards = []
        if part.is_dir() and not (part / "index.json").is_file():
            shards = sorted(
                child.parent for child in part.glob("[!.]*/index.json")
            )
        folders += shards or [part]
    return folders


def _open_folder(
    folder: Path, *, exact: bool
) -> tuple[dict[str, Any], list[segments.Segment]]:
    """index.json and the segments of one folder."""
    metadata = atomic_files.read_json(folder / "index.json", made_by=COMMAND)
    try:
        counts = [described["count"] for described in metadata["segments"]]
        removed = np.zeros(0, np.int64)
        if metadata["removed"]:
            removed = np.load(folder / metadata["removed"])
        ends = np.cumsum(counts)
        parts = [
            segments.Segment(
                folder / described["folder"],
                described,
                removed=removed[(removed >= end - count) & (removed < end)]
                - (end - count),
                exact=exact,
            )
            for described, count, end in zip(
                metadata["segments"], counts, ends, strict=True
            )
        ]
        if sum(len(part.live) for part in parts) != metadata["count"]:
            raise ValueError(f"there are not {metadata['count']} images")
        for part in parts:
            if part.descriptors.shape[1] != metadata["dimension"]:
                raise ValueError(
                    f"descriptors are not of length {metadata['dimension']}"
                )
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"Expected a whole index. Received: index={str(folder)!r} "
            f"({error}). Delete it and run {COMMAND} again."
        ) from error
    return metadata, parts
