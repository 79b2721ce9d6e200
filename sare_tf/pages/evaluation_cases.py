"""Queries that the page of an evaluation shows, and what they retrieved.

A query's margin is the squared distance of its nearest wrong image less that of
its nearest positive: above 0 if the first image is right. If all images
retrieved are positives, the last one stands for the nearest wrong image, which
is at least as far.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sare_tf.evaluation import ground_truth
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.pages.html import Picture
from sare_tf.records.records import Records

# Ours: queries on the page, and retrieved images of each.
_CASES = 48
_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A query and the images retrieved for it, nearest first.

    Args:
        query: the query.
        condition: its condition, empty if unknown.
        retrieved: its nearest database images.
        missed: its nearest positive, if none was retrieved.
    """

    query: Picture
    condition: str = ""
    retrieved: Sequence[Picture]
    missed: Picture | None = None

    @property
    def kind(self) -> str:
        """ "right" if the first image retrieved is a positive, else "wrong"."""
        first = self.retrieved[0] if self.retrieved else None
        return "right" if first and first.correct else "wrong"


def choose(results: QueryResults, *, most: int = _CASES) -> np.ndarray:
    """Chooses wrong and right queries, each evenly over their margins.

    Args:
        results: the results.
        most: queries to choose, at most.

    Returns:
        int64, numbers of queries that count and have positives; wrong ones
        first, each from the worst to the best.
    """
    distances = results.squared_distances
    wrong = np.where(results.hits, np.inf, distances).min(axis=1)
    last = np.where(np.isfinite(distances), distances, -np.inf).max(axis=1)
    margins = np.where(np.isinf(wrong), last, wrong)
    margins = margins - results.nearest_positive_distances
    order = np.argsort(margins, kind="stable")
    usable = results.truth.counted & (results.positive_counts > 0)
    order = order[usable[order]]
    is_right = results.ranks[order] == 1
    kinds = [order[~is_right], order[is_right]]
    # Half of each kind; a kind with fewer leaves the rest to the other.
    half = most // 2
    wanted = [max(half, most - len(other)) for other in reversed(kinds)]
    return np.concatenate(
        [_evenly(kind, n) for kind, n in zip(kinds, wanted, strict=True)]
    )


def make(results: QueryResults, records: Records) -> list[Case]:
    """Makes the cases of the queries of `choose`.

    Args:
        results: the results.
        records: has the images of the queries and of the database.
    """
    chosen = choose(results)
    positives = results.nearest_positives[chosen]
    shown = np.unique(np.append(results.rows[chosen, :_SHOWN], positives))
    shown = shown[shown >= 0]
    # By name: an index may have lost images of the records, or gained others.
    names = results.database["image_id"].iloc[shown]
    images = dict(zip(shown.tolist(), records.read_named(names), strict=True))
    metres = ground_truth.metres(
        results.queries.iloc[chosen], results.database, positives[:, None]
    )

    def picture(row: int, correct: bool, distance: float, metres: float):
        return Picture(
            encoded=images[row],
            name=results.database["image_id"].iloc[row],
            correct=bool(correct),
            squared_distance=float(distance),
            metres=float(metres) if np.isfinite(metres) else None,
        )

    cases = []
    encoded = records.read_images(results.queries.iloc[chosen])
    first = slice(_SHOWN)
    for query, image, positive, far in zip(
        chosen, encoded, positives, metres[:, 0], strict=True
    ):
        retrieved = zip(
            results.rows[query, first],
            results.hits[query, first],
            results.squared_distances[query, first],
            results.metres[query, first],
            strict=True,
        )
        missed = None
        if not results.hits[query, first].any():
            distance = results.nearest_positive_distances[query]
            missed = picture(positive, True, distance, far)
        row = results.queries.iloc[query]
        cases.append(
            Case(
                query=Picture(encoded=image, name=row["image_id"]),
                condition=row["condition"],
                retrieved=[
                    picture(*values) for values in retrieved if values[0] >= 0
                ],
                missed=missed,
            )
        )
    return cases


def _evenly(kind: np.ndarray, most: int) -> np.ndarray:
    """At most so many of them, the first and the last included."""
    count = min(most, len(kind))
    return kind[np.linspace(0, len(kind) - 1, count).round().astype(int)]
