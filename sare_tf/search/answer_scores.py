"""Scores of answers: how sure they are by each of `score_model.SCORES`.

Axis letters: Q photographs, k images of each.
"""

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np

from sare_tf.local_features.combination import Combination
from sare_tf.search import confidence
from sare_tf.search.confidence import Places
from sare_tf.search.placing import Placed, PositionMap


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """The images that were found for photographs, the best first.

    Args:
        rows: int64 [Q, k], rows of the database; -1 for none.
        squared_distances: [Q, k], infinite for none.
        values: [Q, k], what orders them, the least first; the squared
            distances unless they were re-ranked.
        inliers: int [Q, k], 0 where not verified; None without re-ranking.
    """

    rows: np.ndarray
    squared_distances: np.ndarray
    values: np.ndarray
    inliers: np.ndarray | None = None

    @classmethod
    def retrieved(cls, rows: np.ndarray, squared_distances: np.ndarray) -> Self:
        """Makes what retrieval found, [Q, k] each, nearest first."""
        return cls(
            rows=rows,
            squared_distances=squared_distances,
            values=squared_distances,
        )

    def without(self, taken: np.ndarray) -> Self:
        """Returns retrieved images without some, [Q, k] as before.

        Args:
            taken: bool [Q, k], the images that are taken out: -1 and infinity
                stand for them at the end.
        """
        order = np.argsort(taken, axis=1, kind="stable")
        is_taken = np.take_along_axis(taken, order, axis=1)
        squared = np.take_along_axis(self.squared_distances, order, axis=1)
        rows = np.take_along_axis(self.rows, order, axis=1)
        return type(self).retrieved(
            np.where(is_taken, -1, rows), np.where(is_taken, np.inf, squared)
        )

    def reranked(self, combination: Combination, inliers: np.ndarray) -> Self:
        """Returns retrieved images in a new order.

        Args:
            combination: makes the order.
            inliers: int [Q, T] of the first T images.
        """
        top = inliers.shape[1]
        first = self.squared_distances[:, :top]
        rest = np.zeros_like(inliers[:, :0], shape=self.rows[:, top:].shape)
        order = combination.order(first, inliers)

        def ordered(values: np.ndarray, others: np.ndarray) -> np.ndarray:
            return np.concatenate(
                [np.take_along_axis(values, order, axis=1), others], axis=1
            )

        squared = self.squared_distances
        return type(self)(
            rows=ordered(self.rows[:, :top], self.rows[:, top:]),
            squared_distances=ordered(first, squared[:, top:]),
            values=ordered(
                combination.values(first, inliers), squared[:, top:]
            ),
            inliers=ordered(inliers, rest),
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Returns what was found for photographs after each other.

        Args:
            parts: at least one, all re-ranked or none.
        """
        return cls(
            **{
                field.name: None
                if getattr(parts[0], field.name) is None
                else np.concatenate([getattr(one, field.name) for one in parts])
                for field in dataclasses.fields(cls)
            }
        )

    def take(self, queries: np.ndarray | Sequence[int]) -> Self:
        """Returns what was found for some photographs, int or bool [P]."""
        return dataclasses.replace(
            self,
            rows=self.rows[queries],
            squared_distances=self.squared_distances[queries],
            values=self.values[queries],
            inliers=None if self.inliers is None else self.inliers[queries],
        )


class Scorer:
    """The scores and positions of answers from one database.

    Args:
        places: of the database.
        positions: likewise.
        temperature: of weights, see `point_estimates.weights_of`.
    """

    def __init__(
        self,
        places: Places,
        positions: PositionMap,
        temperature: float | None,
    ):
        self._places = places
        self._positions = positions
        self._temperature = temperature

    def place(self, found: Found) -> Placed:
        """Returns the estimated positions of photographs."""
        return self._positions.place(
            found.rows, found.values, self._temperature
        )

    def __call__(
        self, found: Found, *, count: int | np.ndarray
    ) -> dict[str, np.ndarray]:
        """Returns the scores of answers, by name.

        Args:
            found: the images that were found; one at least of each photograph.
            count: images of the database, or int [Q], for each photograph.

        Returns:
            float64 [Q] each, the higher the surer; NaN where unknown.
            `inliers` only where images were verified.
        """
        near = slice(confidence.DEPTH)
        rows, squared = found.rows[:, near], found.squared_distances[:, near]
        first = np.maximum(squared[:, 0].astype(np.float64), 0)
        scores = {
            "margin": confidence.of_neighbours(
                squared, self._places.same_as_first(rows), count=count
            ),
            "distance": -np.sqrt(first),
            "spread": -np.log1p(
                self._positions.spread_m(
                    found.rows, found.values, self._temperature
                )
            ),
        }
        if found.inliers is not None:
            inliers = found.inliers[:, 0].astype(np.float64)
            scores["inliers"] = np.log1p(inliers)
        return scores
