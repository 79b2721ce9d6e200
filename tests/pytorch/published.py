"""Published networks in plain PyTorch, with the names of their repositories.

    python tests/pytorch/published.py tests/oracles/published.npz

writes, for each small case, the names and shapes of the state_dict and the
descriptors of two images for several sizes. `tests/weights/test_published.py`
makes the same weights from the names, imports them and compares. `networks.py`
saves all cases, also those of the published sizes, for `make test-weights`.

Written after the formulas of the papers and the documented names; of SALAD's
repository only the names of its arrays are used.
"""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
import toy_published

GRID = 37


def unit(x):
    return functional.normalize(x, dim=-1)


def numbered(**parts):
    """A module whose children have the names of a Sequential's positions."""
    module = nn.Module()
    for name, part in parts.items():
        module.add_module(name.removeprefix("_"), part)
    return module


class Scale(nn.Module):
    def __init__(self, length):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(length))


class Block(nn.Module):
    def __init__(self, length, hidden, swiglu):
        super().__init__()
        self.norm1 = nn.LayerNorm(length, eps=1e-6)
        self.norm2 = nn.LayerNorm(length, eps=1e-6)
        self.attn = numbered(
            qkv=nn.Linear(length, 3 * length), proj=nn.Linear(length, length)
        )
        self.ls1, self.ls2 = Scale(length), Scale(length)
        self.mlp = numbered(
            fc1=nn.Linear(length, hidden), fc2=nn.Linear(hidden, length)
        )
        if swiglu:
            self.mlp = numbered(
                w12=nn.Linear(length, 2 * hidden), w3=nn.Linear(hidden, length)
            )

    def facets(self, x):
        return self.attn.qkv(self.norm1(x))

    def forward(self, x):
        batch, count, length = x.shape
        qkv = self.facets(x).reshape(batch, count, 3, length // 64, 64)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = torch.softmax(q @ k.transpose(-2, -1) / 8, dim=-1)
        y = (scores @ v).transpose(1, 2).reshape(batch, count, length)
        x = x + self.ls1.gamma * self.attn.proj(y)
        y = self.norm2(x)
        if hasattr(self.mlp, "w12"):
            gate, value = self.mlp.w12(y).chunk(2, dim=-1)
            y = self.mlp.w3(functional.silu(gate) * value)
        else:
            y = self.mlp.fc2(functional.gelu(self.mlp.fc1(y)))
        return x + self.ls2.gamma * y


class Transformer(nn.Module):
    """DINOv2's, with its names."""

    def __init__(
        self, length, depth, hidden, *, registers=0, swiglu=False, mask=True
    ):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, length))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID**2, length))
        if registers:
            shape = (1, registers, length)
            self.register_tokens = nn.Parameter(torch.zeros(shape))
        if mask:
            self.mask_token = nn.Parameter(torch.zeros(1, length))
        self.patch_embed = numbered(proj=nn.Conv2d(3, length, 14, 14))
        self.blocks = nn.ModuleList(
            Block(length, hidden, swiglu) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(length, eps=1e-6)
        # ImAge's network has registers and this interpolation.
        self.antialias = registers > 0

    def positions(self, rows, columns):
        grid = self.pos_embed[:, 1:].reshape(1, GRID, GRID, -1)
        grid = grid.permute(0, 3, 1, 2)
        if (rows, columns) != (GRID, GRID):
            size = {
                "scale_factor": ((rows + 0.1) / GRID, (columns + 0.1) / GRID)
            }
            if self.antialias:
                size = {"size": (rows, columns)}
            grid = functional.interpolate(
                grid, mode="bicubic", antialias=self.antialias, **size
            )
        return grid.flatten(2).transpose(1, 2)

    def embed(self, x):
        rows, columns = (side // 14 for side in x.shape[2:])
        patches = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        patches = patches + self.positions(rows, columns)
        tokens = [self.cls_token + self.pos_embed[:, :1]]
        if hasattr(self, "register_tokens"):
            tokens.append(self.register_tokens)
        tokens = [token.expand(len(x), -1, -1) for token in tokens]
        return torch.cat([*tokens, patches], dim=1)

    def forward(self, x):
        """All tokens, before the last normalisation."""
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return x

    def maps(self, x, *, normalised=True):
        """The class token, and the patches as feature maps."""
        tokens = self(x)
        tokens = self.norm(tokens) if normalised else tokens
        rows, columns = (side // 14 for side in x.shape[2:])
        patches = tokens[:, -rows * columns :].transpose(1, 2)
        return tokens[:, 0], patches.reshape(*patches.shape[:2], rows, columns)


class Salad(nn.Module):
    """The head, as masses that Sinkhorn's algorithm moves."""

    def __init__(self, channels, clusters, length, token, hidden):
        super().__init__()

        def layers(make, outputs, last):
            parts = {"_0": make(channels, hidden), last: make(hidden, outputs)}
            return numbered(**parts)

        def convolution(before, after):
            return nn.Conv2d(before, after, 1)

        self.dust_bin = nn.Parameter(torch.tensor(1.0))
        self.token_features = layers(nn.Linear, token, "_2")
        self.cluster_features = layers(convolution, length, "_3")
        self.score = layers(convolution, clusters, "_3")

    def forward(self, maps, token):
        def two(module, x):
            first, last = module.children()
            return last(torch.relu(first(x)))

        vectors = two(self.cluster_features, maps).flatten(2)
        scores = two(self.score, maps).flatten(2)
        batch, clusters, count = scores.shape
        bins = self.dust_bin.expand(batch, 1, count)
        kernel = torch.cat([scores, bins], dim=1).double().exp()
        rows = torch.ones(clusters + 1, 1, dtype=torch.float64)
        rows[-1] = count - clusters
        v = torch.ones(batch, 1, count, dtype=torch.float64)
        for _ in range(3):
            u = rows / (kernel * v).sum(dim=2, keepdim=True)
            v = 1 / (kernel * u).sum(dim=1, keepdim=True)
        shares = (u * kernel * v)[:, :clusters].float()
        summed = torch.einsum("bkn,bln->blk", shares, vectors)
        summed = functional.normalize(summed, dim=1).flatten(1)
        whole = unit(two(self.token_features, token))
        return unit(torch.cat([whole, summed], dim=1))


class DinoSalad(nn.Module):
    def __init__(self, transformer, head):
        super().__init__()
        self.backbone = numbered(model=transformer)
        self.aggregator = head

    def forward(self, x):
        token, maps = self.backbone.model.maps(x)
        return self.aggregator(maps, token)


class MegaLoc(nn.Module):
    def __init__(self, transformer, head, inputs, length):
        super().__init__()
        self.backbone = transformer
        self.aggregator = numbered(agg=head, linear=nn.Linear(inputs, length))

    def forward(self, x):
        size = [max(round(side / 14), 1) * 14 for side in x.shape[2:]]
        if size != list(x.shape[2:]):
            x = functional.interpolate(x, size, mode="bilinear", antialias=True)
        token, maps = self.backbone.maps(x)
        return unit(self.aggregator.linear(self.aggregator.agg(maps, token)))


class BoqBlock(nn.Module):
    def __init__(self, length, queries):
        super().__init__()
        heads = length // 64
        self.encoder = nn.TransformerEncoderLayer(
            length, heads, 4 * length, batch_first=True, dropout=0.0
        )
        self.queries = nn.Parameter(torch.zeros(1, queries, length))
        self.self_attn = nn.MultiheadAttention(length, heads, batch_first=True)
        self.norm_q = nn.LayerNorm(length)
        self.cross_attn = nn.MultiheadAttention(length, heads, batch_first=True)
        self.norm_out = nn.LayerNorm(length)

    def forward(self, x):
        x = self.encoder(x)
        q = self.queries.expand(len(x), -1, -1)
        q = self.norm_q(q + self.self_attn(q, q, q)[0])
        return x, self.norm_out(self.cross_attn(q, x, x)[0])


class Boq(nn.Module):
    def __init__(self, channels, length, queries, rows, blocks=2):
        super().__init__()
        self.proj_c = nn.Conv2d(channels, length, 3, padding=1)
        self.norm_input = nn.LayerNorm(length)
        self.boqs = nn.ModuleList(
            BoqBlock(length, queries) for _ in range(blocks)
        )
        self.fc = nn.Linear(blocks * queries, rows)

    def forward(self, maps):
        x = self.norm_input(self.proj_c(maps).flatten(2).transpose(1, 2))
        answers = []
        for block in self.boqs:
            x, answer = block(x)
            answers.append(answer)
        answers = torch.cat(answers, dim=1).transpose(1, 2)
        return unit(self.fc(answers).flatten(1))


class OverMaps(nn.Module):
    """A backbone of feature maps under `name`, and an aggregator."""

    def __init__(self, backbone, aggregator, *, name=None):
        super().__init__()
        self.backbone = numbered(**{name: backbone}) if name else backbone
        self.aggregator = aggregator
        self._features = [backbone]

    def forward(self, x):
        [backbone] = self._features
        if isinstance(backbone, Transformer):
            _, maps = backbone.maps(x, normalised=False)
        else:
            maps = backbone(x)
        return self.aggregator(maps)


class Mixer(nn.Module):
    def __init__(self, locations):
        super().__init__()
        self.mix = nn.Sequential(
            nn.LayerNorm(locations),
            nn.Linear(locations, locations),
            nn.ReLU(),
            nn.Linear(locations, locations),
        )

    def forward(self, x):
        return x + self.mix(x)


class MixVPR(nn.Module):
    def __init__(self, channels, locations, outputs, rows, mixers=4):
        super().__init__()
        self.mix = nn.Sequential(*(Mixer(locations) for _ in range(mixers)))
        self.channel_proj = nn.Linear(channels, outputs)
        self.row_proj = nn.Linear(locations, rows)

    def forward(self, maps):
        x = self.mix(maps.flatten(2)).transpose(1, 2)
        x = self.row_proj(self.channel_proj(x).transpose(1, 2))
        return unit(x.flatten(1))


class ConvAP(nn.Module):
    def __init__(self, channels, outputs):
        super().__init__()
        self.channel_pool = nn.Conv2d(channels, outputs, 1)

    def forward(self, maps):
        x = functional.adaptive_avg_pool2d(self.channel_pool(maps), (2, 2))
        return unit(x.flatten(1))


class L2Norm(nn.Module):
    def forward(self, x):
        return functional.normalize(x, dim=1)


class GeM(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.tensor([3.0]))

    def forward(self, x):
        powers = x.clamp(min=1e-6).pow(self.p)
        return powers.mean(dim=(2, 3), keepdim=True).pow(1 / self.p)


class CosPlace(nn.Module):
    def __init__(self, backbone, channels, length):
        super().__init__()
        self.backbone = backbone
        self.aggregation = nn.Sequential(
            *(L2Norm(), GeM(), nn.Flatten()),
            *(nn.Linear(channels, length), L2Norm()),
        )

    def forward(self, x):
        return self.aggregation(self.backbone(x))


class SuperVLAD(nn.Module):
    def __init__(self, transformer, length, clusters, ghosts):
        super().__init__()
        self.backbone = transformer
        count = clusters + ghosts
        self.aggregation = numbered(
            conv=nn.Conv2d(length, count, 1, bias=False)
        )
        self.clusters = clusters

    def forward(self, x):
        _, maps = self.backbone.maps(x)
        maps = functional.normalize(maps, dim=1)
        shares = torch.softmax(self.aggregation.conv(maps), dim=1)
        shares = shares[:, : self.clusters].flatten(2)
        sums = torch.einsum("bkn,bcn->bkc", shares, maps.flatten(2))
        return unit(unit(sums).flatten(1))


class ImAge(nn.Module):
    def __init__(self, transformer, length, tokens=8, before=8):
        super().__init__()
        self.backbone = transformer
        transformer.antialias = False
        shape = (1, tokens, length)
        self.learnable_aggregation_tokens = nn.Parameter(torch.zeros(shape))
        self.before = before

    def forward(self, x):
        tokens = self.backbone.embed(x)
        learned = self.learnable_aggregation_tokens
        for index, block in enumerate(self.backbone.blocks):
            if index == self.before:
                first = learned.expand(len(x), -1, -1)
                tokens = torch.cat([first, tokens], dim=1)
            tokens = block(tokens)
        first = self.backbone.norm(tokens)[:, : learned.shape[1]]
        return unit(first.flatten(1))


class AnyLoc(nn.Module):
    """Its vocabulary is no array of the file: `vocabulary` lies beside it."""

    def __init__(self, transformer, length, clusters=32, block=31):
        super().__init__()
        self.transformer = transformer
        self.block = block
        shape = (clusters, length)
        centres = toy_published.array("centres", shape)
        self.vocabulary = torch.tensor(centres)

    def state_dict(self):
        return self.transformer.state_dict()

    def load_state_dict(self, state):
        return self.transformer.load_state_dict(state)

    def forward(self, x):
        # torchvision's CenterCrop.
        top, left = (int(round(side % 14 / 2.0)) for side in x.shape[2:])
        height, width = (side // 14 * 14 for side in x.shape[2:])
        x = x[:, :, top : top + height, left : left + width]
        tokens = self.transformer.embed(x)
        for block in self.transformer.blocks[: self.block]:
            tokens = block(tokens)
        values = self.transformer.blocks[self.block].facets(tokens)
        values = unit(values.chunk(3, dim=-1)[2][:, 1:])
        nearest = (values @ unit(self.vocabulary).T).argmax(dim=-1)
        rows = []
        for image, assigned in zip(values, nearest, strict=True):
            sums = [
                (image[assigned == k] - centre).sum(dim=0)
                for k, centre in enumerate(self.vocabulary)
            ]
            rows.append(unit(unit(torch.stack(sums)).flatten()))
        return torch.stack(rows)


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
    # Imported here: it imports this module.
    from networks import Basic, resnet, vgg16

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


def main(path):
    torch.set_num_threads(2)
    saved = {}
    for name, network, sizes in small_cases():
        network = with_toy_weights(network)
        shapes = {
            key: list(tensor.shape)
            for key, tensor in network.state_dict().items()
            if tensor.is_floating_point()
        }
        saved[f"{name}/shapes"] = np.array(json.dumps(shapes))
        for height, width in sizes:
            pixels = toy_published.pictures(height, width)
            with torch.no_grad():
                found = network(preprocessed(pixels)).numpy()
            assert np.isfinite(found).all()
            assert math.isclose(np.linalg.norm(found[0]), 1, rel_tol=1e-5)
            saved[f"{name}/{height}x{width}"] = found
            apart = np.linalg.norm(found[0] - found[1])
            sys.stdout.write(f"{name} {height}x{width} {apart:.3f}\n")
    np.savez_compressed(path, **saved)


if __name__ == "__main__":
    assert re.search(r"\.npz$", sys.argv[1])
    main(Path(sys.argv[1]))
