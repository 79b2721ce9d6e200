"""The page of a check: one HTML file that needs nothing else."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sare_tf.dataset import manifest
from sare_tf.dataset.names import SPLITS
from sare_tf.pages import drawing, html
from sare_tf.runtime import atomic_files

# Ours: regions with a map of their own. These are the largest ones, without
# those that have less than this share of the images of the first.
_MAPS, _SMALLEST = 4, 0.01
# Ours: sample places of each split.
_PLACES = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A sample place.

    Args:
        split: its split.
        place: the name of the place, or else its position; empty if unknown.
        pictures: a query, then some of its positives.
    """

    split: str
    place: str
    pictures: Sequence[html.Picture]


def cases_of(
    samples: dict[str, Sequence[tuple[str, Sequence[str]]]],
    table: pd.DataFrame,
    *,
    load: Callable[[int], bytes],
    is_readable: np.ndarray,
) -> list[Case]:
    """Makes the sample places of each split.

    Args:
        samples: split -> a query's image_id, and those of some positives.
        table: the manifest, B rows.
        load: gives the bytes of the image of a row.
        is_readable: bool [B], whether the image of a row can be decoded.
    """
    names = pd.Index(table["image_id"])
    points = manifest.coordinates(table)
    cases = []
    for split, of_split in samples.items():
        of_page = []
        for query, positives in _evenly_first(of_split):
            rows = names.get_indexer([query, *positives])
            rows = rows[is_readable[rows]].tolist()
            if len(rows) < 2 or len(of_page) == _PLACES:
                continue
            metres = np.hypot(*(points[rows] - points[rows[0]]).T)
            pictures = [
                html.Picture(
                    encoded=load(row),
                    name=names[row],
                    metres=float(far) if np.isfinite(far) else None,
                )
                for row, far in zip(rows, metres, strict=True)
            ]
            place = _place(table["place_id"].iat[rows[0]], points[rows[0]])
            of_page.append(Case(split=split, place=place, pictures=pictures))
        cases.extend(of_page)
    return cases


def _evenly_first(samples: Sequence[Any]) -> list[Any]:
    """The samples, those of the page first: the first, the last, and between.

    The others stand in for samples that cannot be read.
    """
    count = min(_PLACES, len(samples))
    chosen = np.linspace(0, len(samples) - 1, count).round().astype(int)
    order = dict.fromkeys([*chosen.tolist(), *range(len(samples))])
    return [samples[number] for number in order]


def _place(place_id: str, point: np.ndarray) -> str:
    if place_id or not np.isfinite(point).all():
        return place_id
    return f"{point[0]:.0f} m E, {point[1]:.0f} m N"


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
    page = html.environment().get_template("check.html")
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
    """A map of each of the largest regions, and its name."""
    counts = np.bincount(regions[regions >= 0])
    order = np.argsort(-counts, kind="stable")[:_MAPS]
    maps = []
    for region in order:
        if counts[region] < _SMALLEST * counts[order[0]]:
            break
        rows = table.iloc[np.flatnonzero(regions == region)]
        zone = rows["utm_zone"].iat[0]
        images = "image" if len(rows) == 1 else "images"
        name = f"{len(rows):,} {images}" + (f", zone {zone}" if zone else "")
        maps.append({"name": name, "map": _map(rows, name)})
    return maps


def _map(rows: pd.DataFrame, name: str) -> drawing.PointMap:
    points = manifest.coordinates(rows)
    layers = []
    for role, shade, radius in (
        ("database", "faint", drawing.DATABASE_RADIUS),
        ("query", "", drawing.QUERY_RADIUS),
    ):
        for split in SPLITS:
            chosen = (rows["split"] == split) & (rows["role"] == role)
            layers.append(
                drawing.Layer(
                    kind=f"{split} {shade}".strip(),
                    name=f"{split} {role}",
                    points=points[chosen.to_numpy()],
                    radius=radius,
                )
            )
    return drawing.draw_map(
        layers,
        drawing.corners(points),
        title=f"Map of {name}: positions by split and role",
    )
