"""How far the first image found stands out from those of other places.

With d the distance (not squared) of the nearest image and e that of the nearest
image of another place, the confidence is 1 - d / e: 0 where another place is as
near, 1 where a photograph is an image of the database. It orders answers. It is
no probability that one is right: that depends on the model, the database and
the photographs asked for, and `evaluate` measures it on queries whose answers
are known. Axis letters: Q queries, k neighbours.
"""

import numpy as np
import pandas as pd

from sare_tf.dataset import manifest

# Neighbours among which the nearest image of another place is looked for.
DEPTH = 50


class Places:
    """Which images of a database show one place.

    Args:
        database: rows of a manifest.
        radius_m: images at most so far apart show one place, as do those with
            one place_id.

    Attributes:
        positions: float64 [N, 2], metres east and north, NaN where unknown.
        grids: object [N], as of `manifest.grids`.
    """

    def __init__(self, database: pd.DataFrame, *, radius_m: float):
        self._radius_m = radius_m
        columns = ["utm_east_m", "utm_north_m"]
        self.positions = database[columns].to_numpy(np.float64)
        self.grids = manifest.grids(database)
        self._place_ids = database["place_id"].to_numpy(object)

    def same_as_first(self, found: np.ndarray) -> np.ndarray:
        """Whether neighbours show the place of the first one, bool [Q, k].

        Args:
            found: int64 [Q, k] rows of the database; -1, where there is none,
                is no other place.
        """
        first = found[:, :1]
        metres = np.linalg.norm(
            self.positions[found] - self.positions[first], axis=2
        )
        near = metres <= self._radius_m
        near &= self.grids[found] == self.grids[first]
        place_id = self._place_ids[first]
        named = (self._place_ids[found] == place_id) & (place_id != "")
        return near | named | (found == first) | (found < 0)


def of_neighbours(
    squared_distances: np.ndarray, same_place: np.ndarray, *, count: int
) -> np.ndarray:
    """The confidence in the first neighbour of every query.

    Where all neighbours show one place, the last of them stands for the nearest
    image of another, which is at least as far: the value is a lower bound.

    Args:
        squared_distances: [Q, k], nearest first; infinite where there is none.
        same_place: bool [Q, k] of `Places.same_as_first`.
        count: images of the database.

    Returns:
        float64 [Q], from 0 to 1; NaN where the whole database is among the
        neighbours and shows one place.
    """
    squared = np.asarray(squared_distances, np.float64)
    elsewhere = np.where(same_place, np.inf, squared).min(axis=1)
    there = np.isfinite(squared)
    last = np.where(there, squared, 0).max(axis=1)
    unknown = np.where(there.sum(axis=1) == count, np.nan, last)
    other = np.where(np.isfinite(elsewhere), elsewhere, unknown)
    # Two images that are the query itself: another place is as near.
    share = np.divide(
        squared[:, 0], other, out=np.ones_like(other), where=other != 0
    )
    return 1 - np.sqrt(share)
