"""Descriptors of any source -> the folder of an index; see `Index.build`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sare_tf.dataset import manifest
from sare_tf.runtime import atomic_files, run_lock
from sare_tf.search import descriptor_arrays, index_files, index_size, segments
from sare_tf.search.descriptor_arrays import check_unit
from sare_tf.search.options import DTYPES, TuningOptions

# Rows that are checked and written at a time.
_BLOCK_ROWS = 4096
# In index.json, instead of what an index of the stage was made from.
MADE_FROM = {
    "built_from": "vectors",
    "export_fingerprint": None,
    "records_fingerprint": None,
    "split": None,
    "shard": None,
}


def write(
    descriptors: np.ndarray, rows: pd.DataFrame, out: str | Path, *, dtype: str
) -> None:
    """Writes an index of descriptors [N, D] and a manifest of N rows.

    Raises:
        ValueError: descriptors of another shape or that are not unit vectors,
            an unknown dtype, or a folder that holds something else.
    """
    if np.ndim(descriptors) != 2 or len(descriptors) != len(rows):
        raise ValueError(
            "Expected descriptors [N, D], a row for each of the "
            f"{len(rows)} image_ids. Received: descriptors.shape="
            f"{np.shape(descriptors)}."
        )
    if dtype not in DTYPES:
        raise ValueError(
            f"Expected dtype to be {', '.join(DTYPES)}. Received: "
            f"dtype={dtype!r}."
        )
    atomic_files.check_replaceable(out, names=index_files.NAMES)
    tuning = TuningOptions()
    index_size.check(Path(out), *descriptors.shape, dtype=dtype, tuning=tuning)
    with (
        run_lock.only_run(out),
        atomic_files.folder_in_one_piece(out) as folder,
    ):
        stored = np.lib.format.open_memmap(
            folder / "descriptors.npy",
            mode="w+",
            dtype=descriptor_arrays.dtype_embedded(dtype),
            shape=descriptors.shape,
        )
        for start, block in _blocks(descriptors):
            names = rows["image_id"][start : start + len(block)].tolist()
            check_unit(block, names)
            stored[start : start + len(block)] = block
        stored.flush()
        index_files.write_new(
            folder,
            segments.finish(folder, rows, tuning, dtype=dtype),
            made_from={**MADE_FROM, "dtype": dtype},
            dimension=descriptors.shape[1],
            tuning=tuning,
        )
        descriptor_arrays.remove_coded(folder)


def rows_of(
    image_ids: Sequence[str],
    *,
    positions: np.ndarray | None,
    utm_zone: str,
    place_ids: Sequence[str] | None,
) -> pd.DataFrame:
    """Makes the manifest of an index, see `Index.build`.

    Raises:
        ValueError: no image, an image twice, or values that are not one for
            each image.
    """
    image_ids = [str(image_id) for image_id in image_ids]
    if not image_ids or len(set(image_ids)) != len(image_ids):
        raise ValueError(
            "Expected at least one image, and every image_id once. Received: "
            f"{len(image_ids)} image_ids, {len(set(image_ids))} of them "
            "different."
        )
    if positions is not None and np.shape(positions) != (len(image_ids), 2):
        raise ValueError(
            f"Expected positions [{len(image_ids)}, 2], metres east and north "
            f"of every image. Received: positions.shape={np.shape(positions)}."
        )
    if place_ids is not None:
        if len(place_ids) != len(image_ids):
            raise ValueError(
                f"Expected {len(image_ids)} place_ids, one for every image. "
                f"Received: len(place_ids)={len(place_ids)}."
            )
        place_ids = [str(place_id) for place_id in place_ids]
    return manifest.make(
        image_id=image_ids,
        place_id=place_ids,
        positions=positions,
        utm_zone=utm_zone,
    )


def _blocks(descriptors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the first row of each block, and the block, float32 [n, D]."""
    for start in range(0, len(descriptors), _BLOCK_ROWS):
        block = descriptors[start : start + _BLOCK_ROWS]
        yield start, np.asarray(block, np.float32)
