"""Where photographs were taken, estimated from their nearest images.

Three estimates are made of the first `TOP` images of a photograph: the position
of the nearest one; their weighted mean; and the peak of their density, where a
wrong image among them does not move it. Images weigh

    exp(-(v - v of the first one) / temperature)

with v the value that orders them, which is the squared distance of descriptors
unless they were re-ranked. The ellipse around an estimate is that of the
weighted covariance around it. How often the truth is inside is measured on
queries whose positions are known (`fit`), by which the ellipse is enlarged.

Metres are of the UTM zone of the nearest image that has a position. Images of
other zones are converted to it, and never averaged in their own coordinates.
Axis letters: Q photographs, k images of each, N database.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import pandas as pd

from sare_tf.dataset import manifest
from sare_tf.dataset.readers import utm
from sare_tf.search import geography, point_estimates
from sare_tf.search.estimate import METHODS, SHARES, Ellipse, Placing

# Images of a position, as of SUE (Zaffar et al., CVPR 2024, `num_NN`).
TOP = 10
# Ours: the least standard deviation of a position, that of a good GPS receiver.
_FLOOR_M = 5.0
# Standard errors that a gain must exceed, as usual.
_ERRORS = 2
# Ours: temperatures that are tried, in mean differences of the values of the
# first and the other images.
_TEMPERATURES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placed:
    """Estimates of the positions of photographs.

    Args:
        anchors: int64 [Q], the database row whose zone the metres are of; -1
            where no image has a position, and all else is NaN.
        points: float64 [Q, k, 2], the images, NaN where unknown.
        weights: float64 [Q, k], 0 for images without a position.
        positions: [Q, 2] of each of `METHODS`.
        headings: [Q] of each, degrees; NaN where unknown.
        spread_m: [Q], the standard deviation per axis of the images around
            their mean, which is SUE's uncertainty.
    """

    anchors: np.ndarray
    points: np.ndarray
    weights: np.ndarray
    positions: Mapping[str, np.ndarray]
    headings: Mapping[str, np.ndarray]
    spread_m: np.ndarray

    def take(self, queries: np.ndarray | Sequence[int]) -> Self:
        """Returns the estimates of some photographs, int or bool [P]."""
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
        }
        return type(self)(
            **{
                name: {key: one[queries] for key, one in value.items()}
                if isinstance(value, Mapping)
                else value[queries]
                for name, value in values.items()
            }
        )

    def covariance(self, method: str) -> np.ndarray:
        """Returns the covariance of the images around an estimate, [Q, 2, 2].

        Args:
            method: one of `METHODS`.
        """
        away = self.points - self.positions[method][:, None]
        away = np.where(self.weights[..., None] > 0, away, 0)
        spread = np.einsum("qk,qki,qkj->qij", self.weights, away, away)
        return spread + _FLOOR_M**2 * np.eye(2)

    def squared_radius(self, method: str, truth: np.ndarray) -> np.ndarray:
        """Returns how far the truth is from estimates, in their covariance.

        Args:
            method: one of `METHODS`.
            truth: float64 [Q, 2], metres in the zone of the anchors.

        Returns:
            float64 [Q], squared Mahalanobis distances; NaN where unknown.
        """
        off = truth - self.positions[method]
        inverse = np.linalg.inv(self.covariance(method))
        return np.einsum("qi,qij,qj->q", off, inverse, off)


class PositionMap:
    """The positions of a database, and estimates made of them.

    Args:
        database: N rows of a manifest.
        radius_m: images at most this far apart show the same place. Half of it
            is the bandwidth of the density, and headings are those of images
            at most this far from an estimate.
    """

    def __init__(self, database: pd.DataFrame, *, radius_m: float):
        self._metres = manifest.coordinates(database)
        self._grids = manifest.grids(database)
        self._zones = database["utm_zone"].to_numpy(object)
        self._headings = database["heading_deg"].to_numpy(np.float64)
        self._radius_m = max(radius_m, 1.0)

    def zone(self, row: int) -> str:
        """Returns the UTM zone of an image."""
        return self._zones[row]

    def place(
        self, rows: np.ndarray, values: np.ndarray, temperature: float | None
    ) -> Placed:
        """Estimates positions.

        Args:
            rows: int64 [Q, k'], database rows, the best first; -1 for none.
            values: [Q, k'], what orders them, the least first.
            temperature: of the weights; None: see `point_estimates.weights_of`.
        """
        rows = rows[:, :TOP]
        anchors, points, weights = self._weighted(rows, values, temperature)
        positions = {
            "nearest": _first(points),
            "mean": point_estimates.mean(points, weights),
            "peak": point_estimates.peak(points, weights, self._radius_m / 2),
        }
        return Placed(
            anchors=anchors,
            points=points,
            weights=weights,
            positions=positions,
            headings={
                name: self._heading(rows, points, weights, position)
                for name, position in positions.items()
            },
            spread_m=point_estimates.spread(points, weights),
        )

    def spread_m(
        self, rows: np.ndarray, values: np.ndarray, temperature: float | None
    ) -> np.ndarray:
        """Returns how far the images lie apart, float64 [Q], as `place` does.

        Args:
            rows: as of `place`.
            values: as of `place`.
            temperature: as of `place`.
        """
        _, points, weights = self._weighted(rows, values, temperature)
        return point_estimates.spread(points, weights)

    def _weighted(
        self, rows: np.ndarray, values: np.ndarray, temperature: float | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns anchors [Q], the first images' points, and their weights."""
        anchors, points = self._around(rows[:, :TOP])
        weights = point_estimates.weights_of(
            values[:, :TOP], np.isfinite(points[..., 0]), temperature
        )
        return anchors, points, weights

    def in_zone_of(
        self, anchors: np.ndarray, taken: pd.DataFrame
    ) -> np.ndarray:
        """Returns where photographs were taken, in the zones of anchors.

        Args:
            anchors: int64 [Q] of `Placed`.
            taken: Q rows of a manifest.

        Returns:
            float64 [Q, 2], NaN where unknown or in no common grid.
        """
        given = manifest.coordinates(taken)
        metres = given.copy()
        grids = manifest.grids(taken)
        zones = taken["utm_zone"].to_numpy(object)
        there = np.where(anchors >= 0, self._grids[anchors], None)
        for number in np.flatnonzero(grids != there):
            zone = self._zones[anchors[number]]
            metres[number] = np.nan
            if anchors[number] >= 0:
                metres[number] = _converted(
                    given[[number]], zones[number], zone
                )[0]
        return metres

    def _around(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Anchors [Q] and the images in their zones, [Q, k, 2]."""
        points = np.where((rows >= 0)[..., None], self._metres[rows], np.nan)
        known = np.isfinite(points).all(axis=2)
        points[~known] = np.nan
        every = np.arange(len(rows))
        anchors = np.where(
            known.any(axis=1), rows[every, known.argmax(axis=1)], -1
        )
        own = self._grids[anchors][:, None]
        for query, column in np.argwhere(known & (self._grids[rows] != own)):
            points[query, column] = _converted(
                points[query, column][None],
                self._zones[rows[query, column]],
                self._zones[anchors[query]],
            )[0]
        return anchors, points

    def _heading(
        self,
        rows: np.ndarray,
        points: np.ndarray,
        weights: np.ndarray,
        position: np.ndarray,
    ) -> np.ndarray:
        headings = np.where(rows >= 0, self._headings[rows], np.nan)
        far = np.linalg.norm(points - position[:, None], axis=2)
        return point_estimates.circular_mean(
            headings, np.where(far <= self._radius_m, weights, 0)
        )


def ellipses(covariance: np.ndarray, placing: Placing) -> list[Ellipse]:
    """Returns the ellipses of an estimate, one for each share.

    Args:
        covariance: [2, 2] of metres east and north.
        placing: their sizes.
    """
    variances, axes = np.linalg.eigh(covariance)
    east, north = axes[:, 1]
    return [
        Ellipse(
            share=share,
            major_m=float(np.sqrt(placing.scales[share] * variances[1])),
            minor_m=float(np.sqrt(placing.scales[share] * variances[0])),
            azimuth_deg=float(np.degrees(np.arctan2(east, north)) % 180),
        )
        for share in SHARES
    ]


def fit(
    positions: PositionMap,
    rows: np.ndarray,
    values: np.ndarray,
    taken: pd.DataFrame,
) -> Placing | None:
    """Measures temperature, method and sizes of ellipses on known queries.

    The temperature is that whose means have the least median error. The method
    is the nearest image unless another one has a lower median error and is
    nearer to the truth on clearly more queries than it is farther, by more than
    twice the standard error of the difference. The size of an
    ellipse is the squared radius that the share of the queries has at most,
    with one query more counted as outside (split conformal prediction).

    Args:
        positions: of the database.
        rows: as of `PositionMap.place`.
        values: likewise.
        taken: Q rows of a manifest, the queries.

    Returns:
        None if positions are not known.
    """
    first = positions.place(rows, values, None)
    truth = positions.in_zone_of(first.anchors, taken)
    known = np.isfinite(truth).all(axis=1) & (first.anchors >= 0)
    if not known.any():
        return None
    rows, values, truth = rows[known], values[known], truth[known]
    unit = _unit(values[:, :TOP])
    tried = []
    for number, factor in enumerate(_TEMPERATURES):
        placed = positions.place(rows, values, factor * unit)
        error = _median_error(placed, "mean", truth)
        tried.append((error, number, factor * unit, placed))
    _, _, temperature, placed = min(tried, key=lambda one: one[:2])
    errors = {
        method: np.linalg.norm(placed.positions[method] - truth, axis=1)
        for method in METHODS
    }
    medians = {name: float(np.median(one)) for name, one in errors.items()}
    better = [
        name
        for name, one in errors.items()
        if name == "nearest" or _is_better(one, errors["nearest"])
    ]
    method = min(better, key=medians.get)
    return Placing(
        method=method,
        temperature=temperature,
        scales=_scales(placed.squared_radius(method, truth)),
        queries=len(truth),
        median_m=medians,
    )


def _is_better(errors: np.ndarray, others: np.ndarray) -> bool:
    """Whether errors are smaller on clearly more queries than larger."""
    smaller, larger = (errors < others).sum(), (errors > others).sum()
    return smaller - larger > _ERRORS * (smaller + larger) ** 0.5


def _scales(squared_radii: np.ndarray) -> dict[str, float]:
    ordered = np.sort(squared_radii)
    count = len(ordered)
    return {
        name: float(ordered[min(int(np.ceil((count + 1) * share)), count) - 1])
        for name, share in SHARES.items()
    }


def _median_error(placed: Placed, method: str, truth: np.ndarray) -> float:
    return float(
        np.median(np.linalg.norm(placed.positions[method] - truth, axis=1))
    )


def _first(points: np.ndarray) -> np.ndarray:
    """The first known point of each query, [Q, 2]."""
    column = np.isfinite(points).all(axis=2).argmax(axis=1)
    return points[np.arange(len(points)), column]


def _unit(values: np.ndarray) -> float:
    """The median over queries of the mean gap, or else 1."""
    known = np.isfinite(values)
    least = np.where(known, values, np.inf).min(axis=1, keepdims=True)
    above = np.where(known, values, 0) - np.where(known, least, 0)
    gaps = point_estimates.mean_gap(above, known)
    return float(np.median(gaps)) or 1.0


def _converted(metres: np.ndarray, zone: str, to_zone: str) -> np.ndarray:
    """Positions [B, 2] of one zone in another; NaN if there is no way."""
    degrees = geography.degrees_of(metres, zone)
    try:
        # Antipodes of a zone overflow: they are nowhere near.
        with np.errstate(all="ignore"):
            there = np.stack(utm.to_utm(*degrees.T, to_zone), axis=1)
    except ValueError:
        return np.full_like(metres, np.nan)
    return np.where(np.isfinite(there), there, np.nan)
