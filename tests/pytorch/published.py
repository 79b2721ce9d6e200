"""What published networks compute in plain PyTorch, and files of them.

    python tests/pytorch/published.py tests/oracles/published.npz

writes, for each small case, the names and shapes of the state_dict and the
descriptors of two images for several sizes. `tests/weights/test_published.py`
makes the same weights from the names, imports them and compares.

    python tests/pytorch/published.py FOLDER

saves networks of the published backbones as their repositories do, each with
its descriptors, for `test_published_parity.py` (`make test-weights`).
"""

import argparse
import json
import math
import pathlib
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
import toy_published
from networks import Basic, Bottleneck, resnet, vgg16
from published_networks import (
    AnyLoc,
    Boq,
    ConvAP,
    CosPlace,
    DinoSalad,
    ImAge,
    MegaLoc,
    MixVPR,
    OverMaps,
    Salad,
    SuperVLAD,
    Transformer,
)


def preprocessed(pixels):
    images = torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    return (images - mean) / deviation


def torchvision_names(sequential):
    """A ResNet's children by torchvision's names."""
    names = ("conv1", "bn1", "relu", "maxpool")
    names += ("layer1", "layer2", "layer3", "layer4")
    module = nn.Sequential()
    for name, part in zip(names, sequential, strict=False):
        module.add_module(name, part)
    return module


def frozen_names(sequential):
    """As VPR-methods-evaluation groups them, with the last stage trained."""
    stem = nn.Sequential(*sequential[:4])
    stages = list(sequential[4:])
    module = nn.Sequential()
    module.add_module("frozen_layers", nn.Sequential(stem, *stages[:-1]))
    module.add_module("unfrozen_layers", nn.Sequential(stages[-1]))
    return module


def small_cases():
    """Name, network, and the sizes of its images."""
    vit = {"hidden": 24}
    sizes = ((42, 56), (70, 42))
    salad = {"clusters": 3, "length": 4, "token": 6, "hidden": 7}
    yield (
        "salad",
        DinoSalad(Transformer(128, 2, **vit), Salad(128, **salad)),
        (*sizes, (224, 322), (518, 518)),
    )
    registers = Transformer(64, 2, **vit, registers=4)
    yield (
        "salad_registers",
        DinoSalad(registers, Salad(64, **salad)),
        ((42, 56), (518, 518)),
    )
    yield (
        "megaloc",
        MegaLoc(
            Transformer(128, 2, **vit, mask=False),
            Salad(128, **salad),
            6 + 3 * 4,
            9,
        ),
        (*sizes, (50, 73), (224, 322)),
    )
    boq = {"length": 64, "queries": 5, "rows": 3}
    yield (
        "boq_dinov2",
        OverMaps(Transformer(64, 2, **vit), Boq(64, **boq), name="dino"),
        (*sizes, (224, 322)),
    )
    small = (2, 2, 2)
    yield (
        "boq_resnet18",
        OverMaps(resnet(Basic, small), Boq(256, **boq), name="net"),
        ((64, 96), (101, 77)),
    )
    yield (
        "boq_frozen",
        OverMaps(frozen_names(resnet(Basic, small)), Boq(256, **boq)),
        ((64, 96),),
    )
    yield (
        "mixvpr",
        OverMaps(
            torchvision_names(resnet(Basic, small)),
            MixVPR(256, 16, 6, 3),
            name="model",
        ),
        ((64, 64),),
    )
    yield (
        "convap",
        OverMaps(
            torchvision_names(resnet(Basic, (2, 2, 2, 2))),
            ConvAP(512, 5),
            name="model",
        ),
        ((96, 160), (101, 77)),
    )
    yield (
        "cosplace_resnet18",
        CosPlace(resnet(Basic, (2, 2, 2, 2)), 512, 32),
        ((64, 96), (101, 77)),
    )
    yield "cosplace_vgg16", CosPlace(vgg16(), 512, 64), ((48, 67),)
    yield (
        "supervlad",
        SuperVLAD(Transformer(64, 2, **vit), 64, 4, 1),
        (*sizes, (224, 322)),
    )
    yield "supervlad_1", SuperVLAD(Transformer(64, 2, **vit), 64, 1, 2), sizes
    yield (
        "implicit_aggregation",
        ImAge(Transformer(64, 3, **vit, registers=4), 64, before=1),
        (*sizes, (224, 322)),
    )
    yield (
        "anyloc",
        AnyLoc(Transformer(64, 3, **vit, swiglu=True), 64, clusters=8, block=1),
        ((42, 56), (75, 47), (224, 322)),
    )


