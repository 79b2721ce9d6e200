"""Database augmentation of the descriptors of an index that is being built."""

import os
import time
from pathlib import Path

import numpy as np
from absl import logging

from sare_tf.landmarks import expansion
from sare_tf.runtime import progress
from sare_tf.search import descriptor_arrays
from sare_tf.search.landmark_options import StoredNeighbourOptions


def augment(folder: Path, options: StoredNeighbourOptions) -> None:
    """Adds the nearest images to the descriptors in a folder.

    Until all are written, the folder holds those that were embedded. A run that
    is killed after that embeds again.

    Args:
        folder: with descriptors.npy [N, D].
        options: how many images to add to each; 0: nothing is done.

    Raises:
        ValueError: there are no more than so many images.
    """
    count = options.augment_database
    if not count:
        return
    began = time.perf_counter()
    unfinished = folder / "augmented.npy"
    vectors = descriptor_arrays.read_floats(folder)
    written = np.lib.format.open_memmap(
        unfinished, mode="w+", dtype=vectors.dtype, shape=vectors.shape
    )
    start = 0
    with progress.bar("augment", total=len(vectors), unit="image") as bar:
        for block in expansion.augment_database(
            vectors, count=count, alpha=options.expand_alpha
        ):
            written[start : start + len(block)] = block
            start += len(block)
            bar.update(len(block))
    written.flush()
    os.replace(unfinished, folder / descriptor_arrays.FLOATS)
    logging.info(
        "Added the %d nearest images to each of %d, in %.1f s.",
        count,
        start,
        time.perf_counter() - began,
    )
