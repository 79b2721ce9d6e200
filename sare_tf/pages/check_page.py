"""The page of a check: one HTML file that needs nothing else."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sare_tf.dataset import manifest
from sare_tf.pages import evaluation_page
from sare_tf.runtime import atomic_files

# Regions with a map of their own: the largest, and of them not those with less
# than this share of the images of the first.
_MAPS, _SMALLEST = 4, 0.01
# One point of each split and role for all images in so small a part of a map.
_CELLS = 300
# A map with more points than this holds them as pixels.
_DRAWN_POINTS = 3000
_COLOURS = {"train": "#1f6feb", "val": "#c26a00", "test": "#8a5cd6"}
_DATABASE_SIZE, _QUERY_SIZE = 26, 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A sample place.

    Args:
        split: its split.
        pictures: a query, then some of its positives.
    """

    split: str
    pictures: Sequence[evaluation_page.Picture]


def write(
    path: str | Path,
    *,
    summary: dict[str, Any],
    table: pd.DataFrame,
    regions: np.ndarray,
    cases: Sequence[Case],
) -> None:
    """Writes the page.

    Args:
        path: the HTML file.
        summary: content of check.json.
        table: the manifest, B rows.
        regions: int64 [B], the region of each image, -1 without a position.
        cases: sample places.
    """
    page = evaluation_page.environment().get_template("check.html")
    atomic_files.write_text(
        path,
        page.render(
            summary=summary,
            maps=_maps(table, regions),
            regions=int(regions.max(initial=-1)) + 1,
            cases=cases,
        ),
    )


def _maps(table: pd.DataFrame, regions: np.ndarray) -> list[dict[str, Any]]:
    """A map of each of the largest regions: its name and its drawing."""
    located = np.flatnonzero(regions >= 0)
    counts = np.bincount(regions[located])
    order = np.argsort(-counts, kind="stable")[:_MAPS]
    maps = []
    for region in order:
        if counts[region] < _SMALLEST * counts[order[0]]:
            break
        part = table.iloc[np.flatnonzero(regions == region)]
        zone = part["utm_zone"].iat[0]
        images = "image" if len(part) == 1 else "images"
        name = f"{len(part):,} {images}" + (f", zone {zone}" if zone else "")
        maps.append({"name": name, "drawing": _map(part)})
    return maps


def _map(part: pd.DataFrame) -> str:
    """Where the images of a region were taken, as a data URL."""
    points = part[["utm_east_m", "utm_north_m"]].to_numpy(np.float64)
    low, high = evaluation_page.frame(points)
    cell = (high - low)[0] / _CELLS
    groups = []
    for role, size in (("database", _DATABASE_SIZE), ("query", _QUERY_SIZE)):
        for split in manifest.SPLITS:
            chosen = (part["split"] == split) & (part["role"] == role)
            of_group = points[chosen.to_numpy()]
            _, kept = np.unique(
                (of_group - low) // cell, axis=0, return_index=True
            )
            if len(kept):
                groups.append((split, role, of_group[np.sort(kept)], size))
    pixels = sum(len(group[2]) for group in groups) > _DRAWN_POINTS

    def draw(axes: Axes) -> None:
        for split, role, points, size in groups:
            is_query = role == "query"
            axes.scatter(
                *(points - low).T,
                s=size if len(points) < 500 else size / 4,
                c=_COLOURS[split],
                alpha=1.0 if is_query else 0.35,
                edgecolors="white" if is_query else "none",
                linewidths=0.4 if is_query and len(points) < 500 else 0,
                label=f"{split} {role}",
                rasterized=pixels,
                zorder=3,
            )
        evaluation_page.finish_map(axes, high - low)

    return evaluation_page.drawing(draw, height=5.0)
