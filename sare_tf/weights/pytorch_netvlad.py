"""pytorch-NetVlad: checkpoints of one GPU or several, also `vladv2`.

    encoder.{0..28}.{weight,bias}           VGG16 up to conv5_3
    pool.{conv.weight,centroids}, and pool.conv.bias of vladv2

With several GPUs the names have `module.` in them. There is no PCA.

Source: github.com/Nanne/pytorch-NetVlad, main.py and netvlad.py.
"""

from collections.abc import Mapping
from pathlib import Path

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.model.registry import TORCHVISION
from sare_tf.weights import torch_layers
from sare_tf.weights.imported_network import ImportedNetwork


def matches(state: Mapping[str, Array]) -> bool:
    """Returns whether a state_dict has pytorch-NetVlad's names."""
    return (
        "encoder.0.weight" in state
        and "pool.centroids" in state
        and "WPCA.0.weight" not in state
    )


def to_saved(network: ImportedNetwork) -> dict:
    """Returns a checkpoint that --resume takes.

    Raises:
        ValueError: the network is whitened, or preprocesses images
            differently.
    """
    torch_layers.check_preprocessing(network, TORCHVISION, "pytorch-NetVlad")
    if network.projection is not None:
        raise ValueError(
            "Expected a network without whitening, for pytorch-NetVlad. "
            "Received: one with it. Import it with --whitening_dimension=0, or "
            "use --format=openibl."
        )
    state = torch_layers.vgg16_state(network, "encoder.")
    state |= torch_layers.netvlad_state(network, "pool.")
    return {
        "epoch": 0,
        "state_dict": state,
        "recalls": {},
        "best_score": 0.0,
        "parallel": False,
    }


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
    arrays.finish()
    return ImportedNetwork(
        source="pytorch_netvlad",
        backbone="vgg16",
        layers=layers,
        preprocessing=TORCHVISION,
        aggregation=netvlad,
    )
