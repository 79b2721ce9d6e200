"""Arrays of descriptors: checked, written as a stream, gathered from several.

Descriptors are float [N, D], rows of unit length. In the folder of a segment
they are descriptors.npy, or else codes.npy, uint8 or int8 [N, C], with
codec.npz; see `search.codes`.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from absl import logging

from sare_tf.runtime import atomic_files
from sare_tf.search import codes
from sare_tf.search.options import CODES, DTYPES

FLOATS, CODED, CODEC = "descriptors.npy", "codes.npy", "codec.npz"
_UNIT_TOLERANCE = 1e-4  # ours: a float32 norm is off by less
_BUFFER_BYTES = 1 << 20
# Rows that become codes at a time. Ours.
_CODED_ROWS = 4096


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
    """Writes descriptors.npy or codes.npy from a stream, in bounded memory.

    A run that resumes after a kill, see `start_or_resume`, cuts the file back
    to the rows that are recorded as done.

    Args:
        blocks: [b, D] each, the rows from `unfinished.done` on.
        unfinished: the folder of the file; it records the rows that are safe
            on the disk.
        shape: (N, D), or (N, C) of codes, of the whole file.
        dtype: of the file; that of codes is uint8 or int8.
        record_every: rows after which they are forced to disk and recorded.
    """
    done = unfinished.done
    path = _path(unfinished, dtype)
    with path.open("r+b" if done else "wb") as file:
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
    path = _path(unfinished, dtype)
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


def _path(unfinished: atomic_files.Unfinished, dtype: str) -> Path:
    is_float = np.issubdtype(np.dtype(dtype), np.floating)
    return unfinished.folder / (FLOATS if is_float else CODED)


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


def dtype_embedded(dtype: str) -> str:
    """Returns the type in which descriptors are embedded to become `dtype`."""
    return "float16" if dtype in CODES else dtype


def read(folder: Path) -> np.ndarray | codes.DecodedRows:
    """Opens the descriptors [N, D] of a segment, as a read-only memory map.

    Codes are decoded when they are indexed.

    Raises:
        OSError, ValueError: they cannot be read, or are something else.
    """
    if not (folder / CODED).exists():
        return read_floats(folder)
    codec = codes.read(folder / CODEC)
    rows = _map(folder / CODED)
    if rows.dtype != codec.dtype or rows.shape[1:] != (codec.length,):
        raise ValueError(
            f"{CODED} holds {rows.dtype} {rows.shape}, not {codec.dtype} "
            f"[N, {codec.length}]"
        )
    return codes.DecodedRows(rows, codec)


def read_floats(folder: Path) -> np.ndarray:
    """Opens descriptors.npy as a read-only memory map [N, D].

    Raises:
        OSError, ValueError: as `read`.
    """
    descriptors = _map(folder / FLOATS)
    floats = [dtype for dtype in DTYPES if dtype not in CODES]
    if descriptors.ndim != 2 or descriptors.dtype.name not in floats:
        raise ValueError(
            f"{FLOATS} holds {descriptors.dtype} {descriptors.shape}, not "
            f"{' or '.join(floats)} [N, D]"
        )
    return descriptors


def _map(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except OSError:
        raise
    except Exception as error:  # A damaged header raises errors of any kind.
        raise ValueError(f"{path.name} cannot be read: {error}") from error


def write_codes(folder: Path, dtype: str) -> None:
    """Writes codes.npy of the descriptors.npy in a folder, which is kept.

    A codec.npz that is there, of images that were added to others, is used.

    Args:
        folder: the folder.
        dtype: "int8", "product" or "binary".

    Raises:
        ValueError: too few rows, see `codes.fit`.
    """
    descriptors = read_floats(folder)
    if not (folder / CODEC).exists():
        with atomic_files.file_in_one_piece(folder / CODEC) as temporary:
            codes.write(codes.fit(dtype, descriptors), temporary)
    codec = codes.read(folder / CODEC)
    with atomic_files.file_in_one_piece(folder / CODED) as temporary:
        written = np.lib.format.open_memmap(
            temporary,
            mode="w+",
            dtype=codec.dtype,
            shape=(len(descriptors), codec.length),
            version=(2, 0),  # as of `write`
        )
        for start in range(0, len(descriptors), _CODED_ROWS):
            rows = slice(start, start + _CODED_ROWS)
            written[rows] = codec.encode(descriptors[rows])
        written.flush()


def remove_coded(folder: Path) -> None:
    """Removes descriptors.npy where codes stand for it."""
    if (folder / CODED).exists():
        (folder / FLOATS).unlink(missing_ok=True)


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
        self.dtype = np.result_type(*(array.dtype for array in arrays))

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
