"""PyTorch's files of weights, read and written without PyTorch.

Such a file is a pickle, in which tensors refer to storages beside it. It is
read like every pickle here: without running what it names. There are two
containers: since PyTorch 1.6 a zip archive with `data.pkl` and one member per
storage; before, four pickles in a row with the storages behind them. Older
ones, tar archives of 2017, are refused.

Source: torch/serialization.py and torch/_utils.py of PyTorch 2.
"""

import collections
import dataclasses
import io
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from sare_tf.runtime import safe_pickle

# First objects of the older container: torch/serialization.py.
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
# Far above any network here: the largest, OpenIBL's with its PCA, has 0.6 GB.
_MOST_BYTES = 1 << 33
_MOST_PICKLE_BYTES = 1 << 26

_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


@dataclasses.dataclass
class _Storage:
    """Numbers that tensors look at; `read` gives their bytes."""

    dtype: np.dtype
    count: int
    read: Callable[[], bytes] | None = None


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that is not read yet.

    Attributes:
        shape: its sizes.
        dtype: of its numbers.
    """

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        return self.storage.dtype

    def numpy(self) -> np.ndarray:
        """Its numbers.

        Raises:
            ValueError: the storage is damaged or cut off.
        """
        try:
            data = self.storage.read()
        except zipfile.BadZipFile as error:
            raise ValueError(f"a damaged storage: {error}") from error
        size = self.dtype.itemsize
        if len(data) != self.storage.count * size:
            raise ValueError(
                f"a storage of {len(data)} bytes, not "
                f"{self.storage.count * size}"
            )
        flat = np.frombuffer(data, self.dtype)[self.offset :]
        strides = [size * step for step in self.stride]
        view = np.lib.stride_tricks.as_strided(
            flat, self.shape, strides, writeable=False
        )
        return np.ascontiguousarray(view)


def is_torch_file(path: Path) -> bool:
    """Whether a file is one of PyTorch's containers."""
    with path.open("rb") as file:
        start = file.read(15)
    if start[:2] == b"\x80\x02":
        # The magic number as the pickle writes it.
        return start[2:14] == b"\x8a\x0a" + _MAGIC.to_bytes(10, "little")
    if not zipfile.is_zipfile(path):
        return False
    return any(name.endswith("/data.pkl") for name in zip_members(path))


def zip_members(path: Path) -> list[str]:
    """Returns the names of the members of a zip file.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (
        *(zipfile.BadZipFile, NotImplementedError, struct.error),
        *(OSError, ValueError),
    ) as error:
        raise ValueError(
            "Expected a whole zip file of weights. Received: "
            f"source={str(path)!r} ({error}). Get the file again."
        ) from error


def read(path: Path) -> Any:
    """Reads what was saved, with a `Tensor` for each tensor.

    Raises:
        ValueError: it is no such file, is damaged, or holds something else
            than plain values, arrays and tensors.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        with path.open("rb") as file:
            return _read_old(path, file)
    except (
        ValueError,
        OSError,
        zipfile.BadZipFile,
        EOFError,
        struct.error,
    ) as error:
        raise ValueError(
            "Expected a file that PyTorch saved, of plain values and tensors. "
            f"Received: source={str(path)!r} ({error}). Save only the "
            "state_dict, or get the file again."
        ) from error


def write(path: Path, value: Any) -> None:
    """Writes a value as `torch.save` does.

    Args:
        path: the file.
        value: a dict, str, int, float or bool, or a numpy array, which becomes
            a float32 tensor; dicts may hold all of them, by names.
    """
    arrays = []
    program = b"\x80\x02" + _pickled(value, arrays) + b"."  # protocol 2
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        folder = Path(path).stem
        archive.writestr(f"{folder}/data.pkl", program)
        archive.writestr(f"{folder}/byteorder", "little")
        for key, array in enumerate(arrays):
            archive.writestr(f"{folder}/data/{key}", array.tobytes())
        archive.writestr(f"{folder}/version", "3\n")


