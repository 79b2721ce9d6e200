"""MATLAB files before 7.3, read by SciPy once their structure is checked.

SciPy trusts the sizes and types in such a file: a damaged one may end the
process. Here they are followed first. Each element must lie within the one that
it is part of, be of a known type, and have as many values as its dimensions
say. Elements are as in "MAT-File Format", MathWorks, chapter 1.
"""

import math
import mmap
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

_HEADER_BYTES = 128
_VERSION_7_3 = 2
# Types of elements, and the bytes of a value.
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED, _UTF8 = 1, 5, 6, 14, 15, 16
_NUMBER_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
_LETTER_BYTES = {1: 1, 2: 1, 4: 2, 16: 1, 17: 2, 18: 4}
_TEXT = (_INT8, _UTF8)
# Classes of matrices.
_CELL, _STRUCT, _OBJECT, _CHAR, _FUNCTION, _OPAQUE = 1, 2, 3, 4, 16, 17
_NUMBERS = range(6, 16)
_COMPLEX = 0x800
# MATLAB's own limit of a variable in such a file.
_MOST_BYTES = 1 << 31
# Structs without fields and empty arrays take no room in the file: ours.
_MOST_EMPTY = 1 << 20
_MOST_DIMENSIONS, _MOST_DEPTH = 32, 100


