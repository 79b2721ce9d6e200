"""Photographs that a descriptor confuses and geometry tells apart.

A place is a texture of blocks. All textures have the same colours on average,
so that `toy_search.export`, which sees 16 pixels, ranks them nearly at random.
A query shows its place moved by some pixels, with noise.
"""

from pathlib import Path

import numpy as np
import toy_search
from PIL import Image

from sare_tf import build_records, index
from sare_tf.records.options import RecordOptions
from sare_tf.search.options import IndexOptions

PLACES = 12
HEIGHT, WIDTH = 96, 128
_MARGIN = 16


def texture(place: int) -> np.ndarray:
    """A place, with a margin that one view or another does not show."""
    rng = np.random.default_rng(place)
    size = (HEIGHT + 2 * _MARGIN, WIDTH + 2 * _MARGIN)
    coarse = rng.integers(0, 256, (size[0] // 6 + 1, size[1] // 6 + 1, 3))
    return coarse.repeat(6, 0).repeat(6, 1)[: size[0], : size[1]]


def view(place: int, number: int) -> np.ndarray:
    """A photograph of a place, uint8 [HEIGHT, WIDTH, 3]."""
    rng = np.random.default_rng((place, number))
    y, x = rng.integers(_MARGIN, 2 * _MARGIN, 2) if number else (0, 0)
    pixels = texture(place)[y : y + HEIGHT, x : x + WIDTH]
    noise = rng.normal(0, 3, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def write(folder: Path, splits=("val", "test")) -> Path:
    """Writes one database image and one query of each place of each split."""
    for number, split in enumerate(splits):
        for place in range(number * PLACES, (number + 1) * PLACES):
            for role, view_number in (("database", 0), ("queries", 1)):
                target = folder / split / role / f"place{place:03d}"
                target.mkdir(parents=True)
                pixels = Image.fromarray(view(place, view_number))
                pixels.save(target / f"{view_number}.png")
    return folder


def build(root: Path, splits=("val", "test"), **options) -> dict[str, Path]:
    """Records, an export and an index of the split test."""
    records = build_records.run(
        RecordOptions(
            dataset=write(root / "photos", splits),
            records=root / "records",
            reader="place_folders",
        )
    )
    inputs = {
        "records": records,
        "export": toy_search.export(root / "export"),
        "index": root / "index",
    }
    index.run(IndexOptions(**inputs, **options))
    return inputs
