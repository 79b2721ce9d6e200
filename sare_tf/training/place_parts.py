"""The parts of a batch of places: of which images, and how they are sampled.

A batch has one part for each folder of records; with EigenPlaces two, a lateral
and a frontal one. The loss is computed for each part by itself, and the losses
are added.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from absl import logging

from sare_tf.records.records import Records
from sare_tf.training import cliques, place_batches, place_classes
from sare_tf.training import place_samplers as samplers
from sare_tf.training.options import TrainingOptions
from sare_tf.training.place_classes import Classes, Grid

_SAMPLERS = {
    "random": samplers.random,
    "regions": samplers.regions,
    "similar": samplers.similar,
    "cliques": cliques.cliques,
    "cosplace": samplers.groups,
    "eigenplaces": samplers.groups,
}


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of every batch.

    Attributes:
        name: unique among the parts.
        sampler: name of the sampler.
        places_per_batch: P, of this part.
        first_row: where its rows begin among those of all folders.
        rows: N rows of the train split of its folder, also of images that
            cannot be read: so a place keeps its number.
        classes: places of the images, in one group unless the sampler has
            groups.
        regions: str [N], names of the images' regions; None: one region.
    """

    name: str
    sampler: str
    places_per_batch: int
    first_row: int
    rows: pd.DataFrame
    classes: Classes
    regions: np.ndarray | None

    @property
    def sample(self) -> samplers.Sampler:
        """The sampler."""
        return _SAMPLERS[self.sampler]


def train_rows(folders: Sequence[Records]) -> list[pd.DataFrame]:
    """Returns the rows of the train split of each folder.

    Several folders have whole paths as `shard`, which any of them reads.

    Raises:
        ValueError: a folder has no train split.
    """
    tables = []
    for records in folders:
        rows = records.manifest
        rows = rows[rows["split"] == "train"]
        if not len(rows):
            raise ValueError(
                "Expected a train split in each folder of records. Received: "
                f"{str(records.path)!r}, whose images are all of other splits."
            )
        if len(folders) > 1:
            root = records.path.absolute()
            rows = rows.assign(shard=[str(root / s) for s in rows["shard"]])
        tables.append(rows)
    return tables


def of_folders(
    folders: Sequence[Records], options: TrainingOptions
) -> tuple[Part, ...]:
    """Makes the parts of a batch.

    Args:
        folders: opened records, one for each sampler of the options.
        options: options of training.

    Raises:
        ValueError: data that a sampler cannot draw from.
    """
    tables = train_rows(folders)
    _log_sizes(folders, tables, options)
    parts, first_row = [], 0
    names = folder_names([records.path for records in folders])
    for name, rows, sampler, places in zip(
        names,
        tables,
        options.samplers,
        options.places_of_folders(),
        strict=True,
    ):
        made = _parts_of(rows, sampler, places, options)
        for title, (classes, size) in made.items():
            # One folder is not named.
            titles = [name if len(folders) > 1 else "", title]
            parts.append(
                Part(
                    "_".join(filter(None, titles)),
                    sampler,
                    size,
                    first_row,
                    rows,
                    classes,
                    _regions(rows, classes.numbers, sampler, options),
                )
            )
        first_row += len(rows)
    return tuple(parts)


def folder_names(paths: Sequence[Path]) -> list[str]:
    """Returns a short name for each of several folders, each once.

    It is the last name of the paths in which they all differ.
    """
    names = [path.absolute().parts for path in paths]
    for level in range(1, min(map(len, names)) + 1):
        at_level = [parts[-level] for parts in names]
        if len(set(at_level)) == len(paths):
            return at_level
    return [f"{number}" for number in range(1, len(paths) + 1)]


def group_sizes(parts: Sequence[Part]) -> tuple[int, ...]:
    """Returns the number of classes of each group of all parts."""
    return sum((part.classes.group_sizes for part in parts), ())


def _parts_of(
    rows: pd.DataFrame, sampler: str, places: int, options: TrainingOptions
) -> dict[str, tuple[Classes, int]]:
    """Returns the classes and the size of each part of a folder, by title."""
    if sampler not in ("cosplace", "eigenplaces"):
        numbers = place_batches.number_places(
            rows, radius_m=options.train_positive_radius_m
        )
        return {"": (Classes(numbers, (int(numbers.max()) + 1,)), places)}
    size = places // 2 if sampler == "eigenplaces" else places
    given = options.grid_of(sampler)
    grid = Grid(
        size_m=given["size_m"],
        spacing=given["spacing"],
        images=max(given["images"], options.images_per_place),
        heading_deg=options.class_heading_deg,
        heading_spacing=options.heading_spacing,
        groups=options.class_groups,
        group_classes=size,
    )
    if sampler == "cosplace":
        return {"": (place_classes.cosplace(rows, grid), size)}
    return {
        title: (
            place_classes.eigenplaces(rows, grid, lateral=title == "lateral"),
            size,
        )
        for title in ("lateral", "frontal")
    }


def _regions(
    rows: pd.DataFrame,
    numbers: np.ndarray,
    sampler: str,
    options: TrainingOptions,
) -> np.ndarray | None:
    by = options.region_by or ("folder" if sampler == "regions" else None)
    if by is None or sampler not in ("regions", "cliques"):
        return None
    names = samplers.region_names(rows, by=by)
    samplers.check_regions(rows, numbers, names)
    return names


def _log_sizes(
    folders: Sequence[Records],
    tables: Sequence[pd.DataFrame],
    options: TrainingOptions,
) -> None:
    """Notes that folders whose images differ in shape become equal."""
    shapes = {}
    for records, rows in zip(folders, tables, strict=True):
        known = rows[(rows["width"] > 0) & (rows["height"] > 0)]
        if len(known):
            width, height = known["width"].median(), known["height"].median()
            shapes[str(records.path)] = (int(width), int(height))
    ratios = [width / height for width, height in shapes.values()]
    if ratios and max(ratios) > 1.05 * min(ratios):
        logging.warning(
            "The folders have images of different shapes, which all become "
            "%d x %d: %s.",
            options.image_width,
            options.image_height,
            ", ".join(
                f"{w} x {h} in {path}" for path, (w, h) in shapes.items()
            ),
        )
