"""XFeat's published file: its arrays to a network.

    block1.{0..3}.layer.0.weight                   a convolution without bias
    block1.{0..3}.layer.1.running_{mean,var}       and its normalisation
    skip1.1.{weight,bias}, block_fusion.2.*, ...   a convolution with bias
    fine_matcher.*                                 of semi-dense matching

Source: github.com/verlab/accelerated_features, weights/xfeat.pt.
"""

from pathlib import Path

import keras
import numpy as np

from sare_tf.model import xfeat
from sare_tf.model.pretrained import weights_file
from sare_tf.model.pretrained.array_ledger import ArrayLedger
from sare_tf.model.published_files import PublishedFile

PUBLISHED = PublishedFile(
    "https://github.com/verlab/accelerated_features/raw/main/weights/xfeat.pt",
    "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
)

# Where the convolution with bias stands among the parts of its block.
_PLAIN = {
    name: 1 if name == "skip1" else len(xfeat.BLOCKS[name])
    for name in xfeat.PLAIN
}
# The parts of a block: what a convolution and its normalisation hold.
_CONVOLUTION = "{}.{}.layer.0.weight"
_STATISTICS = ("{}.{}.layer.1.running_mean", "{}.{}.layer.1.running_var")
_FINE_MATCHER = "fine_matcher."


def read(path: Path) -> keras.Model:
    """Reads the network.

    Args:
        path: a file of PyTorch, safetensors or NumPy.

    Returns:
        See `model.xfeat.build`.

    Raises:
        ValueError: arrays are missing, left over or of another shape; lists
            them.
    """
    read_arrays = weights_file.read_arrays(path)
    arrays = ArrayLedger(path, read_arrays)
    arrays.drop_ending(".num_batches_tracked")
    for name in read_arrays:
        if name.startswith(_FINE_MATCHER):
            arrays.drop(name)
    arrays.require(_names(), network="XFeat")
    network = xfeat.build()
    for block, convolutions in xfeat.BLOCKS.items():
        for number, (filters, size, _) in enumerate(convolutions):
            layer = network.get_layer(f"{block}_{number}_conv")
            name = _CONVOLUTION.format(block, number)
            channels = layer.kernel.shape[2]
            kernel = arrays.take(name, (filters, channels, size, size))
            layer.set_weights([_of_keras(kernel)])
            network.get_layer(f"{block}_{number}_norm").set_weights(
                [
                    arrays.take(one.format(block, number), (filters,))
                    for one in _STATISTICS
                ]
            )
    for block, filters in xfeat.PLAIN.items():
        layer = network.get_layer(f"{block}_plain")
        name, channels = f"{block}.{_PLAIN[block]}", layer.kernel.shape[2]
        kernel = arrays.take(f"{name}.weight", (filters, channels, 1, 1))
        bias = arrays.take(f"{name}.bias", (filters,))
        layer.set_weights([_of_keras(kernel), bias])
    arrays.finish()
    return network


def _of_keras(kernel: np.ndarray) -> np.ndarray:
    """[out, in, rows, columns] -> [rows, columns, in, out]."""
    return kernel.transpose(2, 3, 1, 0)


def _names() -> set[str]:
    """Returns the names of all arrays that the network needs."""
    names = {
        one.format(block, number)
        for block, convolutions in xfeat.BLOCKS.items()
        for number in range(len(convolutions))
        for one in (_CONVOLUTION, *_STATISTICS)
    }
    return names | {
        f"{block}.{number}.{kind}"
        for block, number in _PLAIN.items()
        for kind in ("weight", "bias")
    }