def _pickled(value: Any, arrays: list[np.ndarray]) -> bytes:
    """Opcodes that make a value; its arrays are appended to `arrays`."""
    if isinstance(value, Mapping):
        items = [
            _pickled(part, arrays) for item in value.items() for part in item
        ]
        return b"}(" + b"".join(items) + b"u"
    if isinstance(value, str):
        encoded = value.encode()
        return b"X" + struct.pack("<I", len(encoded)) + encoded
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    array = np.ascontiguousarray(value, "<f4")
    strides = [stride // array.itemsize for stride in array.strides]
    key = str(len(arrays))
    arrays.append(array)
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        # The persistent id of its storage.
        + b"("
        + _pickled("storage", [])
        + b"ctorch\nFloatStorage\n"
        + b"".join(_pickled(part, []) for part in (key, "cpu", array.size))
        + b"tQ"
        + _pickled(0, [])  # offset in the storage
        + _tuple(*array.shape)
        + _tuple(*strides)
        # No gradient; no hooks.
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def _tuple(*values: Any) -> bytes:
    return b"(" + b"".join(_pickled(value, []) for value in values) + b"t"


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        _check_members(members)
        [pickled] = [name for name in members if name.endswith("/data.pkl")]
        folder = pickled.removesuffix("data.pkl")
        order = folder + "byteorder"
        if order in members and archive.read(order).strip() != b"little":
            raise ValueError("its numbers are big-endian")
        program = archive.read(pickled)

    def storage(identity: Any) -> _Storage:
        dtype, key, count = _identity(identity)
        member = f"{folder}data/{key}"
        if member not in members:
            raise ValueError(f"no member {member}")
        if members[member].file_size != count * dtype.itemsize:
            raise ValueError(
                f"{member} has {members[member].file_size} bytes, not "
                f"{count * dtype.itemsize}"
            )

        def read_member() -> bytes:
            with zipfile.ZipFile(path) as archive:
                return archive.read(member)

        return _Storage(dtype, count, read_member)

    return safe_pickle.load_stream(
        io.BytesIO(program), allowed=_NAMES, persistent=_once(storage)
    )


def _check_members(members: Mapping[str, zipfile.ZipInfo]) -> None:
    """Refuses archives that PyTorch does not write."""
    for name, info in members.items():
        parts = name.replace("\\", "/").split("/")
        if name.startswith("/") or ":" in parts[0] or ".." in parts:
            raise ValueError(f"a member with the path {name!r}")
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"a compressed member, {name!r}")
        if name.endswith("/data.pkl") and info.file_size > _MOST_PICKLE_BYTES:
            raise ValueError(f"a pickle of {info.file_size} bytes")
    total = sum(info.file_size for info in members.values())
    if total > _MOST_BYTES:
        raise ValueError(f"members of {total} bytes")
    if sum(name.endswith("/data.pkl") for name in members) != 1:
        raise ValueError("not one data.pkl")


def _read_old(path: Path, file: BinaryIO) -> Any:
    storages = {}

    def storage(identity: Any) -> _Storage:
        if len(identity) > 5 and identity[5] is not None:
            raise ValueError("a view of a storage")
        dtype, key, count = _identity(identity[:5])
        return storages.setdefault(key, _Storage(dtype, count))

    def load() -> Any:
        return safe_pickle.load_stream(file, allowed=_NAMES, persistent=storage)

    if load() != _MAGIC or load() != _PROTOCOL:
        raise ValueError("neither a zip archive nor PyTorch's older container")
    if not load()["little_endian"]:
        raise ValueError("its numbers are big-endian")
    value = load()
    for key in load():
        if key not in storages:
            raise ValueError(f"a storage {key!r} that no tensor names")
        (count,) = struct.unpack("<q", file.read(8))
        kept = storages[key]
        if count != kept.count:
            raise ValueError(f"a storage of {count} numbers, not {kept.count}")
        begin, size = file.tell(), count * kept.dtype.itemsize
        kept.read = _reader(path, begin, size)
        file.seek(size, io.SEEK_CUR)
        if file.tell() > path.stat().st_size:
            raise ValueError("it is cut off")
    without = [key for key, kept in storages.items() if kept.read is None]
    if without:
        raise ValueError(f"no numbers of the storages {without[:3]}")
    return value


def _reader(path: Path, begin: int, size: int) -> Callable[[], bytes]:
    def read_part() -> bytes:
        with path.open("rb") as file:
            file.seek(begin)
            return file.read(size)

    return read_part


def _identity(identity: Any) -> tuple[np.dtype, str, int]:
    """Type, key and size of the storage that a pickle refers to."""
    kind, dtype, key, _, count = identity
    if kind != "storage" or not isinstance(dtype, np.dtype):
        raise ValueError(f"it refers to a {kind}")
    if not (isinstance(key, str) and key.isalnum()):
        raise ValueError(f"a storage named {key!r}")
    if not (isinstance(count, int) and 0 <= count <= _MOST_BYTES):
        raise ValueError(f"a storage of {count} numbers")
    return dtype, key, count


def _once(make: Callable[[Any], _Storage]) -> Callable[[Any], _Storage]:
    made = {}

    def storage(identity: Any) -> _Storage:
        key = identity[2]
        if key not in made:
            made[key] = make(identity)
        return made[key]

    return storage


def _tensor(
    storage: _Storage, offset: int, shape: tuple, stride: tuple, *_: Any
) -> Tensor:
    """torch._utils._rebuild_tensor_v2: a view of a storage."""
    numbers = [offset, *shape, *stride]
    if len(shape) != len(stride) or not all(
        isinstance(number, int) and number >= 0 for number in numbers
    ):
        raise ValueError(f"a tensor of sizes {shape} and strides {stride}")
    last = offset + sum(
        (size - 1) * step for size, step in zip(shape, stride, strict=True)
    )
    if math.prod(shape) and last >= storage.count:
        raise ValueError(f"a tensor of sizes {shape} outside of its storage")
    # Strides of 0 would repeat few numbers without end.
    if math.prod(shape) > storage.count:
        raise ValueError(
            f"a tensor of sizes {shape} in {storage.count} numbers"
        )
    return Tensor(storage, offset, tuple(shape), tuple(stride))


def _parameter(tensor: Tensor, *_: Any) -> Tensor:
    """torch._utils._rebuild_parameter."""
    return tensor


def _size(sizes: tuple) -> tuple:
    """torch.Size."""
    return tuple(sizes)


_NAMES = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): _size,
    ("collections", "OrderedDict"): collections.OrderedDict,
} | {("torch", name): np.dtype(dtype) for name, dtype in _DTYPES.items()}
