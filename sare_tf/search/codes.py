"""Codes of descriptors: a quarter to a 32nd of the bytes of float32.

    int8     a byte for each number, D bytes: the largest number of a row
             becomes 127 or -127
    product  a byte for 4 numbers, D / 4 bytes: the nearest of 256 points
    binary   a bit for each number, D / 8 bytes: the nearer of two values

The points of product codes are found by k-means, for each group of 4 numbers
by itself (Jégou, Douze, Schmid: Product Quantization for Nearest Neighbor
Search, PAMI 2011). The two values of a bit are the means of the numbers above
and below the mean, so that descriptors without negative numbers are served,
too. Both come from a sample of the rows.

A decoded row has unit length, as the descriptor had, so its length need not be
kept. Only rows become codes; queries are compared with decoded rows as they
are. Axis letters: N rows, D descriptor length, C bytes of a code, G groups, m
numbers of a group.
"""

import math
import warnings
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.cluster import vq

# Bits that are packed into a byte, and points of a group.
_POINTS = 256
# Rows that the points of a group are found from, 64 for each; rounds of
# k-means. Ours.
_SAMPLE = 64 * _POINTS
_ROUNDS = 8
# Numbers of each group by name.
_GROUPS = {"product": 4, "binary": 8}
# Numbers held at a time when codes are made: 64 MiB of float32.
_HELD_NUMBERS = 1 << 24


class Codec(Protocol):
    """Makes codes of rows, and rows of codes.

    Attributes:
        name: "int8", "product" or "binary".
        dimension: D.
        length: C, numbers of a code.
        dtype: of those numbers.
    """

    name: str
    dimension: int
    length: int
    dtype: np.dtype

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Returns codes [n, C] of rows [n, D]."""

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Returns float32 [n, D] rows of unit length of codes [n, C]."""

    def tables(self) -> dict[str, np.ndarray]:
        """Returns what was found from the sample, by name."""


