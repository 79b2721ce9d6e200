"""Patch-NetVLAD: its NetVLAD with whitening, for whole images.

    encoder.{0..28}.{weight,bias}           VGG16 up to conv5_3
    pool.{conv.weight,centroids}
    WPCA.0.{weight,bias}

16 clusters in those trained on Mapillary, 64 in those on Pittsburgh. What is
imported is the descriptor of the whole image, by which Patch-NetVLAD finds its
candidates; the patches that it ranks them by are not.

Source: github.com/QVPR/Patch-NetVLAD, patchnetvlad/models.
"""

from collections.abc import Mapping
from pathlib import Path

from sare_tf.model.registry import TORCHVISION
from sare_tf.weights import torch_layers
from sare_tf.weights.imported_network import Found
from sare_tf.weights.torch_file import Tensor


def matches(state: Mapping[str, Tensor]) -> bool:
    """Whether a state_dict is one of Patch-NetVLAD's."""
    return "encoder.0.weight" in state and "WPCA.0.weight" in state


def read(source: Path, state: Mapping[str, Tensor]) -> Found:
    """Reads a state_dict.

    Args:
        source: the file, for messages.
        state: its tensors.

    Raises:
        ValueError: an array is missing, left over or of another shape.
    """
    arrays = torch_layers.taken(source, state)
    layers = torch_layers.vgg16(arrays, "encoder.")
    netvlad = torch_layers.netvlad(arrays, "pool.")
    projection, bias = torch_layers.convolved_projection(
        arrays, "WPCA.0.", netvlad.centres.size
    )
    arrays.finish()
    return Found(
        source="patch_netvlad",
        backbone="vgg16",
        layers=layers,
        preprocessing=TORCHVISION,
        aggregation=netvlad,
        projection=projection,
        bias=bias,
        notes=("It describes whole images; patches are not imported.",),
    )
