"""A network that was read from a file, in one form for all sources.

Arrays are float32 in this package's layout: convolutions [rows, columns, in,
out], an assignment [C, K], centres [K, C], a projection [D, d] whose rows are
cluster-major as NetVLAD's descriptor is here. Axis letters: C channels, K
clusters, D and d length of a descriptor before and after whitening.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from sare_tf.model import registry
from sare_tf.model.keras_backbone import AGGREGATION
from sare_tf.model.vit_architectures import Architecture

# RGB, 0..255, of imagenet-vgg-verydeep-16, which subtracts a mean only.
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
class HeadWeights:
    """Weights of a layer of `model.heads`.

    Attributes:
        name: in `registry.AGGREGATIONS`.
        settings: arguments of the layer.
        weights: arrays by the names of the layer's weights.
    """

    name: str
    settings: Mapping[str, int]
    weights: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionTransformer:
    """The vision transformer of a file, as far as its arrays say it.

    Attributes:
        architecture: its sizes.
        other_sizes: what happens to images whose sides are no multiples of a
            patch, see `model.vit.build`.
        train_from: first layer that is trained further, see `backbones.build`.
    """

    architecture: Architecture
    other_sizes: str = "refuse"
    train_from: str = AGGREGATION


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportedNetwork:
    """A backbone with its preprocessing, and what follows it.

    Attributes:
        source: a name in `formats.FORMATS`.
        backbone: a name in `registry.BACKBONES`; or, for a vision transformer
            of sizes that were not published, a description.
        layers: the weights of each layer of the backbone by its name, in the
            order of Keras.
        preprocessing: arguments of the layer `Preprocessing`.
        aggregation: weights of the aggregation; None: the file holds only a
            backbone.
        projection: of the whitening, [D, d]; None: there is none.
        bias: of the whitening, [d].
        cut_layer: last layer of the backbone; None: the default.
        transformer: the backbone, if it is not one of the registry.
        only_size: the aggregation takes no other size than the one of the
            preprocessing.
        notes: sentences for the user about the file.
    """

    source: str
    backbone: str
    layers: Mapping[str, list[np.ndarray]]
    preprocessing: Mapping[str, Any]
    aggregation: NetVLADWeights | GeMWeights | HeadWeights | None = None
    projection: np.ndarray | None = None
    bias: np.ndarray | None = None
    cut_layer: str | None = None
    transformer: VisionTransformer | None = None
    only_size: bool = False
    notes: tuple[str, ...] = ()


def cluster_major(projection: np.ndarray, num_clusters: int) -> np.ndarray:
    """Returns a projection of MATLAB with the rows in the order here.

    Args:
        projection: [C * K, d], channel-major: row c * K + k.
        num_clusters: K.

    Returns:
        [K * C, d], row k * C + c.
    """
    length, dimension = projection.shape
    channels = length // num_clusters
    parts = projection.reshape(channels, num_clusters, dimension)
    return parts.transpose(1, 0, 2).reshape(length, dimension)
