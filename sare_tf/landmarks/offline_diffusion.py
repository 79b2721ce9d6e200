"""Diffusion that was done when the index was made, beside it on disk.

    diffusion.json         what it belongs to, and digests of the arrays
    diffusion_rows.npy     int32 [N, T], each image and the nearest ones
    diffusion_scores.npy   float32 [N, T], what diffusion from it gives them

The scores of `diffusion` are linear in y. So a query needs nothing but the
columns of the inverse for the images from which it starts:

    f = sum over the first images i of y_i c_i,    (I - alpha S) c_i = e_i

S is that of the whole graph, D^-1/2 A D^-1/2, cut down to the T nearest images
of i, and c_i is 0 elsewhere. (`diffusion` cuts A down to the images that are
ranked anew, and scales that.) The arrays are bound to the content of the index
and to the constants.

Source: Yang et al., Efficient Image Retrieval via Decoupling Diffusion into
Online and Offline Processing, AAAI 2019. Axis letters: N images, T images of a
column, M images that are ranked anew.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from sare_tf.landmarks import (
    diffusion,
    expansion,
    neighbour_graph,
    stored_arrays,
)
from sare_tf.landmarks.neighbour_graph import Graph
from sare_tf.runtime import progress
from sare_tf.search.landmark_options import (
    DIFFUSION,
    DIFFUSION_ROWS,
    DIFFUSION_SCORES,
    DiffusionOptions,
)
from sare_tf.search.opened_index import Index

COMMAND = "python -m sare_tf.index --flagfile=... --offline_diffusion=1000"
_WORDS = {
    "index_digest": "content of the index",
    "graph_neighbours": "number of --graph_neighbours",
    "diffusion_gamma": "--diffusion_gamma",
    "diffusion_alpha": "--diffusion_alpha",
}
# Ours: columns that are made at a time.
_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class Columns:
    """Columns of the inverse, one for each image.

    Attributes:
        rows: int [N, T], images, that of the column first.
        scores: float32 [N, T].
    """

    rows: np.ndarray
    scores: np.ndarray


class OfflineDiffusion:
    """Ranks the nearest images of a query by columns of the inverse.

    Args:
        columns: of the database.
        gamma: power of the cosine.
        start: images from which diffusion starts.

    Call arguments:
        rows: int64 [M], the nearest images, nearest first.
        similarities: [M], their cosines with the query.

    Output:
        float64 [M], small for images that come first.
    """

    def __init__(self, columns: Columns, *, gamma: float, start: int):
        self._columns, self._gamma, self._start = columns, gamma, start

    def __call__(
        self, rows: np.ndarray, similarities: np.ndarray
    ) -> np.ndarray:
        first = rows[: self._start]
        near = np.maximum(similarities[: self._start].astype(np.float64), 0)
        reached = self._columns.rows[first].reshape(-1)
        scores = near[:, None] ** self._gamma * self._columns.scores[first]
        order = np.argsort(rows)
        ascending = rows[order]
        places = np.searchsorted(ascending, reached).clip(max=len(rows) - 1)
        is_ranked = ascending[places] == reached
        return -np.bincount(
            order[places[is_ranked]],
            scores.reshape(-1)[is_ranked],
            minlength=len(rows),
        )


def fill(
    columns: Columns,
    vectors: np.ndarray,
    graph: Graph,
    *,
    gamma: float,
    alpha: float,
) -> None:
    """Computes the columns of all images.

    Args:
        columns: arrays [N, T] to fill.
        vectors: [N, D], unit vectors; may be a memory map.
        graph: of these.
        gamma: power of the cosine.
        alpha: share of a score that comes from neighbours.
    """
    count, size = columns.rows.shape
    matrix = diffusion.scaled(diffusion.affinity(graph, gamma))
    itself = np.zeros(size)
    itself[0] = 1
    with progress.bar("diffusion", total=count, unit="image") as bar:
        for start in range(0, count, _BLOCK):
            own = np.arange(start, min(start + _BLOCK, count))
            others, _ = expansion.others_of(
                np.asarray(vectors[own], np.float32), vectors, own, size - 1
            )
            for row, near in zip(own, others, strict=True):
                rows = np.concatenate([[row], near])
                columns.rows[row] = rows
                columns.scores[row] = diffusion.solved(
                    matrix[rows][:, rows], itself, alpha
                )
            bar.update(len(own))


def store(index: Index, size: int, options: DiffusionOptions) -> Path:
    """Writes the columns of an index beside it, unless they are there.

    Args:
        index: the opened index.
        size: T; at most all images.
        options: the constants.

    Returns:
        The file that names them.

    Raises:
        ValueError: the index has no more images than neighbours.
    """
    count = len(index.manifest)
    shape = (count, min(size, count))
    path = index.folders[0] / DIFFUSION
    found, _ = _read(index, options)
    if found is not None and found.rows.shape == shape:
        logging.info("The columns of diffusion in %s are up to date.", path)
        return path
    began = time.perf_counter()
    graph = neighbour_graph.of_index(index, options.graph_neighbours)
    with stored_arrays.written(
        path,
        {
            DIFFUSION_ROWS: (np.int32, shape),
            DIFFUSION_SCORES: (np.float32, shape),
        },
        _bound_to(index, options),
    ) as arrays:
        fill(
            Columns(*arrays),
            index.descriptors,
            graph,
            gamma=options.diffusion_gamma,
            alpha=options.diffusion_alpha,
        )
    logging.info(
        "Diffusion from each of %d images to %d, in %.1f s, %.1f MiB: %s.",
        *shape,
        time.perf_counter() - began,
        8 * shape[0] * shape[1] / 2**20,
        path,
    )
    return path


def of_index(index: Index, options: DiffusionOptions) -> Columns:
    """Returns the columns that are stored beside an index.

    Args:
        index: the opened index.
        options: the constants.

    Raises:
        ValueError: there are none, or others.
    """
    found, why_not = _read(index, options)
    if found is None:
        raise ValueError(
            "Expected columns of diffusion beside the index for "
            f"--rerank=offline_diffusion. Received: index={str(index.path)!r}, "
            f"which cannot be used because {why_not}. Make them by {COMMAND}, "
            "or take --rerank=diffusion."
        )
    return found


def _bound_to(index: Index, options: DiffusionOptions) -> dict[str, Any]:
    return {
        "index_digest": index.digest,
        "graph_neighbours": options.graph_neighbours,
        "diffusion_gamma": options.diffusion_gamma,
        "diffusion_alpha": options.diffusion_alpha,
    }


def _read(
    index: Index, options: DiffusionOptions
) -> tuple[Columns | None, str]:
    found, why_not = stored_arrays.read(
        index.folders,
        DIFFUSION,
        (DIFFUSION_ROWS, DIFFUSION_SCORES),
        made_by=COMMAND,
        bound_to=_bound_to(index, options),
        words=_WORDS,
    )
    return found and Columns(*found), why_not
