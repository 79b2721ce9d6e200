"""What came of every query: its row of the table, its case on the page.

A query's margin is the squared distance of the nearest wrong image less that of
the nearest positive: above 0 where the first neighbour is right. Where all
neighbours are positives the last one stands for the nearest wrong image, which
is at least as far.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sare_tf.dataset import manifest
from sare_tf.evaluation import metrics
from sare_tf.evaluation.ground_truth import Truth
from sare_tf.pages import evaluation_page
from sare_tf.records.records import Records
from sare_tf.search import confidence, exact_search

# N of precision@N where the whole database is ranked.
_PRECISION_AT = (1, 5, 10)
# N of recall over distance.
_DISTANCE_AT = (1, 5)
# Retrieved images of a query, and queries, on the page.
_SHOWN = 5
_CASES = 48


class Outcomes:
    """What was found for each query, and what should have been.

    Args:
        queries: Q rows of a manifest.
        database: N rows of a manifest.
        descriptors: float32 [Q, D].
        database_descriptors: float32 [N, D], may be a memory map.
        judged: which rows are right.
        ranking: int64 [Q, k] rows, nearest first, -1 where there is none, and
            float32 [Q, k] squared distances.
        full_ranking: measure average precision of the whole database.
        average_precision_at: measure it of the first N, for these N.
        place_radius_m: images at most so far apart show one place, for the
            confidence in the first neighbour.
    """

    def __init__(
        self,
        *,
        queries: pd.DataFrame,
        database: pd.DataFrame,
        descriptors: np.ndarray,
        database_descriptors: np.ndarray,
        judged: Truth,
        ranking: tuple[np.ndarray, np.ndarray],
        full_ranking: bool = False,
        average_precision_at: Sequence[int] = (),
        place_radius_m: float = 25.0,
    ):
        self._queries = queries
        self._database = database
        self._found, self._distances = ranking
        self._hits = exact_search.hits(self._found, judged.positives)
        self._ranks = metrics.first_rank(self._hits)
        self._counts = np.array([len(rows) for rows in judged.positives])
        self._counted = judged.counted
        self._metres = self._metres_to(self._found)
        near = self._found[:, : confidence.DEPTH]
        places = confidence.Places(database, radius_m=place_radius_m)
        self._confidence = confidence.of_neighbours(
            self._distances[:, : confidence.DEPTH],
            places.same_as_first(near),
            count=len(database),
        )
        self._find_nearest_positives(
            descriptors, database_descriptors, judged.positives
        )
        # Name -> a figure of each query.
        self._precisions = {
            f"average_precision_at_{k}": metrics.average_precision_at(
                self._hits, self._counts, k
            )
            for k in average_precision_at
        }
        if full_ranking:
            self._rank_all(descriptors, database_descriptors, judged)

    def figures(self, ks: Sequence[int]) -> dict[str, Any]:
        """Means over the queries that count, as metrics.json has them.

        Args:
            ks: the N of recall@N.
        """
        ranks = self._ranks[self._counted]
        every = range(1, self._found.shape[1] + 1)
        curve = metrics.summary(
            metrics.within(ranks, every), every, name="recall_at"
        )
        means, ends = curve["recall_at"], curve["recall_at_interval"]
        columns = ["condition", "heading_deg", "place_id", "utm_zone"]
        rows = self._queries[columns][self._counted]
        groups = {
            "condition": rows["condition"].to_numpy(object),
            "city": _cities(rows),
            "heading": metrics.compass(rows["heading_deg"].to_numpy(float)),
        }
        precisions = {"precisions": {}, "precisions_interval": {}}
        if self._precisions:
            names = list(self._precisions)
            values = np.stack(list(self._precisions.values()), axis=1)
            precisions = metrics.summary(
                values[self._counted], names, name="precisions"
            )
        return {
            "recall_at": {str(k): means[str(k)] for k in ks},
            "recall_at_interval": {str(k): ends[str(k)] for k in ks},
            **precisions,
            "recall_curve": {
                "recall": list(means.values()),
                "low": [low for low, _ in ends.values()],
                "high": [high for _, high in ends.values()],
            },
            "intervals": {
                "method": "percentiles of means over queries drawn with "
                "replacement",
                "confidence": metrics.CONFIDENCE,
                "resamples": metrics.RESAMPLES,
                "seed": metrics.SEED,
            },
            "localisation": metrics.localisation(
                self._metres[self._counted],
                [k for k in _DISTANCE_AT if k <= self._found.shape[1]],
            ),
            "confidence": metrics.reliability(
                self._confidence[self._counted], ranks == 1
            ),
            "breakdown": metrics.breakdown(groups, ranks, ks),
        }

    def table(self) -> pd.DataFrame:
        """One row per query, as queries.csv has it."""
        rank = pd.array(self._ranks, "Int64")
        rank[rank == 0] = pd.NA
        nearest = self._found[:, 0]
        image_ids = self._database["image_id"].to_numpy(object)
        columns = ["image_id", "place_id", "condition", "heading_deg"]
        columns += ["utm_east_m", "utm_north_m"]
        return (
            self._queries[columns]
            .reset_index(drop=True)
            .assign(
                counted=self._counted,
                positives=self._counts,
                # Empty where no positive is among the neighbours searched.
                first_correct_rank=rank,
                nearest_image_id=np.where(nearest >= 0, image_ids[nearest], ""),
                nearest_squared_distance=self._distances[:, 0],
                nearest_metres=self._metres[:, 0],
                confidence=self._confidence,
                positive_image_id=np.where(
                    self._positive >= 0, image_ids[self._positive], ""
                ),
                positive_squared_distance=self._positive_distance,
                **self._precisions,
            )
        )

    def places(self) -> evaluation_page.Places:
        """Where queries were taken, and where they were placed."""
        placed = self._found[:, 0]
        there = _coordinates(self._database)
        return evaluation_page.Places(
            database=there,
            queries=_coordinates(self._queries)[self._counted],
            placed=np.where((placed >= 0)[:, None], there[placed], np.nan)[
                self._counted
            ],
            right=self._ranks[self._counted] == 1,
            cities=_cities(self._queries)[self._counted],
        )

    def cases(self, records: Records) -> list[evaluation_page.Case]:
        """Wrong and right queries evenly over their margins, worst first."""
        chosen = self._choose_cases()
        shown = np.unique(
            np.append(self._found[chosen, :_SHOWN], self._positive[chosen])
        )
        shown = shown[shown >= 0]
        query_images = dict(
            zip(
                chosen.tolist(),
                records.read_images(self._queries.iloc[chosen]),
                strict=True,
            )
        )
        # By name: an index may have lost images of the records, or got others.
        names = self._database["image_id"].iloc[shown]
        images = dict(
            zip(shown.tolist(), records.read_named(names), strict=True)
        )
        metres = self._metres_to(self._positive[:, None])

        def picture(row: int, correct: bool, distance: float, metres: float):
            return evaluation_page.Picture(
                encoded=images[row],
                name=self._database["image_id"].iloc[row],
                correct=bool(correct),
                squared_distance=float(distance),
                metres=float(metres) if np.isfinite(metres) else None,
            )

        def case(query: int) -> evaluation_page.Case:
            row = self._queries.iloc[query]
            first = slice(0, _SHOWN)
            missed = None
            if not self._hits[query, first].any() and self._counts[query]:
                missed = picture(
                    self._positive[query],
                    True,
                    self._positive_distance[query],
                    metres[query, 0],
                )
            return evaluation_page.Case(
                query=evaluation_page.Picture(
                    encoded=query_images[query], name=row["image_id"]
                ),
                condition=row["condition"],
                retrieved=[
                    picture(*values)
                    for values in zip(
                        self._found[query, first],
                        self._hits[query, first],
                        self._distances[query, first],
                        self._metres[query, first],
                        strict=True,
                    )
                    if values[0] >= 0
                ],
                missed=missed,
            )

        return [case(query) for query in chosen]

    def _choose_cases(self) -> np.ndarray:
        wrong = np.where(self._hits, np.inf, self._distances).min(axis=1)
        last = np.where(
            np.isfinite(self._distances), self._distances, -np.inf
        ).max(axis=1)
        margins = np.where(np.isinf(wrong), last, wrong)
        margins = margins - self._positive_distance
        order = np.argsort(margins, kind="stable")
        order = order[(self._counted & (self._counts > 0))[order]]
        found = self._ranks[order] == 1
        kinds = [order[~found], order[found]]
        # Half of each kind; what one lacks the other gets.
        half = _CASES // 2
        wanted = [max(half, _CASES - len(other)) for other in reversed(kinds)]
        return np.concatenate(
            [
                _evenly(kind, most)
                for kind, most in zip(kinds, wanted, strict=True)
            ]
        )

    def _find_nearest_positives(
        self,
        descriptors: np.ndarray,
        database_descriptors: np.ndarray,
        positives: Sequence[np.ndarray],
    ) -> None:
        """Rows, -1 where there is none, and their squared distances."""
        every = np.arange(len(self._found))
        found = self._ranks > 0
        at = np.maximum(self._ranks - 1, 0)
        self._positive = np.where(found, self._found[every, at], -1)
        self._positive_distance = np.where(
            found, self._distances[every, at], np.float32(np.nan)
        )
        # Only those whose positives were not found are looked for.
        missed = np.flatnonzero(~found & (self._counts > 0))
        rows = [positives[query] for query in missed]
        distances = exact_search.distances_to(
            descriptors[missed], database_descriptors, rows
        )
        for query, some, far in zip(missed, rows, distances, strict=True):
            self._positive[query] = some[np.argmin(far)]
            self._positive_distance[query] = far.min()

    def _rank_all(
        self,
        descriptors: np.ndarray,
        database_descriptors: np.ndarray,
        judged: Truth,
    ) -> None:
        ranks = exact_search.ranks_of(
            descriptors,
            database_descriptors,
            [
                np.append(right, junk)
                for right, junk in zip(
                    judged.positives, judged.junk, strict=True
                )
            ],
        )
        among = []
        for some, count in zip(ranks, self._counts, strict=True):
            right, junk = some[:count], np.sort(some[count:])
            among.append(right + 1 - np.searchsorted(junk, right))
        self._precisions["average_precision"] = np.array(
            [metrics.average_precision(some) for some in among]
        )
        for k in _PRECISION_AT:
            self._precisions[f"precision_at_{k}"] = np.array(
                [metrics.precision_at(some, k) for some in among]
            )

    def _metres_to(self, rows: np.ndarray) -> np.ndarray:
        """From each query to rows [Q, k]; NaN where unknown.

        Infinite where there is no image, or one in another UTM zone.
        """
        here = _coordinates(self._queries)[:, None]
        metres = np.linalg.norm(
            here - _coordinates(self._database)[rows], axis=2
        )
        grids = tuple(map(manifest.grids, (self._queries, self._database)))
        other = (grids[0][:, None] != grids[1][rows]) & np.isfinite(metres)
        metres[other | (rows < 0)] = np.inf
        return metres


def _coordinates(rows: pd.DataFrame) -> np.ndarray:
    return rows[["utm_east_m", "utm_north_m"]].to_numpy(np.float64)


def _cities(rows: pd.DataFrame) -> np.ndarray:
    """The city in the place_id of GSV-Cities, else the UTM zone; object [Q]."""
    cities = rows["place_id"].str.extract(r"^([A-Za-z]+)_\d{7}$")[0]
    if cities.notna().all():
        return cities.to_numpy(object)
    return rows["utm_zone"].to_numpy(object)


def _evenly(kind: np.ndarray, most: int) -> np.ndarray:
    """At most so many of them, the first and the last among them."""
    count = min(most, len(kind))
    return kind[np.linspace(0, len(kind) - 1, count).round().astype(int)]
