"""The map around an answer of `locate`.

If latitude and longitude of an image are known, its place on the map is that of
a Web Mercator map, in metres at the first match: north is up, and tiles of such
maps fit below it. Otherwise it is that of its UTM grid.
"""

import dataclasses

import numpy as np
import pandas as pd

from sare_tf.dataset import manifest
from sare_tf.pages import drawing
from sare_tf.search import geography
from sare_tf.search.answers import Answer, Match
from sare_tf.search.estimate import Estimate

# Ours: matches farther from the first one are not in the first view, which
# shows at least this much to each side of it.
_FAR_M, _NEAR_M = 5000, 150
# Ours: points of the database outside of the first view, at most, and how far
# around it all points are drawn, by its size.
_MOST_FAR, _AROUND = 4000, 1.0
# Ours: dots of an ellipse.
_DOTS, _DOT_RADIUS = 72, 2.5
# The equator of Web Mercator, a sphere (EPSG:3857).
_EQUATOR_M = 2 * np.pi * 6_378_137.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Area:
    """Images whose positions can be drawn on one map.

    Args:
        points: float64 [P, 2], metres east and north; of Web Mercator at the
            equator, or of a UTM grid.
        sparse: some of them, for a view of all.
    """

    points: np.ndarray
    sparse: np.ndarray


class DatabaseMap:
    """The positions of a database, drawn around answers.

    Args:
        database: N rows of a manifest.
    """

    def __init__(self, database: pd.DataFrame):
        positions = manifest.coordinates(database)
        degrees = geography.degrees_of_images(database)
        has_degrees = np.isfinite(degrees).all(axis=1)
        self._areas = {"world": _area(_mercator(degrees[has_degrees]))}
        has_metres = np.isfinite(positions).all(axis=1) & ~has_degrees
        grids = manifest.grids(database)
        for grid in pd.unique(grids[has_metres]):
            points = positions[has_metres & (grids == grid)]
            self._areas[f"grid {grid}"] = _area(points)

    def around(self, answer: Answer) -> drawing.PointMap | None:
        """Draws the database around the first match, and the matches.

        Dots enclose where the photograph was taken, with 68 and with 95 %.

        Args:
            answer: the answer to a photograph.

        Returns:
            The map. None if the first match has no position.
        """
        first = answer.matches[0]
        if first.utm_east_m is None:
            return None
        name, scale = _area_of(first), 1.0
        if first.latitude is not None:
            scale = float(np.cos(np.radians(first.latitude)))
        on_map = [
            (number, match, scale * _point(match))
            for number, match in enumerate(answer.matches, 1)
            if _area_of(match) == name
        ]
        window = _window(np.array([point for *_, point in on_map]))
        area = self._areas[name]
        return drawing.draw_map(
            [
                _database(area, scale, window),
                *_estimated(answer.position, name, scale),
            ],
            window,
            title="Map of the database around the first match; numbers are "
            "matches",
            marks=[_mark(*one) for one in on_map],
            whole=drawing.corners(scale * area.sparse),
            world_per_m=1 / (scale * _EQUATOR_M)
            if first.latitude is not None
            else None,
        )


def _mercator(degrees: np.ndarray) -> np.ndarray:
    """From latitude and longitude [..., 2] to metres at the equator."""
    latitude, longitude = np.moveaxis(np.radians(degrees), -1, 0)
    turns = np.stack([longitude, np.arcsinh(np.tan(latitude))], -1)
    # The left upper corner of tiles is at 180 degrees west.
    return (turns + [np.pi, -np.pi]) * _EQUATOR_M / (2 * np.pi)


def _area(points: np.ndarray) -> _Area:
    sparse = points
    if len(points):
        sparse = drawing.thin(points, 1.0, _MOST_FAR)
    return _Area(points=points, sparse=sparse)


def _estimated(
    position: Estimate | None, area: str, scale: float
) -> list[drawing.Layer]:
    """The estimated position and its ellipses, if they lie in this area."""
    if position is None or _area_of(position) != area:
        return []
    here = np.array([position.utm_east_m, position.utm_north_m])
    turn = np.linspace(0, 2 * np.pi, _DOTS, endpoint=False)
    layers = []
    for one in position.ellipses:
        azimuth = np.radians(one.azimuth_deg)
        along = np.array([np.sin(azimuth), np.cos(azimuth)])
        across = np.array([along[1], -along[0]])
        points = (
            here
            + one.major_m * np.cos(turn)[:, None] * along
            + one.minor_m * np.sin(turn)[:, None] * across
        )
        if position.latitude is not None:
            points = _mercator(geography.degrees_of(points, position.utm_zone))
        layers.append(
            drawing.Layer(
                kind="ellipse",
                name=f"{one.share} %",
                points=scale * points,
                radius=_DOT_RADIUS,
            )
        )
    layers.append(
        drawing.Layer(
            kind="estimate",
            name="position",
            points=scale * _point(position)[None],
            radius=drawing.DATABASE_RADIUS,
        )
    )
    return layers


def _area_of(match: Match | Estimate) -> str | None:
    if match.latitude is not None:
        return "world"
    if match.utm_east_m is not None:
        return f"grid {manifest.grid(match.utm_zone)}"
    return None


def _point(match: Match | Estimate) -> np.ndarray:
    if match.latitude is not None:
        return _mercator(np.array([match.latitude, match.longitude]))
    return np.array([match.utm_east_m, match.utm_north_m])


def _window(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first view: the first point, and those near it."""
    is_near = np.linalg.norm(points - points[0], axis=1) <= _FAR_M
    least = points[0] + np.array([[-1, -1], [1, 1]]) * _NEAR_M
    return drawing.corners(np.concatenate([points[is_near], least]))


def _database(
    area: _Area, scale: float, window: tuple[np.ndarray, np.ndarray]
) -> drawing.Layer:
    """All points around the first view, and few of the others."""
    low, high = window
    margin = _AROUND * (high - low)
    low, high = low - margin, high + margin

    def is_inside(points: np.ndarray) -> np.ndarray:
        return ((points >= low) & (points <= high)).all(axis=1)

    points, sparse = scale * area.points, scale * area.sparse
    near = points[is_inside(points)]
    if len(near):
        near = drawing.thin(near, 0.1, drawing.MOST_POINTS - _MOST_FAR)
    return drawing.Layer(
        kind="database",
        name="database",
        points=np.concatenate([near, sparse[~is_inside(sparse)]]),
        radius=drawing.DATABASE_RADIUS,
    )


def _mark(number: int, match: Match, point: np.ndarray) -> drawing.Mark:
    place = match.place_id or match.image_id.rpartition("/")[2]
    return drawing.Mark(
        kind="right" if match.same_place else "other",
        label=str(number),
        point=point,
        name=f"Match {number}: {place}, d² {match.squared_distance:.3f}",
    )
