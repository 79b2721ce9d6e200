"""Weights and an image for torchvision's networks, without torchvision.

The numbers depend on the name of an array only, so that torchvision and this
package can make the same ones. tests/oracles/torchvision_values.py computes
what torchvision makes of them.
"""

import math
import zlib

import numpy as np

# Sizes that no stride divides.
HEIGHT, WIDTH = 37, 50


def array(name, shape):
    """Values of an array of a state_dict, such as a training leaves."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    kind = name.rpartition(".")[2]
    if kind == "running_var":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if kind == "weight" and len(shape) == 1:
        return rng.uniform(0.5, 1.0, shape).astype(np.float32)
    values = rng.standard_normal(shape, np.float32)
    scale = {"bias": 0.2, "running_mean": 0.2, "layer_scale": 0.5}.get(kind)
    # Of He et al., over the inputs of an output.
    return values * np.float32(scale or math.sqrt(2 / math.prod(shape[1:])))


def image():
    """uint8, [1, HEIGHT, WIDTH, 3]."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
