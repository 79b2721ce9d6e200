"""Confidence in the first neighbour of a query.

With d the distance (not squared) of the nearest image and e that of the nearest
image of another place, the confidence is 1 - d / e: 0 if another place is as
near, 1 if the photograph is itself in the database. It orders answers. It is
not the probability that an answer is right, which depends on the model, the
database and the photographs: `evaluate --calibrate` measures that on queries
whose places are known (`search.calibration`). Axis letters: Q queries, N
database, k neighbours.
"""

import numpy as np
import pandas as pd

from sare_tf.dataset import manifest

# Ours: neighbours among which the nearest image of another place is sought.
DEPTH = 50


class Places:
    """The places of a database: which of its images show the same one.

    Args:
        database: N rows of a manifest.
        radius_m: images at most this far apart show the same place, and so do
            images of the same place_id.

    Attributes:
        positions: float64 [N, 2], metres east and north, NaN where unknown.
        grids: object [N], as of `manifest.grids`.
    """

    def __init__(self, database: pd.DataFrame, *, radius_m: float):
        self._radius_m = radius_m
        self.positions = manifest.coordinates(database)
        self.grids = manifest.grids(database)
        self._place_ids = database["place_id"].to_numpy(object)

    def same_as_first(self, rows: np.ndarray) -> np.ndarray:
        """Marks the neighbours that show the place of the first one.

        Args:
            rows: int64 [Q, k] rows of the database; -1, for no neighbour,
                counts as the same place.

        Returns:
            bool [Q, k].
        """
        first = rows[:, :1]
        metres = np.linalg.norm(
            self.positions[rows] - self.positions[first], axis=2
        )
        near = metres <= self._radius_m
        near &= self.grids[rows] == self.grids[first]
        place_id = self._place_ids[first]
        named = (self._place_ids[rows] == place_id) & (place_id != "")
        return near | named | (rows == first) | (rows < 0)


def of_neighbours(
    squared_distances: np.ndarray,
    same_place: np.ndarray,
    *,
    count: int | np.ndarray,
) -> np.ndarray:
    """Returns the confidence in the first neighbour of every query.

    If all neighbours show the same place, the last one stands for the nearest
    image of another place, which is at least as far: the value is then a lower
    bound.

    Args:
        squared_distances: [Q, k], nearest first; infinite for no neighbour.
        same_place: bool [Q, k] of `Places.same_as_first`.
        count: images of the database, or int [Q].

    Returns:
        float64 [Q], from 0 to 1; NaN if the whole database is among the
        neighbours and shows one place.
    """
    squared = np.asarray(squared_distances, np.float64)
    elsewhere = np.where(same_place, np.inf, squared).min(axis=1)
    there = np.isfinite(squared)
    last = np.where(there, squared, 0).max(axis=1)
    unknown = np.where(there.sum(axis=1) == count, np.nan, last)
    other = np.where(np.isfinite(elsewhere), elsewhere, unknown)
    # 0 / 0: images of two places equal the query, so another is as near.
    share = np.divide(
        squared[:, 0], other, out=np.ones_like(other), where=other != 0
    )
    return 1 - np.sqrt(share)
