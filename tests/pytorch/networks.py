"""Networks of others in plain PyTorch, saved as their repositories save them.

    python tests/pytorch/networks.py FOLDER

reads FOLDER/pictures/*.jpg, all of one size, and writes for each case its
checkpoint and FOLDER/<case>.npy, the descriptors, float32 [B, D]. Weights are
random; `test_parity.py` imports the checkpoints and compares. Written after
the documented structure of the repositories that `sare_tf.weights` names.
"""

import sys
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as functional
from PIL import Image
from torch import nn

CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0)
WHITENED = 96


def vgg16():
    """torchvision's vgg16().features, up to conv5_3 without its ReLU."""
    layers, before = [], 3
    for channels in (*CHANNELS, 512, 512, 512):
        if not channels:
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
        before = channels
    return randomised(nn.Sequential(*layers[:-1]))


class Basic(nn.Module):
    expansion = 1

    def __init__(self, before, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(before, width, stride)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + (self.downsample(x) if self.downsample else x))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, before, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = shortcut(before, 4 * width, stride)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (self.downsample(x) if self.downsample else x))


def shortcut(before, after, stride):
    if before == after and stride == 1:
        return None
    return nn.Sequential(
        nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
    )


def resnet(kind, blocks):
    """The first children of torchvision's ResNet, as many as stages are."""
    parts = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    before = 64
    for stage, count in enumerate(blocks):
        stride = 1 if stage == 0 else 2
        made = []
        for block in range(count):
            width = 64 << stage
            made.append(kind(before, width, stride if block == 0 else 1))
            before = kind.expansion * width
        parts.append(nn.Sequential(*made))
    return randomised(nn.Sequential(*parts))


class NetVLAD(nn.Module):
    """Before any normalisation of the result: [B, K, C]."""

    def __init__(self, clusters, channels, bias):
        super().__init__()
        self.conv = nn.Conv2d(channels, clusters, 1, bias=bias)
        centres = functional.normalize(torch.randn(clusters, channels), dim=1)
        self.centroids = nn.Parameter(0.9 * centres)
        # As sharp as trained ones: some clusters get next to nothing.
        self.conv.weight.data = 60 * centres[:, :, None, None]
        if bias:
            self.conv.bias.data = 3 * torch.randn(clusters)

    def forward(self, x):
        x = functional.normalize(x, dim=1)
        weights = torch.softmax(self.conv(x).flatten(2), dim=1)
        residuals = x.flatten(2)[:, None] - self.centroids[None, :, :, None]
        return (weights[:, :, None] * residuals).sum(dim=-1)


class NormalisedNetVLAD(NetVLAD):
    """Of unit length, [B, K * C]."""

    def forward(self, x):
        return normalised(super().forward(x))


def normalised(vlad):
    vlad = functional.normalize(vlad, dim=2)
    return functional.normalize(vlad.flatten(1), dim=1)


class L2Norm(nn.Module):
    def forward(self, x):
        return functional.normalize(x, dim=1)


class GeM(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.tensor([2.6]))

    def forward(self, x):
        powers = x.clamp(min=1e-6).pow(self.p)
        return functional.avg_pool2d(powers, x.shape[-2:]).pow(1 / self.p)


class OpenIBL(nn.Module):
    def __init__(self, *, pca):
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.base = vgg16()
        self.net_vlad = NetVLAD(64, 512, bias=False)
        if pca:
            self.pca_layer = nn.Conv2d(64 * 512, WHITENED, 1)
            randomise_projection(self.pca_layer)

    def forward(self, x):
        x = normalised(self.net_vlad(self.base_model.base(x)))
        if hasattr(self, "pca_layer"):
            x = self.pca_layer(x[:, :, None, None]).flatten(1)
            x = functional.normalize(x, dim=1)
        return x


class PytorchNetVlad(nn.Module):
    def __init__(self, clusters=64, *, bias=False, pca=False):
        super().__init__()
        self.encoder = vgg16()
        self.pool = NormalisedNetVLAD(clusters, 512, bias)
        if pca:
            layer = nn.Conv2d(512 * clusters, WHITENED, 1)
            randomise_projection(layer)
            self.WPCA = nn.Sequential(layer, nn.Flatten(), L2Norm())

    def forward(self, x):
        x = self.pool(self.encoder(x))
        return self.WPCA(x[:, :, None, None]) if hasattr(self, "WPCA") else x


class Benchmark(nn.Module):
    def __init__(self, backbone, aggregation):
        super().__init__()
        self.backbone = backbone
        self.aggregation = aggregation

    def forward(self, x):
        return self.aggregation(self.backbone(x))


def randomise_projection(layer):
    """As whitening has them: rows of any length, a bias that matters."""
    layer.weight.data = 30 * torch.randn_like(layer.weight)
    layer.bias.data = 3 * torch.randn_like(layer.bias)


