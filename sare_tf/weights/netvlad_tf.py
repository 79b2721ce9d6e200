"""netvlad_tf_open: the official NetVLAD as a checkpoint of TensorFlow 1.

    vgg16_netvlad_pca/average_rgb
    vgg16_netvlad_pca/conv{1_1..5_3}/{kernel,bias}
    vgg16_netvlad_pca/assignment/kernel         [1, 1, C, K]
    vgg16_netvlad_pca/cluster_centers           [1, 1, 1, C, K], negated
    vgg16_netvlad_pca/WPCA/{kernel,bias}        [1, 1, C * K, d], channel-major

Source: github.com/uzh-rpg/netvlad_tf_open, python/netvlad_tf.
"""

from pathlib import Path

import tensorflow as tf

from sare_tf.model.pretrained.array_ledger import ArrayLedger, StoredArray
from sare_tf.weights.imported_network import (
    CAFFE_RGB,
    VGG16_LAYERS,
    ImportedNetwork,
    NetVLADWeights,
    cluster_major,
)

_SCOPE = "vgg16_netvlad_pca/"
# Errors of TensorFlow's reader for damaged files.
_READING_FAILS = (tf.errors.OpError, IndexError, RuntimeError, ValueError)


def prefix(source: Path) -> Path | None:
    """Returns the prefix of a checkpoint, from it, a file or the folder."""
    if source.is_dir():
        indices = sorted(source.glob("*.index"))
        return indices[0].with_suffix("") if len(indices) == 1 else None
    for path in (source, source.with_suffix("")):
        if path.with_name(path.name + ".index").is_file():
            return path
    return None


def read(source: Path) -> ImportedNetwork:
    """Reads a checkpoint.

    Args:
        source: the prefix, from `prefix`.

    Raises:
        ValueError: it is damaged, or an array is missing, left over or of
            another shape.
    """
    try:
        reader = tf.train.load_checkpoint(str(source))
        shapes = reader.get_variable_to_shape_map()
    except _READING_FAILS as error:
        raise _damaged(source, error) from error

    def reading(name):
        def read_tensor():
            try:
                return reader.get_tensor(name)
            except _READING_FAILS as error:
                raise _damaged(source, error) from error

        return read_tensor

    arrays = ArrayLedger(
        source,
        {
            name: StoredArray(tuple(shape), reading(name))
            for name, shape in shapes.items()
        },
    )
    layers = {}
    for ours in VGG16_LAYERS:
        name = _SCOPE + ours.replace("block", "conv").replace("_conv", "_")
        kernel = arrays.take(f"{name}/kernel", (3, 3, None, None))
        bias = arrays.take(f"{name}/bias", kernel.shape[3:])
        layers[ours] = [kernel, bias]
    assignment = arrays.take(_SCOPE + "assignment/kernel", (1, 1, None, None))[
        0, 0
    ]
    negated = arrays.take(
        _SCOPE + "cluster_centers", (1, 1, 1, *assignment.shape)
    )[0, 0, 0]
    kernel = arrays.take(_SCOPE + "WPCA/kernel", (1, 1, assignment.size, None))[
        0, 0
    ]
    bias = arrays.take(_SCOPE + "WPCA/bias", kernel.shape[1:])
    mean = arrays.take(_SCOPE + "average_rgb", (3,))
    arrays.finish()
    return ImportedNetwork(
        source="netvlad_tf",
        backbone="vgg16",
        layers=layers,
        preprocessing=CAFFE_RGB | {"mean": tuple(float(x) for x in mean)},
        aggregation=NetVLADWeights(assignment=assignment, centres=-negated.T),
        projection=cluster_major(kernel, assignment.shape[1]),
        bias=bias,
    )


def _damaged(source: Path, error: Exception) -> ValueError:
    reason = str(error).splitlines()[0] if str(error) else repr(error)
    return ValueError(
        "Expected a whole checkpoint of TensorFlow 1: *.index and "
        f"*.data-00000-of-00001. Received: source={str(source)!r} ({reason}). "
        "Get both files again."
    )