def with_toy_weights(network):
    network.load_state_dict(
        {
            name: torch.tensor(toy_published.array(name, tuple(tensor.shape)))
            if tensor.is_floating_point()
            else tensor
            for name, tensor in network.state_dict().items()
        }
    )
    return network.eval()


def described(network, height, width):
    images = preprocessed(toy_published.pictures(height, width))
    with torch.no_grad():
        found = network(images).numpy()
    assert np.isfinite(found).all()
    assert math.isclose(np.linalg.norm(found[0]), 1, rel_tol=1e-5)
    return found


def write_oracle(path):
    saved = {}
    for name, network, sizes in small_cases():
        network = with_toy_weights(network)
        shapes = {
            key: list(tensor.shape)
            for key, tensor in network.state_dict().items()
            if tensor.is_floating_point()
        }
        saved[f"{name}/shapes"] = np.array(json.dumps(shapes))
        for size in sizes:
            key = "{}/{}x{}".format(name, *size)
            saved[key] = described(network, *size)
    np.savez_compressed(path, **saved)


def published_cases():
    """Name, network, size of the images, and how it is saved."""

    def plain(network):
        return network.state_dict()

    small, deep = (3, 4, 6), (3, 4, 23, 3)
    boq = {"length": 128, "queries": 16, "rows": 4}
    yield (
        "cliquemining",
        DinoSalad(
            Transformer(128, 3, 256),
            Salad(128, clusters=16, length=32, token=24, hidden=64),
        ),
        (70, 98),
        lightning_checkpoint,
    )
    names = OverMaps(resnet(Bottleneck, small), Boq(1024, **boq), name="net")
    yield "boq_resnet50", names, (96, 128), plain
    frozen = frozen_names(resnet(Bottleneck, small))
    yield "boq_frozen", OverMaps(frozen, Boq(1024, **boq)), (96, 128), plain
    backbone = torchvision_names(resnet(Bottleneck, small))
    head = MixVPR(1024, 400, 64, 2)
    yield "mixvpr", OverMaps(backbone, head, name="model"), (320, 320), plain
    backbone = torchvision_names(resnet(Bottleneck, (3, 4, 6, 3)))
    head = ConvAP(2048, 128)
    yield "convap", OverMaps(backbone, head, name="model"), (160, 96), plain
    for name, blocks in (
        ("resnet50", (3, 4, 6, 3)),
        ("resnet101", deep),
        ("resnet152", (3, 8, 36, 3)),
    ):
        network = CosPlace(resnet(Bottleneck, blocks), 2048, 128)
        yield f"cosplace_{name}", network, (96, 128), plain
    yield "cosplace_vgg16", CosPlace(vgg16(), 512, 512), (96, 128), plain


def lightning_checkpoint(network):
    """As Lightning saves a training, with its optimizer."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    sum(p.sum() for p in network.parameters()).backward()
    optimizer.zero_grad(set_to_none=False)
    state = {name: t.clone() for name, t in network.state_dict().items()}
    optimizer.step()
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer)
    return {
        "epoch": 3,
        "global_step": 4000,
        "pytorch-lightning_version": "2.0.2",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'pitts30k_val/R1'}": {
                "best_model_score": torch.tensor(0.9),
                "best_model_path": "last.ckpt",
                "dirpath": pathlib.PurePosixPath("logs"),
            }
        },
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [schedule.state_dict()],
        "MixedPrecisionPlugin": {"scale": 65536.0, "_growth_tracker": 12},
        "hparams_name": "kwargs",
        "hyper_parameters": argparse.Namespace(lr=6e-5, milestones={5, 10}),
    }


def save(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, network, size, saved in published_cases():
        network = with_toy_weights(network)
        found = described(network, *size)
        np.save(folder / f"{name}.npy", found)
        torch.save(saved(network), folder / f"{name}.pth")


def main(path):
    torch.set_num_threads(2)
    if path.suffix == ".npz":
        write_oracle(path)
    else:
        save(path / "published")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
