"""Arrays of descriptors: checked, written as a stream, gathered from several.

Descriptors are float [N, D], rows of unit length.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from absl import logging

from sare_tf.runtime import atomic_files
from sare_tf.search.options import DTYPES

_UNIT_TOLERANCE = 1e-4  # ours: a float32 norm is off by less
_BUFFER_BYTES = 1 << 20


def check_unit(descriptors: np.ndarray, names: Sequence[str]) -> None:
    """Refuses descriptors [B, D] that are not finite unit vectors.

    Args:
        descriptors: float [B, D].
        names: B names of the rows, for the message.

    Raises:
        ValueError: names the first bad row.
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


def write(
    blocks: Iterable[np.ndarray],
    unfinished: atomic_files.Unfinished,
    *,
    shape: tuple[int, int],
    dtype: str,
    record_every: int = 4096,
) -> None:
    """Writes descriptors.npy from a stream, in bounded memory.

    A run that resumes after a kill, see `start_or_resume`, cuts the file back
    to the rows that are recorded as done.

    Args:
        blocks: float [b, D] each, the rows from `unfinished.done` on.
        unfinished: the folder of the file; it records the rows that are safe
            on the disk.
        shape: (N, D), of the whole file.
        dtype: of the file.
        record_every: rows after which they are forced to disk and recorded.
    """
    done = unfinished.done
    with _path(unfinished).open("r+b" if done else "wb") as file:
        digest = _digest_of_rows(file, done, shape=shape, dtype=dtype)
        file.truncate()
        for block in blocks:
            rows = np.ascontiguousarray(block, dtype).data
            file.write(rows)
            digest.update(rows)
            done += len(block)
            if done - unfinished.done >= record_every or done == shape[0]:
                file.flush()
                os.fsync(file.fileno())
                unfinished.record(done, sha256=digest.hexdigest())


def start_or_resume(
    unfinished: atomic_files.Unfinished, *, shape: tuple[int, int], dtype: str
) -> None:
    """Starts over if the rows that are recorded as done were damaged.

    Args:
        unfinished: as of `write`.
        shape: as of `write`.
        dtype: as of `write`.
    """
    # An earlier version recorded no digest.
    if not (unfinished.done and unfinished.sha256):
        return
    path = _path(unfinished)
    try:
        with path.open("r+b") as file:
            digest = _digest_of_rows(
                file, unfinished.done, shape=shape, dtype=dtype
            )
        is_whole = digest.hexdigest() == unfinished.sha256
    except OSError:
        is_whole = False
    if not is_whole:
        logging.warning(
            "%s was damaged since it was written, and is built again from the "
            "first image.",
            path,
        )
        unfinished.start_over()


def _path(unfinished: atomic_files.Unfinished) -> Path:
    return unfinished.folder / "descriptors.npy"


def _digest_of_rows(
    file: BinaryIO, count: int, *, shape: tuple[int, int], dtype: str
) -> Any:
    """Writes the header; reads the first rows and returns their digest."""
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_2_0(file, header)
    digest = hashlib.sha256()
    left = count * shape[1] * np.dtype(dtype).itemsize
    while left and (read := file.read(min(left, _BUFFER_BYTES))):
        digest.update(read)
        left -= len(read)
    # Where writing goes on, also in a file that is too short.
    file.seek(left, os.SEEK_CUR)
    return digest


def read(path: Path) -> np.ndarray:
    """Opens descriptors.npy as a read-only memory map [N, D].

    Raises:
        OSError, ValueError: it cannot be read, or holds something else.
    """
    try:
        descriptors = np.load(path, mmap_mode="r")
    except OSError:
        raise
    except Exception as error:  # A damaged header raises errors of any kind.
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    if descriptors.ndim != 2 or descriptors.dtype.name not in DTYPES:
        raise ValueError(
            f"{path.name} holds {descriptors.dtype} {descriptors.shape}, not "
            f"{' or '.join(DTYPES)} [N, D]"
        )
    return descriptors


class GatheredRows:
    """Rows of several arrays as one array [N, D], read when they are indexed.

    Args:
        arrays: [n, D] each, which may be memory maps.
        kept: for each array, the int [m] rows of it that are in the whole.
    """

    def __init__(
        self, arrays: Sequence[np.ndarray], kept: Sequence[np.ndarray]
    ):
        self._arrays = arrays
        self._array_of_row = np.repeat(
            np.arange(len(arrays)), [len(rows) for rows in kept]
        )
        self._row_in_array = np.concatenate(kept)
        self.shape = (len(self._row_in_array), arrays[0].shape[1])
        self.dtype = np.result_type(*arrays)

    def __len__(self) -> int:
        return len(self._row_in_array)

    def __getitem__(self, key: int | slice | np.ndarray) -> np.ndarray:
        array, row = self._array_of_row[key], self._row_in_array[key]
        rows = np.empty((*row.shape, self.shape[1]), self.dtype)
        for number in np.unique(array):
            mask = array == number
            rows[mask] = self._arrays[number][row[mask]]
        return rows

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if copy is False:
            raise ValueError(
                "Expected copy=None or True: rows are gathered from several "
                "arrays. Received: copy=False."
            )
        return np.asarray(self[:], dtype)
