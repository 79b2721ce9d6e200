"""Files of weights: which kind a file is, by its content, and its arrays.

    torch         what torch.save wrote: .pth, .pt, .ckpt, old and new container
    safetensors   safetensors, of any library
    npz           numpy.savez
    hdf5          .h5 and .weights.h5 of Keras
    keras         .keras, a whole model

The first three hold arrays by name. No file is executed, unpacked, or trusted
with its sizes.
"""

import contextlib
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sare_tf.model.pretrained import safetensors_file, torch_file
from sare_tf.model.pretrained.array_ledger import Array, StoredArray

ARRAYS_BY_NAME = ("torch", "safetensors", "npz")
# Where a checkpoint of a training holds the network.
_STATE_DICTS = ("state_dict", "model_state_dict", "model")
# Far above any network here.
_MOST_BYTES = 1 << 33


def kind_of(path: Path) -> str | None:
    """Returns the kind of a file, see above; None for any other file."""
    if torch_file.is_torch_file(path):
        return "torch"
    if h5py.is_hdf5(path):
        return "hdf5"
    if zipfile.is_zipfile(path):
        members = torch_file.zip_members(path)
        if "model.weights.h5" in members:
            return "keras"
        if members and all(name.endswith(".npy") for name in members):
            return "npz"
        return None
    return "safetensors" if safetensors_file.is_safetensors_file(path) else None


@contextlib.contextmanager
def named_for_keras(path: Path) -> Iterator[Path]:
    """Gives a file of Keras the suffix by which Keras tells its formats.

    Args:
        path: a file of the kind keras or hdf5.

    Yields:
        A temporary path of the same file.
    """
    suffix = ".keras"
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            # Keras 2, and so keras.applications.
            legacy = "layer_names" in file.attrs or "model_weights" in file
        suffix = ".h5" if legacy else ".weights.h5"
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"weights{suffix}"
        link.symlink_to(path.resolve())
        yield link


def read_arrays(path: Path) -> dict[str, Array]:
    """Reads the names and shapes of the arrays of a file.

    Args:
        path: a file of a kind in `ARRAYS_BY_NAME`.

    Returns:
        The arrays by name, without the `module.` of data parallelism.

    Raises:
        ValueError: the file is damaged, or holds no arrays by name.
    """
    kind = kind_of(path)
    if kind == "torch":
        return _without_module(path, _state_dict(path, torch_file.read(path)))
    if kind == "safetensors":
        return _without_module(path, safetensors_file.read(path))
    if kind == "npz":
        return _read_npz(path)
    raise ValueError(
        "Expected a file that PyTorch, safetensors or NumPy saved. Received: "
        f"source={str(path)!r}, which is "
        f"{'none of them' if kind is None else kind}. If it was downloaded, "
        "see whether it is a web page or cut off."
    )


def _state_dict(path: Path, saved: Any) -> Mapping[str, Array]:
    """Returns the network's tensors of what `torch_file.read` returned."""
    for name in _STATE_DICTS:
        if isinstance(saved, Mapping) and isinstance(saved.get(name), Mapping):
            saved = saved[name]
    if (
        not isinstance(saved, Mapping)
        or not saved
        or not all(
            isinstance(name, str) and isinstance(tensor, torch_file.Tensor)
            for name, tensor in saved.items()
        )
    ):
        raise ValueError(
            "Expected a state_dict, or a checkpoint with one under "
            f"{' or '.join(_STATE_DICTS)}. Received: source={str(path)!r} "
            f"with {_describe(saved)}. Save the model's state_dict()."
        )
    return saved


def _describe(saved: Any) -> str:
    if isinstance(saved, Mapping):
        return f"the keys {', '.join(map(str, list(saved)[:8])) or 'none'}"
    return f"an object of type {type(saved).__name__}"


def _without_module(
    path: Path, arrays: Mapping[str, Array]
) -> dict[str, Array]:
    renamed = {
        ".".join(word for word in name.split(".") if word != "module"): array
        for name, array in arrays.items()
    }
    if len(renamed) != len(arrays):
        raise ValueError(
            "Expected names that differ by more than 'module.'. Received: "
            f"source={str(path)!r} with {len(arrays) - len(renamed)} that do "
            "not. Save the model's state_dict()."
        )
    return renamed


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > _MOST_BYTES:
            raise ValueError(f"{size} bytes")
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            "Expected arrays that numpy.savez saved. Received: source="
            f"{str(path)!r} ({error}). Get the file again."
        ) from error
    return {name: _in_memory(array) for name, array in arrays.items()}


def _in_memory(array: np.ndarray) -> StoredArray:
    return StoredArray(array.shape, lambda: array, str(array.dtype))
