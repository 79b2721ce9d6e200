"""The map around an answer of `locate`."""

import numpy as np

from sare_tf.dataset import manifest
from sare_tf.pages import drawing
from sare_tf.search.answers import Answer
from sare_tf.search.confidence import Places

# Ours: matches farther from the first one are not on its map, which shows at
# least this much to each side of it.
_FAR_M, _NEAR_M = 5000, 150


def map_of(answer: Answer, places: Places) -> drawing.PointMap | None:
    """Draws the database around the first match, and the matches near it.

    Args:
        answer: the answer to a photograph.
        places: the places of the database.

    Returns:
        The map, in metres of the UTM zone of the first match. None if that has
        no position.
    """
    first = answer.matches[0]
    if first.utm_east_m is None:
        return None
    grid = manifest.grid(first.utm_zone)
    points = np.array(
        [[match.utm_east_m, match.utm_north_m] for match in answer.matches],
        np.float64,
    )
    is_near = np.linalg.norm(points - points[0], axis=1) <= _FAR_M
    is_near &= [
        manifest.grid(match.utm_zone) == grid for match in answer.matches
    ]
    least = points[0] + np.array([[-1, -1], [1, 1]]) * _NEAR_M
    low, high = drawing.corners(np.concatenate([points[is_near], least]))
    database = drawing.Layer(
        kind="database",
        name="database",
        points=places.positions[places.grids == grid],
        radius=drawing.DATABASE_RADIUS,
    )
    marks = [
        drawing.Mark(
            kind="right" if match.same_place else "other",
            label=str(number),
            point=point,
        )
        for number, (match, point, shown) in enumerate(
            zip(answer.matches, points, is_near, strict=True), 1
        )
        if shown
    ]
    return drawing.draw_map(
        [database],
        low,
        high,
        title="Map of the database around the first match; numbers are matches",
        marks=marks,
    )
