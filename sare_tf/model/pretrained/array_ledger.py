"""Arrays of a file by name, each of which must be used exactly once.

So no array of a file is ignored without a word, and none is missing.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

# Names that a message lists before it says how many more there are.
_LISTED = 8


class Array(Protocol):
    """An array that is read when it is needed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        ...

    @property
    def dtype(self) -> Any:
        """Type of its numbers, whose text is that of NumPy."""
        ...

    def numpy(self) -> np.ndarray:
        """Reads the numbers."""
        ...


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array of a file.

    Attributes:
        shape: its sizes.
        read: reads the numbers.
        dtype: type of the numbers, as NumPy names it.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    dtype: str = "float32"

    def numpy(self) -> np.ndarray:
        """Reads the numbers."""
        return self.read()


class ArrayLedger:
    """The arrays of a file that a network has not taken yet.

    Args:
        source: the file, for messages.
        arrays: the arrays by name.
    """

    def __init__(self, source: Path, arrays: Mapping[str, Array]):
        self._source = source
        self._arrays = dict(arrays)

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of an array that is not taken yet.

        Raises:
            ValueError: there is no such array.
        """
        if name not in self._arrays:
            raise ValueError(
                f"Expected an array {name!r}. Received: source="
                f"{str(self._source)!r} without it; left are "
                f"{listed(self._arrays)}. Check --format, or get the file "
                "again."
            )
        return tuple(self._arrays[name].shape)

    def take(self, name: str, shape: Iterable[int | None]) -> np.ndarray:
        """Takes an array, as float32.

        Args:
            name: its name.
            shape: its shape; None where any size is right.

        Raises:
            ValueError: there is no such array, or it has another shape or
                type, or is not finite.
        """
        received, expected = self.shape(name), tuple(shape)
        if len(received) != len(expected) or any(
            size not in (None, other)
            for size, other in zip(expected, received, strict=True)
        ):
            raise self._refused(
                name, f"of shape {expected}", f"shape={received}"
            )
        array = np.asarray(self._arrays.pop(name).numpy())
        # bfloat16 is of kind V.
        if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
            raise ValueError(
                f"Expected the array {name!r} to be of floating point numbers. "
                f"Received: source={str(self._source)!r} with dtype="
                f"{array.dtype}: it is quantised, or no weight. Take the file "
                "that holds float32."
            )
        array = np.asarray(array, np.float32, order="C")
        if not np.isfinite(array).all():
            raise self._refused(name, "finite", "NaN or infinity")
        return array

    def drop(self, name: str) -> None:
        """Removes an array that the network does not need, if it is there."""
        self._arrays.pop(name, None)

    def drop_ending(self, ending: str) -> None:
        """Removes all arrays whose names have this ending."""
        for name in [name for name in self._arrays if name.endswith(ending)]:
            self.drop(name)

    def require(self, names: Iterable[str], *, network: str) -> None:
        """Refuses a file that has not exactly these arrays left.

        Args:
            names: of all arrays that are still to be taken.
            network: whose they are, for the message.

        Raises:
            ValueError: lists arrays that are missing and those left over.
        """
        expected = set(names)
        problems = [
            f"{word} {listed(differing)}"
            for word, differing in (
                ("without", expected - self._arrays.keys()),
                ("with, in no layer of it,", self._arrays.keys() - expected),
            )
            if differing
        ]
        if problems:
            raise ValueError(
                f"Expected each array of {network} once. Received: source="
                f"{str(self._source)!r} {'; and '.join(problems)}. Get the "
                "file again, or save the model's state_dict()."
            )

    def finish(self) -> None:
        """Refuses arrays that were not taken.

        Raises:
            ValueError: names them.
        """
        if self._arrays:
            raise ValueError(
                "Expected a file whose every array has its place in the "
                f"network. Received: source={str(self._source)!r} with "
                f"{listed(self._arrays)}, which have none. It is of another "
                "network than --format says, or of an unsupported one."
            )

    def _refused(self, name: str, expected: str, received: str) -> ValueError:
        return ValueError(
            f"Expected the array {name!r} to be {expected}. Received: "
            f"source={str(self._source)!r} with {received}. Check --format, "
            "or get the file again."
        )


def half_precision(arrays: Mapping[str, Array]) -> str | None:
    """Returns a sentence about arrays of 16 bits; None: there are none."""
    kinds = [str(array.dtype) for array in arrays.values()]
    halves = [kind for kind in kinds if kind in ("float16", "bfloat16")]
    if not halves:
        return None
    return (
        f"{len(halves)} of {len(kinds)} arrays are stored as "
        f"{' and '.join(sorted(set(halves)))} and computed in float32: "
        "descriptors are those of the rounded weights."
    )


def listed(names: Iterable[str]) -> str:
    """Lists the first names, and says how many more there are."""
    ordered = sorted(names)
    rest = len(ordered) - _LISTED
    more = f" and {rest} more" if rest > 0 else ""
    return (", ".join(ordered[:_LISTED]) or "none") + more
