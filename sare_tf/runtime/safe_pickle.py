"""Pickles of datasets and weights, read without running code in them.

A pickle is a program: the usual loader imports and calls whatever the pickle
names. This one builds plain values, NumPy arrays, and objects that the caller
allows by name. Any other name is an error. NumPy's own loader of object arrays
(`allow_pickle`) has no such limit.
"""

import codecs
import pickle
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

_ARRAY = object()  # Stands for numpy.ndarray, which pickles never call.


def load(path: Path) -> Any:
    """Loads a pickle of plain values and NumPy arrays.

    Pickles of Python 2 are read, too; their byte strings become text.

    Raises:
        ValueError: the file is absent, is no pickle, or holds something else.
    """
    try:
        with path.open("rb") as file:
            return _load(file)
    except (OSError, ValueError) as error:
        raise _refused(path, error) from error


def load_stream(
    file: BinaryIO,
    *,
    allowed: Mapping[tuple[str, str], Any],
    persistent: Callable[[Any], Any] | None = None,
    unread: Collection[str] = (),
) -> Any:
    """Loads the pickle at the position of a stream, and stops after it.

    Args:
        file: the stream.
        allowed: (module, name) -> the object for that name, beside plain values
            and NumPy arrays.
        persistent: returns the object of a persistent id.
        unread: packages, modules and names whose objects become `Unread`
            instead of an error.

    Raises:
        ValueError: it is no pickle, or names something else.
    """
    return _load(file, allowed=allowed, persistent=persistent, unread=unread)


class Unread:
    """Stands for an object of a class that is not loaded, without its content.

    It takes whatever a pickle does with an object, and keeps nothing.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        del args, kwargs
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        del args, kwargs

    def __setstate__(self, state: Any) -> None:
        """Ignores the attributes."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Ignores an item of a dictionary."""

    def append(self, value: Any) -> None:
        """Ignores an item of a list."""

    def extend(self, values: Any) -> None:
        """Ignores items of a list."""

    def add(self, value: Any) -> None:
        """Ignores an item of a set."""


def load_npy(path: Path) -> np.ndarray:
    """Loads the array of a .npy file, which may hold lists and arrays.

    Raises:
        ValueError: the file is absent, is no .npy file, or holds something
            else.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = header(file)
            if not dtype.hasobject:
                return np.load(path, allow_pickle=False)
            array = _load(file)
        if not isinstance(array, np.ndarray) or array.shape != shape:
            raise ValueError("its array has not the shape of its header")
        return array
    except (OSError, ValueError) as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: Exception) -> ValueError:
    return ValueError(
        "Expected a file of plain values and NumPy arrays. Received: "
        f"path={str(path)!r} ({error}). Get the file again from where the "
        "dataset comes from."
    )


def _load(file: BinaryIO, **options: Any) -> Any:
    try:
        return _Unpickler(file, **options).load()
    except (ValueError, OSError):
        raise
    except Exception as error:  # A damaged pickle raises errors of any kind.
        raise ValueError(f"no pickle: {error!r}") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, *, allowed=None, persistent=None, unread=()):
        super().__init__(file, encoding="latin1")
        self._unread = frozenset(unread)
        self._allowed = _ALLOWED | dict(allowed or {})
        self._persistent = persistent

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            # Protocol 2 has the name of Python 2.
            current = module.replace("__builtin__", "builtins")
            words = f"{current}.{name}".split(".")
            names = {".".join(words[:end]) for end in range(1, len(words) + 1)}
            if names & self._unread:
                return Unread
            raise ValueError(f"it names {module}.{name}") from None

    def persistent_load(self, identity: Any) -> Any:
        if self._persistent is None:
            raise ValueError("it refers to objects outside of it")
        return self._persistent(identity)


def _empty(_: object, shape: tuple, __: object) -> np.ndarray:
    """Stands for numpy's _reconstruct: makes an array that is filled later."""
    if shape != (0,):
        raise ValueError("an array does not start empty")
    return np.ndarray.__new__(np.ndarray, shape, "b")


def _from_bytes(
    data: bytes, dtype: np.dtype, shape: tuple, order: str, *_: object
) -> np.ndarray:
    """Stands for numpy's _frombuffer, in pickles of protocol 5."""
    if order not in ("C", "F"):
        raise ValueError(f"an array is in order {order}")
    return np.frombuffer(data, dtype).reshape(shape, order=order).copy()


def _scalar(dtype: np.dtype, data: bytes) -> Any:
    if isinstance(data, str):  # Bytes of Python 2.
        data = data.encode("latin1")
    return np.frombuffer(data, dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Stands for codecs.encode: protocol 2 writes bytes as latin1."""
    if encoding != "latin1":
        raise ValueError(f"it encodes as {encoding}")
    return codecs.latin_1_encode(text)[0]


def _no_bytes() -> bytes:
    """Stands for bytes(): protocol 2 calls it for empty bytes."""
    return b""


_ALLOWED = {
    ("numpy", "ndarray"): _ARRAY,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "range"): range,
    ("__builtin__", "xrange"): range,
} | {
    (f"numpy.{core}.{module}", name): function
    for core in ("core", "_core")
    for module, name, function in (
        ("multiarray", "_reconstruct", _empty),
        ("multiarray", "scalar", _scalar),
        ("numeric", "_frombuffer", _from_bytes),
    )
}
