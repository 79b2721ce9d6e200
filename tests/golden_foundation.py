"""What the original PyTorch code computes, with random weights.

The files are no part of the repository; tests that need them are skipped where
they are absent.
"""

import numpy as np
import pytest
from paths import SHARED

FOLDER = SHARED / "data" / "golden_foundation"


def read(name):
    """Arrays of a file, and its state_dict apart."""
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with np.load(path) as file:
        arrays = dict(file)
    state = {
        key.removeprefix("sd/"): arrays.pop(key)
        for key in list(arrays)
        if key.startswith("sd/")
    }
    return arrays, state


def pictures(height, width):
    """The images that the DINOv2 networks were given, [1, H, W, 3]."""
    images = np.random.RandomState(5).randn(1, 3, height, width)
    return np.float32(images).transpose(0, 2, 3, 1)
