"""A segment of an index: some of its images, searched by themselves.

    descriptors.npy   float32 or float16 [N, D], rows of unit length
    manifest.parquet  row i describes row i of the descriptors
    scann/            ScaNN's searcher, movable; absent where ScaNN is

An index begins as one segment; images that are added later make one more each.
"""

import functools
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from absl import logging

from sare_tf.dataset import manifest
from sare_tf.runtime import atomic_files
from sare_tf.search import exact_search, scann_searcher, scann_tuning

FILES = {"descriptors.npy", "manifest.parquet", "scann"}
# Approximate search is asked for this many times as many neighbours, again and
# again, until enough of them are not removed.
_ASK_MORE = 4


def write_descriptors(
    blocks: Iterable[np.ndarray],
    unfinished: atomic_files.Unfinished,
    *,
    shape: tuple[int, int],
    dtype: str,
    record_every: int = 4096,
) -> None:
    """Writes descriptors.npy from a stream, in bounded memory.

    After a kill the file is cut back to what is recorded as done.

    Args:
        blocks: [b, D] each, of the rows from `unfinished.done` on.
        unfinished: whose folder gets the file; rows on disk are recorded.
        shape: of the whole file.
        dtype: of the file.
        record_every: rows after which they are forced to disk and recorded.
    """
    path = unfinished.folder / "descriptors.npy"
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    done = unfinished.done
    with path.open("r+b" if done else "wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        file.seek(file.tell() + done * shape[1] * np.dtype(dtype).itemsize)
        file.truncate()
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).data)
            done += len(block)
            if done - unfinished.done >= record_every or done == shape[0]:
                file.flush()
                os.fsync(file.fileno())
                unfinished.record(done)


def finish(
    folder: Path, rows: pd.DataFrame, *, target_recall: float, tune_tree: bool
) -> dict[str, Any]:
    """Adds manifest and searcher to a folder that holds descriptors.npy.

    Args:
        folder: the folder.
        rows: manifest of the N descriptors.
        target_recall: if above 0, the searcher is tuned, see `tuning.tune`.
        tune_tree: choose among several trees.

    Returns:
        What `Segment` needs to open it, as JSON holds it.
    """
    descriptors = np.load(folder / "descriptors.npy", mmap_mode="r")
    manifest.write(rows.reset_index(drop=True), folder / "manifest.parquet")
    parameters, tuned = None, None
    if scann := scann_searcher.scann_module():
        logging.info("Building the ScaNN searcher.")
        parameters = scann_searcher.rules(
            count=len(descriptors), dimension=descriptors.shape[1]
        )
        build = functools.partial(
            scann_searcher.Searcher.build, scann, descriptors
        )

        def keep(searcher: scann_searcher.Searcher) -> None:
            nonlocal parameters
            parameters = searcher.parameters
            shutil.rmtree(folder / "scann", ignore_errors=True)
            searcher.write(folder / "scann")

        if target_recall and parameters["searcher"] == "tree":
            tuned = scann_tuning.tune(
                build,
                parameters,
                descriptors,
                target_recall=target_recall,
                tune_tree=tune_tree,
                keep=keep,
            )
        else:
            keep(build(parameters))
    return {
        "count": len(rows),
        "scann": parameters,
        "tuned": tuned,
        "bytes": _sizes(folder),
    }