def load(
    path: str | Path, *, names: Collection[str] | None = None, **settings: Any
) -> dict[str, Any]:
    """Loads variables as `scipy.io.loadmat` does.

    Args:
        path: the file.
        names: of the variables; None: all.
        **settings: of `loadmat`.

    Raises:
        NotImplementedError: a file of MATLAB 7.3, which is HDF5.
        OSError: the file cannot be read.
        ValueError: the file is damaged.
    """
    # Slow to import, and only needed here.
    from scipy.io import loadmat

    _check(Path(path), names)
    try:
        return loadmat(path, variable_names=names and [*names], **settings)
    except (NotImplementedError, OSError):
        raise
    except Exception as error:  # A damaged file raises anything.
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _check(path: Path, names: Collection[str] | None) -> None:
    """Refuses a file whose elements do not fit into each other."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        # Version 4 has no header; Python reads it.
        if len(header) < _HEADER_BYTES or 0 in header[:4]:
            return
        order = "<" if header[126:] == b"IM" else ">"
        if header[125 if header[126:127] == b"I" else 124] == _VERSION_7_3:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            position = _HEADER_BYTES
            while position < len(content):
                position = _check_variable(content, position, order, names)


def _check_variable(
    content: mmap.mmap,
    position: int,
    order: str,
    names: Collection[str] | None,
) -> int:
    """Checks a variable, and returns the position after it."""
    kind, start, stop = _Elements(content, order, len(content)).plain(position)
    if kind == _COMPRESSED:
        unpacking = zlib.decompressobj()
        try:
            content = unpacking.decompress(content[start:stop], _MOST_BYTES)
        except zlib.error as error:
            raise ValueError(f"a damaged variable ({error})") from error
        if not unpacking.eof:
            raise ValueError("a variable that is cut off, or too large")
        kind, start, end = _Elements(content, order, len(content)).plain(0)
    else:
        end = stop
    if kind != _MATRIX:
        raise ValueError(f"an element of type {kind} instead of a variable")
    elements = _Elements(content, order, end)
    elements.position = start
    elements.check_matrix(names, depth=0)
    return stop


class _Elements:
    """Elements one after the other, and where the next one is.

    Args:
        content: bytes.
        order: "<" or ">", the order of bytes.
        end: where the elements end.
    """

    def __init__(self, content: bytes | mmap.mmap, order: str, end: int):
        self.position = 0
        self._content = content
        self._order = order
        self._end = end
        self._tag = struct.Struct(f"{order}II").unpack_from

    def plain(self, position: int) -> tuple[int, int, int]:
        """Returns type, begin and end of an element in the long form."""
        if position + 8 > self._end:
            raise ValueError(f"an element that is cut off at byte {position}")
        kind, size = self._tag(self._content, position)
        start, stop = position + 8, position + 8 + size
        if not size or stop > self._end:
            raise ValueError(
                f"an element of {size} bytes at byte {position}, which do not "
                "fit"
            )
        return kind, start, stop

    def next(self, *types: int) -> tuple[int, int, int]:
        """Returns type, begin and size of the next element, and passes it."""
        position, end = self.position, self._end
        if position + 8 > end:
            raise ValueError(f"an element that is cut off at byte {position}")
        kind, size = self._tag(self._content, position)
        if kind >> 16:
            # The short form: up to four bytes in the place of the size.
            kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
            if size > 4:
                raise ValueError(f"a damaged element at byte {position}")
            self.position = position + 8
        else:
            start = position + 8
            self.position = start + size + -size % 8
        if self.position > end or kind not in types:
            raise ValueError(
                f"an element of type {kind} and {size} bytes at byte "
                f"{position}, which is not expected there"
            )
        return kind, start, size

    def check_matrix(
        self, names: Collection[str] | None = None, *, depth: int
    ) -> None:
        """Checks a matrix whose tag has been read; it takes all the rest.

        Args:
            names: of the variables that are read; None: all.
            depth: matrices that it is within.
        """
        if depth > _MOST_DEPTH:
            raise ValueError(f"values within {depth} others")
        flags, _ = self._integers(_UINT32, "I", most=2, least=2)
        kind = flags & 0xFF
        if kind == _OPAQUE:
            for _ in range(3):
                self.next(*_TEXT)
            self._check_matrices(1, depth)
            return
        dimensions = self._integers(_INT32, "i", most=_MOST_DIMENSIONS, least=1)
        _, start, size = self.next(*_TEXT)
        if names is not None:
            name = bytes(self._content[start : start + size])
            if name.decode("latin1") not in names:
                return
        if min(dimensions) < 0:
            raise ValueError(f"dimensions {dimensions}")
        self._check_content(kind, flags, math.prod(dimensions), depth)

    def _check_content(
        self, kind: int, flags: int, count: int, depth: int
    ) -> None:
        if kind in _NUMBERS:
            for _ in range(2 if flags & _COMPLEX else 1):
                mi_type, _, size = self.next(*_NUMBER_BYTES)
                if size != count * _NUMBER_BYTES[mi_type]:
                    raise ValueError(f"{size} bytes for {count} numbers")
        elif kind == _CHAR:
            mi_type, _, size = self.next(*_LETTER_BYTES)
            if count > size or size % _LETTER_BYTES[mi_type]:
                raise ValueError(f"{size} bytes for {count} letters")
        elif kind == _CELL:
            self._check_matrices(count, depth)
        elif kind in (_STRUCT, _OBJECT):
            if kind == _OBJECT:
                self.next(*_TEXT)
            [length] = self._integers(_INT32, "i", most=1, least=1)
            _, _, size = self.next(*_TEXT)
            if length < 1 or size % length:
                raise ValueError(f"names of fields of {length} letters")
            if not size and count > _MOST_EMPTY:
                raise ValueError(f"{count} structs without fields")
            self._check_matrices(count * (size // length), depth)
        elif kind == _FUNCTION:
            self._check_matrices(1, depth)
        else:
            raise ValueError(f"a matrix of class {kind}, which is not read")

    def _check_matrices(self, count: int, depth: int) -> None:
        """Checks matrices, of which each is an element."""
        if count * 8 > self._end - self.position:
            raise ValueError(f"{count} values, which do not fit")
        inner = _Elements(self._content, self._order, 0)
        for _ in range(count):
            _, start, size = self.next(_MATRIX)
            if size:
                inner.position, inner._end = start, start + size
                inner.check_matrix(depth=depth + 1)
                if inner.position != start + size:
                    raise ValueError(f"a value at byte {start} of other size")

    def _integers(
        self, kind: int, letter: str, *, least: int, most: int
    ) -> tuple[int, ...]:
        _, start, size = self.next(kind)
        if size % 4 or not least <= size // 4 <= most:
            raise ValueError(f"{size} bytes of integers at byte {start}")
        return struct.unpack_from(
            f"{self._order}{size // 4}{letter}", self._content, start
        )
