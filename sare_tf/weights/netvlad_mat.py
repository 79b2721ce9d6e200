"""NetVLAD's and deepIBL's networks, which are MATLAB structs of the same form.

`net.layers` is VGG16 up to conv5_3, then preL2, vlad:core, vlad:intranorm,
postL2 and, where whitened, WPCA and finalL2. Such files are hloc's
Pitts30K_struct.mat and TokyoTM_struct.mat.

Convolutions have the layout of this package, [rows, columns, in, out]. The
assignment and the negative of the centres are [C, K]. MATLAB flattens NetVLAD
channel-major; the rows of WPCA follow that. Images are RGB, minus their mean.

Source: github.com/Relja/netvlad, addLayers.m and layerVLAD.m;
github.com/uzh-rpg/netvlad_tf_open, matlab/net_class2struct.m.
"""

from pathlib import Path
from typing import Any

import numpy as np

from sare_tf.model.pretrained.array_ledger import ArrayLedger, StoredArray
from sare_tf.weights.imported_network import (
    CAFFE_RGB,
    VGG16_LAYERS,
    ImportedNetwork,
    NetVLADWeights,
    cluster_major,
)

# MATLAB's names of the layers with weights, in order.
_CONVOLUTIONS = tuple(
    name.replace("block", "conv").replace("_conv", "_") for name in VGG16_LAYERS
)
_AFTER = ("preL2", "vlad:core", "vlad:intranorm", "postL2")
_WHITENING = ("WPCA", "finalL2")
# Layers without weights.
_OTHERS = frozenset(
    [name.replace("conv", "relu") for name in _CONVOLUTIONS[:-1]]
    + [f"pool{block}" for block in range(1, 5)]
)


def read(source: Path, net: Any) -> ImportedNetwork:
    """Reads the variable `net`.

    Args:
        source: the file, for messages.
        net: its value, from `mat_file.read`.

    Raises:
        ValueError: other layers, or arrays that are missing, left over or of
            another shape.
    """
    layers, mean = _layers(source, net)
    names = [name for name, _ in layers]
    main = [name for name in names if name not in _OTHERS]
    expected = [*_CONVOLUTIONS, *_AFTER]
    if main not in (expected, [*expected, *_WHITENING]):
        unlike = [name for name in main if name not in [*expected, *_WHITENING]]
        raise ValueError(
            "Expected VGG16 up to conv5_3 without its ReLU, then "
            f"{', '.join(_AFTER)} and perhaps {', '.join(_WHITENING)}. "
            f"Received: source={str(source)!r} with other layers "
            f"{unlike[:5]}, or these in another order or not all. Other "
            "networks are not supported."
        )
    arrays = ArrayLedger(
        source,
        {
            f"{name}.weights{{{number}}}": _stored(weight)
            for name, weights in layers
            for number, weight in enumerate(weights, start=1)
        },
    )
    convolutions = {}
    for ours, name in zip(VGG16_LAYERS, _CONVOLUTIONS, strict=True):
        kernel = arrays.take(f"{name}.weights{{1}}", (3, 3, None, None))
        bias = arrays.take(f"{name}.weights{{2}}", kernel.shape[3:])
        convolutions[ours] = [kernel, bias]
    assignment = arrays.take("vlad:core.weights{1}", (None, None))
    negated = arrays.take("vlad:core.weights{2}", assignment.shape)
    projection = bias = None
    if "WPCA" in names:
        kernel = arrays.take("WPCA.weights{1}", (1, 1, assignment.size, None))
        bias = arrays.take("WPCA.weights{2}", kernel.shape[3:])
        projection = cluster_major(kernel[0, 0], assignment.shape[1])
    arrays.finish()
    return ImportedNetwork(
        source="netvlad_mat",
        backbone="vgg16",
        layers=convolutions,
        preprocessing=CAFFE_RGB | {"mean": mean},
        aggregation=NetVLADWeights(assignment=assignment, centres=-negated.T),
        projection=projection,
        bias=bias,
    )


def _layers(
    source: Path, net: Any
) -> tuple[list[tuple[str, list[np.ndarray]]], tuple[float, ...]]:
    """Returns names and weights of the layers, and the mean of the images."""
    try:
        layers = [
            (layer["name"], list(layer.get("weights", [])))
            for layer in net["layers"]
        ]
        mean = np.asarray(net["meta"]["normalization"]["averageImage"], float)
        if mean.size % 3:
            raise ValueError(f"averageImage of shape {mean.shape}")
        # loadNet.m uses the mean of the first pixel.
        mean = mean.reshape(-1, 3)[0]
    except (
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(
            "Expected a net of MatConvNet: layers with names and weights, and "
            "meta.normalization.averageImage. Received: "
            f"source={str(source)!r} ({error!r})."
        ) from error
    return layers, tuple(float(x) for x in mean)


def _stored(weight: Any) -> StoredArray:
    """Returns an array without the axes of 1 that MATLAB gives vectors."""
    weight = np.asarray(weight)
    if weight.ndim == 2 and 1 in weight.shape:
        weight = weight.reshape(-1)
    return StoredArray(weight.shape, lambda: weight)
