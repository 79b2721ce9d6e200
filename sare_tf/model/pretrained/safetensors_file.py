"""Files of safetensors: named arrays without anything that could run.

Source: github.com/huggingface/safetensors, the format.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

# Gives NumPy the type bfloat16.
import ml_dtypes  # noqa: F401
import numpy as np
import safetensors
import safetensors.numpy

from sare_tf.model.pretrained.array_ledger import StoredArray

# The format's own limit of the header: safetensors/src/tensor.rs.
_MOST_HEADER_BYTES = 100_000_000
# Its types of 16 bits, as NumPy names them.
_HALVES = {"F16": "float16", "BF16": "bfloat16"}


def is_safetensors_file(path: Path) -> bool:
    """Returns whether a file is one of safetensors, by its first bytes.

    They are the length of the header, 8 bytes, and the header, JSON.
    """
    with path.open("rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return (
        start[8:] == b"{"
        and length <= _MOST_HEADER_BYTES
        and length + 8 <= path.stat().st_size
    )


def read(path: Path) -> dict[str, StoredArray]:
    """Reads the names and shapes of the arrays.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {
                name: StoredArray(
                    tuple(file.get_slice(name).get_shape()),
                    _reader(path, name),
                    _HALVES.get(file.get_slice(name).get_dtype(), "other"),
                )
                for name in file.keys()  # noqa: SIM118, it is no dict
            }
    except (safetensors.SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as float32."""
    safetensors.numpy.save_file(
        {
            name: np.asarray(array, np.float32, order="C")
            for name, array in arrays.items()
        },
        path,
    )


def _reader(path: Path, name: str) -> Callable[[], np.ndarray]:
    def read_array() -> np.ndarray:
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                return file.get_tensor(name)
        # A type that NumPy lacks is either of the last two.
        except (
            safetensors.SafetensorError,
            OSError,
            TypeError,
            AttributeError,
        ) as error:
            raise _damaged(path, f"{name}: {error}") from error

    return read_array


def _damaged(path: Path, reason: Exception | str) -> ValueError:
    return ValueError(
        "Expected a whole file of safetensors, of float32, float16 or "
        f"bfloat16. Received: source={str(path)!r} ({reason}). Get the file "
        "again, or save the arrays as float32."
    )