def check_sizes(
    folder: Path, described: dict[str, Any], *, scann: bool = True
) -> None:
    """Refuses a segment whose files were cut off or are lost.

    Args:
        folder: the folder.
        described: what `finish` returned.
        scann: look at ScaNN's files, too.

    Raises:
        OSError, ValueError: names the file.
    """
    for name, size in described["bytes"].items():
        if scann or not name.startswith("scann/"):
            found = (folder / name).stat().st_size
            if found != size:
                raise ValueError(f"{name} has {found} bytes, not {size}")


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file of a segment, by its name in the folder."""
    paths = [folder / "descriptors.npy", folder / "manifest.parquet"]
    if (folder / "scann").is_dir():
        paths += sorted((folder / "scann").iterdir())
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in paths
    }


class Segment:
    """An opened segment.

    Attributes:
        descriptors: [N, D], a read-only memory map.
        manifest: DataFrame; row i describes row i of the descriptors.
        searcher: an `approximate.Searcher`, or None: search is exact.
        live: int64, the rows that were not removed.

    Args:
        folder: the folder.
        described: what `finish` returned.
        removed: rows that were removed.
        exact: search exactly, without ScaNN.

    Raises:
        KeyError, OSError, RuntimeError, ValueError: it is damaged.
    """

    def __init__(
        self,
        folder: Path,
        described: dict[str, Any],
        *,
        removed: np.ndarray,
        exact: bool,
    ):
        check_sizes(folder, described, scann=not exact)
        self.descriptors = np.load(folder / "descriptors.npy", mmap_mode="r")
        self.manifest = manifest.read(folder / "manifest.parquet")
        counts = {len(self.descriptors), len(self.manifest)}
        if counts != {described["count"]}:
            raise ValueError(
                f"descriptors and manifest have {sorted(counts)} rows, not "
                f"{described['count']}"
            )
        self._allowed = np.ones(len(self.descriptors), bool)
        self._allowed[removed] = False
        self.live = np.flatnonzero(self._allowed)
        self.searcher = None
        if exact:
            return
        if not described["scann"]:
            logging.warning("The index was built without ScaNN: exact search.")
        elif scann := scann_searcher.scann_module():
            self.searcher = scann_searcher.Searcher.load(
                scann, folder / "scann", described["scann"]
            )

    def search(
        self, queries: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the k nearest rows that were not removed.

        Where approximate search comes upon fewer than k, exact search answers
        the query.

        Args:
            queries: float32 [Q, D], of unit length.
            k: at most the number of live rows.

        Returns:
            int64 [Q, k] places in `live`, nearest first, and float32 [Q, k]
            squared distances.
        """
        rows = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.float32)
        left, asked = np.arange(len(queries)), k
        while self.searcher and len(left) and asked <= len(self.descriptors):
            found, far = self.searcher.search(queries[left], asked)
            padded = found < 0
            kept = ~padded & self._allowed[found]
            full = kept.sum(axis=1) >= k
            # What is kept first, in its order.
            order = np.argsort(~kept[full], axis=1, kind="stable")[:, :k]
            rows[left[full]] = np.take_along_axis(found[full], order, axis=1)
            distances[left[full]] = np.take_along_axis(far[full], order, axis=1)
            left = left[~full]
            if padded.any():
                break
            asked *= _ASK_MORE
        if len(left):
            rows[left], distances[left] = exact_search.nearest(
                queries[left], self.descriptors, k, allowed=self._allowed
            )
        if len(self.live) < len(self.descriptors):
            rows = np.searchsorted(self.live, rows)
        return rows, distances


class Rows:
    """Rows of several arrays as one array [N, D], read when asked for.

    Args:
        arrays: [n, D] each.
        chosen: of each, the rows that count.
    """

    def __init__(
        self, arrays: Sequence[np.ndarray], chosen: Sequence[np.ndarray]
    ):
        self._arrays = arrays
        self._part = np.repeat(
            np.arange(len(arrays)), [len(rows) for rows in chosen]
        )
        self._row = np.concatenate(chosen)
        self.shape = (len(self._row), arrays[0].shape[1])
        self.dtype = np.result_type(*arrays)

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, key: int | slice | np.ndarray) -> np.ndarray:
        part, row = self._part[key], self._row[key]
        rows = np.empty((*row.shape, self.shape[1]), self.dtype)
        for number in np.unique(part):
            where = part == number
            rows[where] = self._arrays[number][row[where]]
        return rows

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if copy is False:
            raise ValueError(
                "Expected copy=None or True: rows are gathered from several "
                "arrays. Received: copy=False."
            )
        return np.asarray(self[:], dtype)
