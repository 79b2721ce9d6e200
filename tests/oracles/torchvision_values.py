"""Stores what torchvision's networks make of the weights of toy_torchvision.

    python tests/oracles/torchvision_values.py [mobilenet_v2-b0353104.pth]

Needs torch and torchvision; made by torch 2.13.0 and torchvision 0.28.0. Writes
torchvision.npz beside this file, two arrays for each network:

    <name>/cut    every eighth channel at the cut, [h, w, C / 8]
    <name>/last   mean over the last feature map, [C]

With the published file of MobileNetV2, also `published/...`, from its weights.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torchvision

sys.path.insert(0, str(Path(__file__).parents[1]))
import toy_torchvision

# Our name: torchvision's, and its module whose output is the feature map.
NETWORKS = {
    "torchvision_vgg16": ("vgg16", "features.28"),
    "torchvision_resnet18": ("resnet18", "layer3"),
    "torchvision_resnet34": ("resnet34", "layer3"),
    "torchvision_resnet50": ("resnet50", "layer3"),
    "torchvision_resnet101": ("resnet101", "layer3"),
    "torchvision_resnet152": ("resnet152", "layer3"),
    "mobilenet_v2": ("mobilenet_v2", "features.13"),
    "mobilenet_v3_large": ("mobilenet_v3_large", "features.12"),
    "mobilenet_v3_small": ("mobilenet_v3_small", "features.8"),
    "efficientnet_b0": ("efficientnet_b0", "features.5"),
    "convnext_tiny": ("convnext_tiny", "features.5"),
}


def images():
    """As torchvision's presets normalise them."""
    pixels = torch.tensor(toy_torchvision.image()).permute(0, 3, 1, 2) / 255
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    return (pixels - mean) / deviation


def toy_state(network):
    return {
        name: torch.tensor(toy_torchvision.array(name, tuple(tensor.shape)))
        if tensor.is_floating_point()
        else tensor
        for name, tensor in network.state_dict().items()
    }


def values(function, cut, state=None):
    network = getattr(torchvision.models, function)().eval()
    network.load_state_dict(toy_state(network) if state is None else state)
    outputs = {}

    def keep(name):
        # Cloned: a ReLU behind may change the tensor in place.
        return lambda _, __, output: outputs.update({name: output.clone()})

    network.get_submodule(cut).register_forward_hook(keep("cut"))
    last = network.layer4 if hasattr(network, "layer4") else network.features
    last.register_forward_hook(keep("last"))
    with torch.no_grad():
        network(images())
    return {
        "cut": outputs["cut"][0, ::8].permute(1, 2, 0).numpy(),
        "last": outputs["last"][0].mean(dim=(1, 2)).numpy(),
    }


def main(published):
    stored = {}
    for name, (function, cut) in NETWORKS.items():
        for key, array in values(function, cut).items():
            stored[f"{name}/{key}"] = array
    for path in published:
        state = torch.load(path, weights_only=True)
        computed = values(*NETWORKS["mobilenet_v2"], state)
        for key, array in computed.items():
            stored[f"published/{key}"] = array
    np.savez_compressed(Path(__file__).with_name("torchvision.npz"), **stored)
    for name, array in stored.items():
        sys.stdout.write(f"{name} {array.shape} {np.abs(array).max():.3g}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
