"""VGG16, NetVLAD and SARE in plain PyTorch, to compare ours with.

They follow the PyTorch ports of this field: convolutions of 3 x 3 up to conv5_3
without its ReLU, trained from conv5_1 on; NetVLAD by matrix products, in
float32; SARE-Joint with a Gaussian kernel. Weights come from a Keras embedder.
Images are uint8 [B, H, W, 3].
"""

import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

# Output channels of the convolutions of each block; pooling stands between.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512,) * 3)
_FROZEN_BLOCKS = 4
# Mean pixel of keras.applications, mode caffe: blue, green, red.
_MEAN = (103.939, 116.779, 123.68)
_EPSILON = 1e-12


class Reference(nn.Module):
    """A network: uint8 [B, H, W, 3] to descriptors [B, K * C] of unit length.

    Args:
        weights: values of the Keras weights by their names, such as
            "block1_conv1/kernel" or "centres".
    """

    def __init__(self, weights: dict[str, np.ndarray]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None])
        layers, channels = [], 3
        for block, widths in enumerate(BLOCKS, start=1):
            for number, width in enumerate(widths, start=1):
                layer = nn.Conv2d(channels, width, 3, padding=1)
                name = f"block{block}_conv{number}"
                kernel = weights[f"{name}/kernel"].transpose(3, 2, 0, 1).copy()
                layer.weight.data = torch.from_numpy(kernel)
                layer.bias.data = torch.from_numpy(weights[f"{name}/bias"])
                layer.requires_grad_(block > _FROZEN_BLOCKS)
                layers += [layer, nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-2])  # conv5_3 is the last
        self.assignment = nn.Parameter(torch.from_numpy(weights["assignment"]))
        self.centres = nn.Parameter(torch.from_numpy(weights["centres"]))

    def forward(self, images):
        x = images.permute(0, 3, 1, 2).flip(1).float() - self.mean
        x = self.features(x)
        with torch.autocast(x.device.type, enabled=False):
            return self._netvlad(x.float())

    def _netvlad(self, maps):
        x = functional.normalize(maps.flatten(2), dim=1, eps=_EPSILON)
        weights = (self.assignment.T @ x).softmax(dim=1)  # [B, K, L]
        sums = weights @ x.transpose(1, 2)  # [B, K, C]
        residuals = sums - weights.sum(2)[..., None] * self.centres
        residuals = functional.normalize(residuals, dim=2, eps=_EPSILON)
        return functional.normalize(residuals.flatten(1), eps=_EPSILON)


def sare_joint(descriptors: torch.Tensor) -> torch.Tensor:
    """Computes SARE of tuples, [B, T, D] -> [], the mean over tuples."""
    query, others = descriptors[:, :1], descriptors[:, 1:]
    distances = (query - others).square().sum(-1)  # [B, T - 1]
    return -functional.log_softmax(-distances, dim=1)[:, 0].mean()


def convolution_flops(height: int, width: int, *, trained: bool) -> float:
    """Counts the arithmetic of all convolutions, two for each product.

    Args:
        height: rows of an image.
        width: columns of an image.
        trained: whether to count gradients: by the weights of the last block,
            and by the inputs of its layers except the first.
    """
    flops, channels = 0.0, 3
    for block, widths in enumerate(BLOCKS):
        pixels = (height >> block) * (width >> block)
        for number, count in enumerate(widths):
            forward = 2.0 * 9 * channels * count * pixels
            passes = 1
            if trained and block >= _FROZEN_BLOCKS:
                passes = 2 if number == 0 else 3
            flops += passes * forward
            channels = count
    return flops


def weights_of(embedder) -> dict[str, np.ndarray]:
    """Returns weights of an embedder of VGG16 and NetVLAD for `Reference`."""
    weights = {}
    for layer in embedder.get_layer("backbone").layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            weights[f"{layer.name}/kernel"] = kernel
            weights[f"{layer.name}/bias"] = bias
    weights["assignment"], weights["centres"] = embedder.get_layer(
        "netvlad"
    ).get_weights()
    return weights


def matrix_product(device: str, dtype: torch.dtype):
    """Returns a function that makes a large matrix product, and its flops."""
    size = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in "ab")

    def multiply():
        a @ b
        synchronise(device)

    return multiply, 2.0 * size**3


def synchronise(device: str) -> None:
    """Waits until the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def by_turns(
    calls: dict[str, Callable[[], object]], repeats: int
) -> dict[str, tuple[float, float]]:
    """Returns median seconds of each call, by the clock and of all cores.

    The calls take turns. The first turn warms up.
    """
    seconds = {name: [] for name in calls}
    for turn, (name, call) in itertools.product(
        range(repeats + 1), calls.items()
    ):
        begin, begin_cores = time.perf_counter(), time.process_time()
        call()
        if turn:
            seconds[name].append(
                (
                    time.perf_counter() - begin,
                    time.process_time() - begin_cores,
                )
            )
    return {
        name: tuple(map(statistics.median, zip(*turns, strict=True)))
        for name, turns in seconds.items()
    }


def compare(
    calls: dict[str, Callable[[], object]],
    *,
    repeats: int,
    images: int,
    flops: float,
    device: str,
    dtype: torch.dtype,
) -> None:
    """Prints medians of calls, compared with the fastest of PyTorch.

    Args:
        calls: functions by the names of their rows.
        repeats: times that each is called.
        images: images of a call.
        flops: arithmetic of the convolutions of a call.
        device: device of PyTorch.
        dtype: type of products.
    """
    multiply, of_product = matrix_product(device, dtype)
    medians = by_turns({**calls, "product": multiply}, repeats)
    rate = of_product / medians.pop("product")[0]
    best, best_cores = (
        min(s[kind] for name, s in medians.items() if name[:7] == "PyTorch")
        for kind in (0, 1)
    )
    print(
        "| | images/s | times PyTorch at its best | core ms per image | times "
        "PyTorch by core time | of the matrix rate |\n"
        "|---|---:|---:|---:|---:|---:|"
    )
    for name, (seconds, core_s) in medians.items():
        print(
            f"| {name} | {images / seconds:.1f} | {best / seconds:.2f} "
            f"| {1000 * core_s / images:.1f} | {best_cores / core_s:.2f} "
            f"| {flops / seconds / rate:.2f} |"
        )
