"""Weights and images for published networks, without the networks.

The weights depend on the name and the shape of an array only, so that PyTorch
and this package can make the same ones. tests/pytorch/published.py computes
what PyTorch makes of them.
"""

import re

import numpy as np
import toy_torchvision

# Name of an array -> mean and deviation; all others are those of torchvision.
_KINDS = (
    (r"(cls_token|pos_embed|register_tokens|queries)$", 0.0, 1.0),
    (r"learnable_aggregation_tokens$", 0.0, 1.0),
    (r"mask_token$", 9.0, 0.0),
    (r"gamma$", 0.5, 0.2),
    (r"dust_bin$", 0.8, 0.0),
    (r"aggregation\.1\.p$", 2.6, 0.0),
    (r"centres$", 0.0, 0.3),
    (r"aggregation\.conv\.weight$", 0.0, 3.0),
    (r"in_proj_bias$", 0.0, 0.2),
)


def array(name, shape):
    """Values of an array of a state_dict, float32."""
    for pattern, mean, deviation in _KINDS:
        if re.search(pattern, name):
            seed = int.from_bytes(name.encode()[-8:], "little")
            rng = np.random.default_rng(seed)
            values = rng.standard_normal(shape, np.float32)
            return np.float32(mean) + np.float32(deviation) * values
    return toy_torchvision.array(name, shape)


def pictures(height, width):
    """Two images of coarse patches, uint8, [2, height, width, 3]."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(
        0, 256, (2, height // 7 + 1, width // 7 + 1, 3), np.uint8
    )
    fine = coarse.repeat(7, axis=1).repeat(7, axis=2)
    return fine[:, :height, :width]
