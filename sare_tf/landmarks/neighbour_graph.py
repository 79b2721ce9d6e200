"""The nearest images of each image of an index, beside it on disk.

    neighbours.json               what they belong to, and digests of the arrays
    neighbours_rows.npy           int32 [N, k], nearest first, without itself
    neighbours_similarities.npy   float32 [N, k], cosines

They are bound to the content of the index: after a change of it they are not
used, and `index --neighbour_graph` finds them again.
"""

import dataclasses
import time
from pathlib import Path

import numpy as np
from absl import logging

from sare_tf.landmarks import expansion, stored_arrays
from sare_tf.runtime import progress
from sare_tf.search import bound_file
from sare_tf.search.landmark_options import (
    GRAPH,
    GRAPH_ROWS,
    GRAPH_SIMILARITIES,
)
from sare_tf.search.opened_index import Index

COMMAND = "python -m sare_tf.index --flagfile=... --neighbour_graph=50"
_BLOCK = 2048


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
    shape = graph.rows.shape
    with stored_arrays.written(
        path,
        {
            GRAPH_ROWS: (np.int32, shape),
            GRAPH_SIMILARITIES: (np.float32, shape),
        },
        {"index_digest": index.digest, "neighbours": count},
    ) as (rows, similarities):
        rows[:], similarities[:] = graph.rows, graph.similarities
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
    found, why_not = stored_arrays.read(
        index.folders,
        GRAPH,
        (GRAPH_ROWS, GRAPH_SIMILARITIES),
        made_by=COMMAND,
        bound_to={"index_digest": index.digest},
        words={"index_digest": "content of the index"},
    )
    return found and Graph(*found), why_not
