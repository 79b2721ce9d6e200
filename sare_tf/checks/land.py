"""Land and sea, in cells of one degree.

`land.bin` has a bit for each cell of a degree, from 90 degrees south and 180
degrees west, row by row: whether any of it is land. It was made of GLOBE, the
elevation model of NOAA (public domain, 1 km), whose sea has no elevation.
"""

import functools
from importlib import resources

import numpy as np


def is_sea(degrees: np.ndarray) -> np.ndarray:
    """Marks positions in cells without any land, bool [B].

    Args:
        degrees: latitude and longitude, float [B, 2]; False where unknown.
    """
    known = np.isfinite(degrees).all(axis=1)
    rows = np.floor(np.where(known, degrees[:, 0], 0) + 90).astype(int)
    columns = np.floor(np.where(known, degrees[:, 1], 0) + 180).astype(int)
    inside = (rows >= 0) & (rows <= 180)
    cells = _land()[np.clip(rows, 0, 179), columns % 360]
    return known & inside & ~cells


@functools.cache
def _land() -> np.ndarray:
    packed = resources.files("sare_tf.checks").joinpath("land.bin").read_bytes()
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    return bits.reshape(180, 360).astype(bool)
