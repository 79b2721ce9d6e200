"""Patch-NetVLAD: its NetVLAD with whitening, for whole images.

    encoder.{0..28}.{weight,bias}           VGG16 up to conv5_3
    pool.{conv.weight,centroids}
    WPCA.0.{weight,bias}

Networks trained on Mapillary have 16 clusters, those on Pittsburgh 64. The
import computes the descriptor of the whole image, by which Patch-NetVLAD finds
candidates, and not those of the patches, by which it ranks the candidates.

Source: github.com/QVPR/Patch-NetVLAD, patchnetvlad/models.
"""

from collections.abc import Mapping
from pathlib import Path

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.model.registry import TORCHVISION
from sare_tf.weights import torch_layers
from sare_tf.weights.imported_network import ImportedNetwork


def matches(state: Mapping[str, Array]) -> bool:
    """Returns whether a state_dict has Patch-NetVLAD's names."""
    return "encoder.0.weight" in state and "WPCA.0.weight" in state


def read(source: Path, state: Mapping[str, Array]) -> ImportedNetwork:
    """Reads a state_dict.

    Args:
        source: the file, for messages.
        state: its tensors.

    Raises:
        ValueError: an array is missing, left over or of another shape.
    """
    arrays = ArrayLedger(source, state)
    layers = torch_layers.vgg16(arrays, "encoder.")
    netvlad = torch_layers.netvlad(arrays, "pool.")
    projection, bias = torch_layers.convolved_projection(
        arrays, "WPCA.0.", netvlad.centres.size
    )
    arrays.finish()
    return ImportedNetwork(
        source="patch_netvlad",
        backbone="vgg16",
        layers=layers,
        preprocessing=TORCHVISION,
        aggregation=netvlad,
        projection=projection,
        bias=bias,
        notes=("It describes whole images; patches are not imported.",),
    )