def randomised(network):
    """So that features neither vanish nor are all alike."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.normal_(layer.bias, std=0.5)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.3, 0.8)
            nn.init.normal_(layer.bias, std=0.2)
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return network


def renamed(state, change):
    return type(state)((change(name), value) for name, value in state.items())


def cases(folder):
    """Name, network, preprocessing, and what is saved."""
    hub = OpenIBL(pca=True)
    yield "openibl_hub", hub, "caffe", hub.state_dict()
    training = OpenIBL(pca=False)
    state = renamed(training.state_dict(), "module.{}".format)
    saved = {"state_dict": state, "epoch": 5, "best_recall5": np.float64(0.9)}
    with_pca = nn.Sequential(training, PCA(folder / "openibl_training.h5"))
    yield "openibl_training", with_pca, "caffe", saved
    base = hub.base_model.base
    peaks = nn.Sequential(base, nn.AdaptiveMaxPool2d(1), nn.Flatten(), L2Norm())
    yield "openibl_vd16_max", peaks, "caffe", base.state_dict()

    for name, clusters, bias in (
        ("pytorch_netvlad", 64, False),
        ("pytorch_netvlad_gpus", 64, False),
        ("pytorch_netvlad_vladv2", 64, True),
    ):
        network = PytorchNetVlad(clusters, bias=bias)
        state = network.state_dict()
        if name == "pytorch_netvlad_gpus":
            state = renamed(state, lambda n: n.replace(".", ".module.", 1))
        parameters = [p for p in network.parameters()][-3:]
        optimiser = torch.optim.SGD(parameters, 0.1, momentum=0.9)
        saved = {
            "epoch": 4,
            "state_dict": state,
            "recalls": {1: np.float64(0.8), 5: 0.9},
            "best_score": np.float32(0.9),
            "optimizer": optimiser.state_dict(),
            "parallel": name.endswith("gpus"),
        }
        yield name, network, "torchvision", saved
    for clusters in (16, 64):
        network = PytorchNetVlad(clusters, pca=True)
        saved = {"num_pcs": WHITENED, "state_dict": network.state_dict()}
        yield f"patch_netvlad_{clusters}", network, "torchvision", saved

    vlad = NormalisedNetVLAD(64, 512, bias=False)
    locations = nn.Sequential(L2Norm(), GeM(), nn.Flatten())
    whole = nn.Sequential(GeM(), L2Norm(), nn.Flatten())
    for name, backbone, aggregation in (
        ("benchmark_vgg16_netvlad", vgg16(), vlad),
        ("benchmark_vgg16_gem", vgg16(), locations),
        (
            "benchmark_resnet18_netvlad",
            resnet(Basic, (2, 2, 2)),
            NormalisedNetVLAD(16, 256, bias=False),
        ),
        (
            "benchmark_resnet18_conv5_gem",
            resnet(Basic, (2, 2, 2, 2)),
            locations,
        ),
        ("benchmark_resnet50_gem", resnet(Bottleneck, (3, 4, 6)), whole),
        (
            "benchmark_resnet101_gem",
            resnet(Bottleneck, (3, 4, 23)),
            locations,
        ),
    ):
        network = Benchmark(backbone, aggregation)
        state = renamed(network.state_dict(), "module.{}".format)
        saved = {
            "epoch_num": 3,
            "model_state_dict": state
            if "vgg16" in name
            else network.state_dict(),
            "recalls": np.array([0.5, 0.7]),
            "best_r5": np.float64(0.7),
            "not_improved_num": 0,
        }
        yield name, network, "torchvision", saved


class PCA(nn.Module):
    """OpenIBL's PCA, which it keeps in an HDF5 file."""

    def __init__(self, path):
        super().__init__()
        rng = np.random.default_rng(7)
        self.vectors = rng.normal(size=(64 * 512, WHITENED)).astype(np.float32)
        self.variances = np.float32(10.0 ** -np.linspace(0, 10, WHITENED))
        mean = rng.normal(size=(64 * 512, 1)).astype(np.float32) / 200
        self.product = self.vectors.T @ mean
        with h5py.File(path, "w") as file:
            file["U"], file["lams"] = self.vectors, self.variances
            file["mu"], file["Utmu"] = mean, self.product

    def forward(self, x):
        variances = np.maximum(self.variances, 1e-9)
        scale = torch.diag(torch.tensor(1 / np.sqrt(variances)))
        rotation = scale @ torch.tensor(self.vectors.T)
        offset = -scale @ torch.tensor(self.product)
        return functional.normalize((rotation @ x.T + offset).T, dim=1)


def preprocessed(pixels, kind):
    images = torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255
    if kind == "caffe":  # OpenIBL's numbers.
        mean = (0.48501960784313836, 0.4579568627450961, 0.4076039215686255)
        deviation = 3 * (0.00392156862745098,)
    else:
        mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    mean, deviation = (
        torch.tensor(x)[:, None, None] for x in (mean, deviation)
    )
    return (images - mean) / deviation


def main(folder):
    torch.manual_seed(0)
    torch.set_num_threads(2)
    paths = sorted((folder / "pictures").glob("*.jpg"))
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    for name, network, kind, saved in cases(folder):
        with torch.no_grad():
            found = network.eval()(preprocessed(pixels, kind))
        found = functional.normalize(found.flatten(1), dim=1)
        np.save(folder / f"{name}.npy", found.numpy())
        torch.save(saved, folder / f"{name}.pth")
        if name in ("openibl_hub", "pytorch_netvlad"):
            torch.save(
                saved,
                folder / f"{name}_old.pth",
                _use_new_zipfile_serialization=False,
            )
            np.save(folder / f"{name}_old.npy", found.numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
