"""Photographs to read, and batches of them, for benchmarks."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from sare_tf import build_records
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.training import datasets
from sare_tf.training.batches import AugmentationDraws

_HEIGHT, _WIDTH = 480, 640
_TUPLES, _IMAGES_OF_TUPLE = 4, 12
_DRAWS = 22


def photographs(folder: Path, count: int) -> list[Path]:
    """Writes `count` JPEGs, four of a place; returns their paths."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
        smooth = Image.fromarray(coarse).resize((_WIDTH, _HEIGHT), 3)
        grain = rng.integers(-12, 13, (_HEIGHT, _WIDTH, 3))
        pixels = (np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)
        place = folder / "train" / "database" / f"p{number // 4:04d}"
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{number % 4}.jpg"
        Image.fromarray(pixels).save(path, quality=90)
        paths.append(path)
    return paths


def built_records(folder: Path) -> Records:
    """Builds records of the photographs in `folder / "photographs"`."""
    return Records(
        build_records.run(
            RecordOptions(
                dataset=folder / "photographs",
                records=folder / "records",
                reader="place_folders",
            )
        )
    )


def tuple_batches(records: Records, height: int, width: int) -> tf.data.Dataset:
    """Returns batches of random tuples, which have every image once."""
    order = np.random.default_rng(1).permutation(len(records.manifest))
    return datasets.tuple_dataset(
        records,
        order.reshape(-1, _IMAGES_OF_TUPLE),
        height=height,
        width=width,
        tuples_per_batch=_TUPLES,
        draws=AugmentationDraws(_DRAWS),
    )
