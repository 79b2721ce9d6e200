"""Networks in plain PyTorch, to compare ours with; arrays are named as ours.

A network takes float32 images [B, H, W, 3], RGB 0..255, and returns maps of
features; `Embedder` makes descriptors of them by generalised-mean pooling.
ResNet50 and MobileNetV2 are those of torchvision up to the layers at which
sare_tf cuts them, and DINOv2 is that of Meta: the attention is PyTorch's
scaled_dot_product_attention.
"""

import torch
from torch import nn
from torch.nn import functional

# Of ImageNet, as torchvision has them.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_PATCH = 14
# Expansion, channels, number of blocks, stride of the first one.
_MOBILENET = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
)


class Embedder(nn.Module):
    """Preprocessing, a network, and GeM with the exponent 3."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        for name, values in (("mean", _MEAN), ("deviation", _DEVIATION)):
            tensor = 255.0 * torch.tensor(values)[:, None, None]
            self.register_buffer(name, tensor)

    def forward(self, images):
        x = (images.permute(0, 3, 1, 2) - self.mean) / self.deviation
        x = self.network(x).float()  # [B, C, h, w]
        x = x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)
        return functional.normalize(x)


class _Block(nn.Module):
    def __init__(self, dimension, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dimension, eps=1e-6)
        self.qkv = nn.Linear(dimension, 3 * dimension)
        self.proj = nn.Linear(dimension, dimension)
        self.ls1 = nn.Parameter(torch.ones(dimension))
        self.norm2 = nn.LayerNorm(dimension, eps=1e-6)
        self.fc1 = nn.Linear(dimension, 4 * dimension)
        self.fc2 = nn.Linear(4 * dimension, dimension)
        self.ls2 = nn.Parameter(torch.ones(dimension))

    def forward(self, x):
        batch, count, dimension = x.shape
        qkv = self.qkv(self.norm1(x))
        qkv = qkv.reshape(batch, count, 3, self.heads, dimension // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        mixed = mixed.transpose(1, 2).reshape(batch, count, dimension)
        x = x + self.ls1 * self.proj(mixed)
        hidden = functional.gelu(self.fc1(self.norm2(x)))
        return x + self.ls2 * self.fc2(hidden)


class VisionTransformer(nn.Module):
    """DINOv2 without registers, for images of one size.

    Args:
        dimension: length of a token.
        heads: of attention.
        side: rows and columns of patches, whose positions are a weight.
    """

    def __init__(self, dimension: int, heads: int, side: int):
        super().__init__()
        self.side = side
        self.embedding = nn.Conv2d(3, dimension, _PATCH, _PATCH)
        self.first = nn.Parameter(torch.zeros(1, 1, dimension))
        self.positions = nn.Parameter(torch.zeros(1, side * side, dimension))
        self.blocks = nn.Sequential(
            *(_Block(dimension, heads) for _ in range(12))
        )
        self.norm = nn.LayerNorm(dimension, eps=1e-6)

    def forward(self, x):
        x = self.embedding(x).flatten(2).transpose(1, 2) + self.positions
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1)
        x = self.norm(self.blocks(x))[:, 1:]
        return x.transpose(1, 2).unflatten(2, (self.side, self.side))


def _convolve(inputs, outputs, size, stride=1, groups=1, activation=None):
    padding = size // 2
    layers = [
        nn.Conv2d(
            *(inputs, outputs, size, stride, padding),
            groups=groups,
            bias=False,
        ),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([activation] if activation else []))


class _Inverted(nn.Module):
    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        hidden = inputs * expansion
        relu = nn.ReLU6(inplace=True)
        layers = []
        if expansion != 1:
            layers.append(_convolve(inputs, hidden, 1, activation=relu))
        layers.append(
            _convolve(hidden, hidden, 3, stride, hidden, activation=relu)
        )
        layers += _convolve(hidden, outputs, 1)
        self.conv = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    """Up to features.13, of stride 16."""

    def __init__(self):
        super().__init__()
        relu = nn.ReLU6(inplace=True)
        features, channels = [_convolve(3, 32, 3, 2, activation=relu)], 32
        for expansion, outputs, count, first in _MOBILENET:
            for block in range(count):
                stride = first if block == 0 else 1
                features.append(_Inverted(channels, outputs, stride, expansion))
                channels = outputs
        self.features = nn.Sequential(*features)

    def forward(self, x):
        return self.features(x)


class _Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False),
                nn.BatchNorm2d(4 * width),
            )

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (self.downsample(x) if self.downsample else x))


class ResNet50(nn.Module):
    """Up to layer3, of stride 16."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, (count, width) in enumerate(
            ((3, 64), (4, 128), (6, 256)), start=1
        ):
            blocks = []
            for block in range(count):
                stride = 2 if stage > 1 and block == 0 else 1
                blocks.append(_Bottleneck(channels, width, stride))
                channels = 4 * width
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer3(self.layer2(self.layer1(x)))


def build(name: str, side: int) -> Embedder:
    """Makes an embedder by the name of our backbone.

    Args:
        name: dinov2_vits14, dinov2_vitb14, mobilenet_v2 or
            torchvision_resnet50.
        side: rows and columns of patches of a vision transformer.
    """
    networks = {
        "dinov2_vits14": lambda: VisionTransformer(384, 6, side),
        "dinov2_vitb14": lambda: VisionTransformer(768, 12, side),
        "mobilenet_v2": MobileNetV2,
        "torchvision_resnet50": ResNet50,
    }
    return Embedder(networks[name]()).eval()


def load(embedder: Embedder, arrays) -> None:
    """Sets all weights, by their names without dots; see `embed.arrays_of`."""
    state = embedder.network.state_dict()
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        array = torch.from_numpy(arrays[name.replace(".", "_")])
        tensor.copy_(array.reshape(tensor.shape))


def count_flops(embedder: Embedder, images: torch.Tensor) -> float:
    """Counts two for each product of convolutions, layers and attention."""
    total = 0.0

    def count(module, inputs, output):
        nonlocal total
        if isinstance(module, nn.Conv2d):
            kernel = module.weight[0].numel()
            total += 2.0 * output.numel() * kernel
        elif isinstance(module, nn.Linear):
            total += 2.0 * output.numel() * module.in_features
        elif isinstance(module, _Block):
            batch, tokens, dimension = output.shape
            total += 4.0 * batch * tokens * tokens * dimension

    hooks = [
        module.register_forward_hook(count) for module in embedder.modules()
    ]
    with torch.inference_mode():
        embedder(images)
    for hook in hooks:
        hook.remove()
    return total
