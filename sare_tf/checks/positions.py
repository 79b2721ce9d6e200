"""Positions of the images of a manifest, and the regions that they form."""

import dataclasses
import re

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from sare_tf.checks.finding import named
from sare_tf.dataset import manifest
from sare_tf.dataset.readers import utm

# Ours: images in touching cells of this size are of the same region.
REGION_M = 10_000.0
_ZONE = re.compile(r"\d{1,2}[C-HJ-NP-X]")


@dataclasses.dataclass(frozen=True)
class Positions:
    """Positions of the images of a manifest of B rows.

    Attributes:
        table: the manifest.
        points: float64 [B, 2], metres east and north.
        located: bool [B], whether the position is known.
        zones: object [B], UTM zones.
        has_zone: bool [B], whether the zone is one, with its latitude band.
        degrees: float64 [B, 2], latitude and longitude; NaN where unknown.
    """

    table: pd.DataFrame
    points: np.ndarray
    located: np.ndarray
    zones: np.ndarray
    has_zone: np.ndarray
    degrees: np.ndarray

    @classmethod
    def of(cls, table: pd.DataFrame) -> "Positions":
        """Takes the positions from a manifest."""
        points = manifest.coordinates(table)
        zones = table["utm_zone"].to_numpy(object)
        return cls(
            table=table,
            points=points,
            located=np.isfinite(points).all(axis=1),
            zones=zones,
            has_zone=np.array(
                [bool(_ZONE.fullmatch(zone)) for zone in zones], bool
            ),
            degrees=_degrees(table, points),
        )

    def in_metres(self, marked: np.ndarray) -> list[tuple[str, str]]:
        """image_id and position of the rows marked."""
        return named(
            self.table,
            marked,
            lambda row: "{:.1f} east, {:.1f} north".format(*self.points[row]),
        )

    def in_degrees(self, marked: np.ndarray) -> list[tuple[str, str]]:
        """image_id, latitude and longitude of the rows marked."""
        return named(
            self.table,
            marked,
            lambda row: "latitude {:.5f}, longitude {:.5f}".format(
                *self.degrees[row]
            ),
        )


def regions(table: pd.DataFrame) -> np.ndarray:
    """Numbers the regions of images.

    Images of the same zone in touching cells of 10 km are of the same region.

    Args:
        table: a manifest of B rows.

    Returns:
        int64 [B]; -1 without a position.
    """
    points, grids = manifest.coordinates(table), manifest.grids(table)
    located = np.isfinite(points).all(axis=1)
    labels = np.full(len(table), -1, np.int64)
    for grid in sorted(set(grids[located])):
        rows = np.flatnonzero(located & (grids == grid))
        cells, of_image = np.unique(
            points[rows] // REGION_M, axis=0, return_inverse=True
        )
        pairs = cKDTree(cells).query_pairs(1.5, output_type="ndarray")
        graph = coo_array(
            (np.ones(len(pairs)), pairs.T), shape=(len(cells), len(cells))
        )
        _, region = connected_components(graph, directed=False)
        labels[rows] = labels.max() + 1 + region[of_image]
    return labels


def _degrees(table: pd.DataFrame, points: np.ndarray) -> np.ndarray:
    """Latitude and longitude, float64 [B, 2]; NaN where unknown."""
    degrees = np.full(points.shape, np.nan)
    zones = table["utm_zone"].to_numpy(object)
    located = np.isfinite(points).all(axis=1)
    for zone in set(zones[located]):
        try:
            utm.parse_zone(zone)
        except ValueError:
            continue
        rows = np.flatnonzero(located & (zones == zone))
        degrees[rows] = np.stack(utm.to_degrees(*points[rows].T, zone), axis=1)
    return degrees
