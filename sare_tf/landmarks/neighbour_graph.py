"""The nearest images of each image of an index, beside it on disk.

    neighbours.json               what they belong to, and digests of the arrays
    neighbours_rows.npy           int32 [N, k], nearest first, without itself
    neighbours_similarities.npy   float32 [N, k], cosines

They are bound to the content of the index: after a change of it they are not
used, and `index --neighbour_graph` finds them again.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from sare_tf.landmarks import expansion
from sare_tf.runtime import atomic_files, file_digests, progress, sealed_json
from sare_tf.search import bound_file
from sare_tf.search.landmark_options import (
    GRAPH,
    GRAPH_ROWS,
    GRAPH_SIMILARITIES,
)
from sare_tf.search.opened_index import Index

COMMAND = "python -m sare_tf.index --flagfile=... --neighbour_graph=50"
_BLOCK = 2048
_TYPES = {"index_digest": str, "neighbours": int, "digests": dict}


@dataclasses.dataclass(frozen=True)
class Graph:
    """The nearest images of each image.

    Attributes:
        rows: int [N, k], nearest first.
        similarities: float32 [N, k], cosines.
    """

    rows: np.ndarray
    similarities: np.ndarray

    def first(self, count: int) -> "Graph":
        """Returns the graph of fewer neighbours.

        Args:
            count: neighbours of each image.
        """
        return Graph(self.rows[:, :count], self.similarities[:, :count])


def build(vectors: np.ndarray, count: int) -> Graph:
    """Finds the nearest images of each image, by exact search.

    Args:
        vectors: [N, D], unit vectors; may be a memory map.
        count: k.

    Raises:
        ValueError: there are no more than k images.
    """
    expansion.check_count("neighbours", count, len(vectors) - 1)
    rows = np.empty((len(vectors), count), np.int32)
    similarities = np.empty((len(vectors), count), np.float32)
    with progress.bar("neighbours", total=len(vectors), unit="image") as bar:
        for start in range(0, len(vectors), _BLOCK):
            own = np.arange(start, min(start + _BLOCK, len(vectors)))
            rows[own], squared = expansion.others_of(
                np.asarray(vectors[own], np.float32), vectors, own, count
            )
            similarities[own] = 1 - squared / 2
            bar.update(len(own))
    return Graph(rows, similarities)


def store(index: Index, count: int) -> Path:
    """Writes the graph of an index beside it, unless it is there.

    Args:
        index: the opened index.
        count: neighbours of each image.

    Returns:
        The file that names it.

    Raises:
        ValueError: the index has no more than k images.
    """
    folder = index.folders[0]
    path = folder / GRAPH
    found, _ = _read(index)
    if found is not None and found.rows.shape[1] == count:
        logging.info("The neighbours in %s are up to date.", path)
        return path
    began = time.perf_counter()
    graph = build(index.descriptors, count)
    # First what names them, so that a kill leaves no others beside it.
    path.unlink(missing_ok=True)
    arrays = {GRAPH_ROWS: graph.rows, GRAPH_SIMILARITIES: graph.similarities}
    for name, array in arrays.items():
        with atomic_files.file_in_one_piece(folder / name) as unfinished:
            with open(unfinished, "wb") as file:
                np.save(file, array)
    sealed_json.write(
        path,
        {
            "index_digest": index.digest,
            "neighbours": count,
            "digests": file_digests.of(folder, list(arrays)),
        },
    )
    logging.info(
        "The %d nearest images of each of %d, in %.1f s: %s.",
        count,
        len(graph.rows),
        time.perf_counter() - began,
        path,
    )
    return path


def of_index(index: Index, count: int) -> Graph:
    """Returns the graph of an index: the stored one, or a new one.

    Args:
        index: the opened index.
        count: neighbours of each image.

    Raises:
        ValueError: the index has no more than k images.
    """
    found, why_not = _read(index)
    if found is not None and found.rows.shape[1] >= count:
        return found.first(count)
    if found is not None:
        why_not = f"it has {found.rows.shape[1]} neighbours of each image"
    logging.warning(
        "Finding %d neighbours of each of %d images, because %s. %s stores "
        "them.",
        count,
        len(index.manifest),
        "no graph is stored" if why_not == bound_file.ABSENT else why_not,
        COMMAND,
    )
    return build(index.descriptors, count)


def _read(index: Index) -> tuple[Graph | None, str]:
    def make(written: dict[str, Any]) -> Graph:
        return _opened(index.folders, written)

    return bound_file.read(
        index.folders,
        GRAPH,
        made_by=COMMAND,
        types=_TYPES,
        bound_to={"index_digest": index.digest},
        words={"index_digest": "content of the index"},
        make=make,
    )


def _opened(folders: Sequence[Path], written: dict[str, Any]) -> Graph:
    """Opens the arrays beside the file.

    Raises:
        OSError, ValueError: they are damaged.
    """
    folder = next(one for one in folders if (one / GRAPH).is_file())
    file_digests.check(folder, written["digests"])
    rows, similarities = (
        np.load(folder / name, mmap_mode="r")
        for name in (GRAPH_ROWS, GRAPH_SIMILARITIES)
    )
    if rows.shape != similarities.shape or rows.ndim != 2:
        raise ValueError(f"arrays of {rows.shape} and {similarities.shape}")
    return Graph(rows, similarities)
