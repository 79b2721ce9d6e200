"""What a file of weights holds, in one form for all sources.

Arrays are float32 in this package's layout: convolutions [rows, columns, in,
out], an assignment [C, K], centres [K, C], a projection [D, d] whose rows are
cluster-major as NetVLAD's descriptor is here. Axis letters: C channels, K
clusters, D and d length of a descriptor before and after whitening.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from sare_tf.model import registry

# RGB, 0..255, of imagenet-vgg-verydeep-16: the mean of each channel alone.
# OpenIBL has the same numbers divided by 255, with a deviation of 1 / 255.
CAFFE_RGB = {
    "mean": registry.CAFFE["mean"][::-1],
    "deviation": registry.CAFFE["deviation"],
}
# Layers of VGG16 up to its cut, as keras.applications names them.
VGG16_LAYERS = tuple(
    f"block{block}_conv{number}"
    for block, count in enumerate((2, 2, 3, 3, 3), start=1)
    for number in range(1, count + 1)
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetVLADWeights:
    """Weights of the layer `NetVLAD`.

    Attributes:
        assignment: [C, K].
        centres: [K, C].
        bias: of the assignment, [K], or None.
        clamped: short vectors are normalised as PyTorch does.
    """

    assignment: np.ndarray
    centres: np.ndarray
    bias: np.ndarray | None = None
    clamped: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeMWeights:
    """The exponent of the layer `GeM`, and what precedes it."""

    exponent: float
    unit_locations: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A network.

    Attributes:
        source: a name in `formats.FORMATS`.
        backbone: a name in `registry.BACKBONES`.
        layers: name of a layer of the backbone -> its weights, in the order
            of Keras.
        preprocessing: arguments of the layer `Preprocessing`.
        aggregation: weights of the aggregation; None: the file holds a
            backbone alone.
        projection: [D, d], and None without whitening.
        bias: of the whitening, [d].
        cut_layer: of the backbone; None: its own.
        notes: sentences on what the file is and what to mind.
    """

    source: str
    backbone: str
    layers: Mapping[str, list[np.ndarray]]
    preprocessing: Mapping[str, tuple | bool]
    aggregation: NetVLADWeights | GeMWeights | None = None
    projection: np.ndarray | None = None
    bias: np.ndarray | None = None
    cut_layer: str | None = None
    notes: tuple[str, ...] = ()


class Taken:
    """Arrays of a file by name, each of which must be taken once.

    Args:
        source: the file, for messages.
        arrays: name -> shape and a function that reads the array.
    """

    def __init__(
        self,
        source: Path,
        arrays: Mapping[str, tuple[tuple[int, ...], Callable[[], np.ndarray]]],
    ):
        self._source = source
        self._arrays = dict(arrays)

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array that is not taken yet.

        Raises:
            ValueError: it is not there.
        """
        if name not in self._arrays:
            raise ValueError(
                f"Expected an array {name!r}. Received: source="
                f"{str(self._source)!r} without it; left are "
                f"{_some(self._arrays)}. Check --format, or get the file again."
            )
        return self._arrays[name][0]

    def take(self, name: str, shape: Iterable[int | None]) -> np.ndarray:
        """An array as float32.

        Args:
            name: its name.
            shape: its shape; None where any size is right.

        Raises:
            ValueError: it is not there, of another shape or type, or not
                finite.
        """
        found, shape = self.shape(name), tuple(shape)
        if len(found) != len(shape) or any(
            size not in (None, other)
            for size, other in zip(shape, found, strict=True)
        ):
            raise self._refused(name, f"of shape {shape}", f"shape={found}")
        array = np.asarray(self._arrays.pop(name)[1]())
        if array.dtype.kind != "f":
            raise self._refused(
                name, "of floating point numbers", f"dtype={array.dtype}"
            )
        array = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(array).all():
            raise self._refused(name, "finite", "NaN or infinity")
        return array

    def drop(self, name: str) -> None:
        """Passes over an array that the network does not need."""
        self._arrays.pop(name)

    def finish(self) -> None:
        """Refuses arrays that were not taken.

        Raises:
            ValueError: names them.
        """
        if self._arrays:
            raise ValueError(
                "Expected a file whose every array has its place in the "
                f"network. Received: source={str(self._source)!r} with "
                f"{_some(self._arrays)}, which have none. It is of another "
                "network than --format says, or than is supported."
            )

    def _refused(self, name: str, expected: str, received: str) -> ValueError:
        return ValueError(
            f"Expected the array {name!r} to be {expected}. Received: "
            f"source={str(self._source)!r} with {received}. Check --format, "
            "or get the file again."
        )


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "none") + more


def cluster_major(projection: np.ndarray, num_clusters: int) -> np.ndarray:
    """Orders the rows of a channel-major projection, as MATLAB flattens.

    Args:
        projection: [C * K, d], row c * K + k.
        num_clusters: K.

    Returns:
        [K * C, d], row k * C + c.
    """
    length, dimension = projection.shape
    channels = length // num_clusters
    parts = projection.reshape(channels, num_clusters, dimension)
    return parts.transpose(1, 0, 2).reshape(length, dimension)
