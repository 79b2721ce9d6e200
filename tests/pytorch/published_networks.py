"""Published networks in plain PyTorch, with the names of their repositories.

Written after the formulas of the papers and the documented names; of SALAD's
repository only the names of its arrays are used.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
import toy_published
from networks import GeM, L2Norm

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