def fit(name: str, descriptors: np.ndarray) -> Codec:
    """Finds what codes need from rows that are spread over all.

    Args:
        name: "int8", "product" or "binary".
        descriptors: [N, D]; may be a memory map.

    Raises:
        ValueError: too few rows for product codes.
    """
    count, dimension = descriptors.shape
    if name == "int8":
        return _Int8(dimension)
    if name == "product" and count < _POINTS:
        raise ValueError(
            f"Expected at least {_POINTS} images, from which the points of "
            f"product codes are found. Received: {count}. Build with "
            "--index_dtype=int8."
        )
    sample = min(count, _SAMPLE)
    rows = np.asarray(
        descriptors[np.arange(sample) * count // sample], np.float32
    )
    find = _points_of_bits if name == "binary" else _points_by_k_means
    groups = _grouped(rows, _GROUPS[name]).transpose(1, 0, 2)
    points = np.stack([find(group) for group in groups])
    return _Points(name, dimension, points)


def length_of(name: str, dimension: int) -> int:
    """Returns C, the bytes of a code of a row of D numbers."""
    if name == "int8":
        return dimension
    return math.ceil(dimension / _GROUPS[name])


def read(path: Path) -> Codec:
    """Reads what `write` wrote.

    Raises:
        OSError, ValueError: it cannot be read, or holds something else.
    """
    try:
        # Opened here, because numpy leaves damaged files open.
        with path.open("rb") as file, np.load(file) as arrays:
            name, dimension = str(arrays["name"]), int(arrays["dimension"])
            if name == "int8":
                return _Int8(dimension)
            points = arrays["points"]
            groups = length_of(name, dimension)
            if points.shape != (groups, _POINTS, _GROUPS[name]):
                raise ValueError(f"points {points.shape}")
            return _Points(name, dimension, np.asarray(points, np.float32))
    except OSError:
        raise
    except Exception as error:  # A damaged file raises errors of any kind.
        raise ValueError(f"{path.name} cannot be read: {error}") from error


def write(codec: Codec, path: Path) -> None:
    """Writes a codec as an npz file of arrays."""
    with path.open("wb") as file:
        np.savez(
            file, name=codec.name, dimension=codec.dimension, **codec.tables()
        )


class _Int8:
    name = "int8"
    dtype = np.dtype(np.int8)

    def __init__(self, dimension: int):
        self.dimension = self.length = dimension

    def encode(self, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows, np.float32)
        largest = np.abs(rows).max(axis=1, keepdims=True)
        return np.rint(rows * (127 / largest)).astype(np.int8)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return _unit(codes.astype(np.float32))

    def tables(self) -> dict[str, np.ndarray]:
        return {}


class _Points:
    """Codes that name, for each group of numbers, one of 256 points.

    Args:
        name: "product" or "binary".
        dimension: D.
        points: float32 [G, 256, m].
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, name: str, dimension: int, points: np.ndarray):
        self.name = name
        self.dimension = dimension
        self.length = len(points)
        self._points = points

    def encode(self, rows: np.ndarray) -> np.ndarray:
        codes = np.empty((len(rows), self.length), np.uint8)
        norms = np.einsum("gpm,gpm->gp", self._points, self._points)[:, None]
        turned = self._points.transpose(0, 2, 1)
        step = max(1, _HELD_NUMBERS // norms.size)
        for start in range(0, len(rows), step):
            block = np.asarray(rows[start : start + step], np.float32)
            groups = _grouped(block, self._points.shape[2]).transpose(1, 0, 2)
            far = norms - 2 * (groups @ turned)  # [G, n, 256]
            codes[start : start + step] = far.argmin(axis=2).T
        return codes

    def decode(self, codes: np.ndarray) -> np.ndarray:
        groups = self._points[np.arange(self.length), codes]  # [n, G, m]
        return _unit(groups.reshape(len(codes), -1)[:, : self.dimension])

    def tables(self) -> dict[str, np.ndarray]:
        return {"points": self._points}


def _grouped(rows: np.ndarray, numbers: int) -> np.ndarray:
    """Returns float32 [n, G, m] of [n, D], with zeros after the last number."""
    missing = -rows.shape[1] % numbers
    return np.pad(rows, ((0, 0), (0, missing))).reshape(len(rows), -1, numbers)


def _points_by_k_means(rows: np.ndarray) -> np.ndarray:
    """Returns points [256, m] of the rows [n, m] of a group."""
    with warnings.catch_warnings():
        # A point that is nearest to no row stays where it is.
        warnings.filterwarnings("ignore", message="One of the clusters")
        points, _ = vq.kmeans2(
            rows,
            rows[np.arange(_POINTS) * len(rows) // _POINTS],
            iter=_ROUNDS,
            minit="matrix",
            missing="warn",
        )
    return points


def _points_of_bits(rows: np.ndarray) -> np.ndarray:
    """Returns points [256, 8]: one of two values in each place."""
    mean = rows.mean(axis=0)
    is_above = rows > mean
    above = is_above.sum(axis=0)
    high = np.where(is_above, rows, 0).sum(axis=0) / np.maximum(above, 1)
    low = np.where(is_above, 0, rows).sum(axis=0) / (len(rows) - above)
    bits = np.unpackbits(np.arange(_POINTS, dtype=np.uint8)[:, None], axis=1)
    # Numbers that are all the same are one value.
    return np.where(bits & (above > 0), high, low).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Scales rows to unit length in place."""
    # Without arrays of squares, for which `np.linalg.norm` takes most time.
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    rows /= np.maximum(norms, np.float32(1e-12))
    return rows


class DecodedRows:
    """Codes as an array [N, D] of float32, decoded when they are indexed.

    Attributes:
        codes: [N, C], which may be a memory map.
        codec: what decodes them.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, codes: np.ndarray, codec: Codec):
        self.codes = codes
        self.codec = codec
        self.shape = (len(codes), codec.dimension)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, key: int | slice | np.ndarray) -> np.ndarray:
        codes = self.codes[key]
        rows = self.codec.decode(codes.reshape(-1, codes.shape[-1]))
        return rows.reshape(*codes.shape[:-1], self.codec.dimension)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if copy is False:
            raise ValueError(
                "Expected copy=None or True: rows are decoded. Received: "
                "copy=False."
            )
        return np.asarray(self[:], dtype)
