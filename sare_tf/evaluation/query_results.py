"""Results of an evaluation, query by query, and the figures made of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sare_tf.evaluation import metrics, summaries
from sare_tf.evaluation.ground_truth import GroundTruth
from sare_tf.evaluation.protocols import Protocol

# Ours: N of recall over distance.
_DISTANCE_AT = (1, 5)
_COLUMNS = [
    *("image_id", "place_id", "condition", "heading_deg"),
    *("utm_east_m", "utm_north_m"),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueryResults:
    """Which database images were retrieved for each query, and how right.

    Axis letters: Q queries, N database, k neighbours.

    Attributes:
        protocol: the protocol.
        queries: Q rows of a manifest, the queries that the protocol asks.
        database: N rows of a manifest.
        truth: the right database rows of each query, and the queries that
            count.
        rows: int64 [Q, k], the database rows retrieved, nearest first, -1 for
            none. What the protocol does not count is taken out.
        squared_distances: float32 [Q, k] of the rows, infinite for none.
        hits: bool [Q, k], whether the row is a positive.
        ranks: int64 [Q], rank of the first positive from 1; 0 for none.
        metres: float64 [Q, k] of the rows, see `ground_truth.metres`.
        confidence: float64 [Q] in the first row, see `search.confidence`.
        nearest_positives: int64 [Q], the database row of the positive nearest
            to the query's descriptor, retrieved or not; -1 without positives.
        nearest_positive_distances: float32 [Q], its squared distance, or NaN.
        precisions: name of a precision that the protocol measures -> float64
            [Q], NaN for a query without positives.
        exact_distances: float32 [Q, depth], squared distances of the
            neighbours before anything was taken out, nearest first.
        search_seconds: seconds that finding these took.
    """

    protocol: Protocol
    queries: pd.DataFrame
    database: pd.DataFrame
    truth: GroundTruth
    rows: np.ndarray
    squared_distances: np.ndarray
    hits: np.ndarray
    ranks: np.ndarray
    metres: np.ndarray
    confidence: np.ndarray
    nearest_positives: np.ndarray
    nearest_positive_distances: np.ndarray
    precisions: dict[str, np.ndarray]
    exact_distances: np.ndarray
    search_seconds: float

    @property
    def positive_counts(self) -> np.ndarray:
        """Number of positives of each query, int64 [Q]."""
        return np.array([len(rows) for rows in self.truth.positives], np.int64)

    @property
    def mean_average_precision(self) -> float | None:
        """mAP of the full ranking; None if the protocol does not measure it.

        `precisions` has the mAP@N that other protocols measure.
        """
        values = self.precisions.get("average_precision")
        if values is None:
            return None
        return float(values[self.truth.counted].mean())

    def recall_at(self, ks: Sequence[int]) -> dict[int, float]:
        """Recall@N over the queries that count.

        Args:
            ks: the values of N, each from 1 to k.

        Returns:
            N -> recall, from 0 to 1, in the order of ks.

        Raises:
            ValueError: a value of N outside 1 to k.
        """
        counted = np.flatnonzero(self.truth.counted)
        positives = [self.truth.positives[query] for query in counted]
        return metrics.recall_at(self.rows[counted], positives, ks)

    def figures(self, ks: Sequence[int]) -> dict[str, Any]:
        """Means over the queries that count, as in metrics.json.

        Args:
            ks: the values of N of recall@N, each from 1 to k.
        """
        counted = self.truth.counted
        ranks = self.ranks[counted]
        every = range(1, self.rows.shape[1] + 1)
        curve = summaries.summary(
            metrics.within(ranks, every), every, name="recall_at"
        )
        means, ends = curve["recall_at"], curve["recall_at_interval"]
        precisions = {"precisions": {}, "precisions_interval": {}}
        if self.precisions:
            values = np.stack(list(self.precisions.values()), axis=1)
            precisions = summaries.summary(
                values[counted], list(self.precisions), name="precisions"
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
                "confidence": summaries.CONFIDENCE,
                "resamples": summaries.RESAMPLES,
                "seed": summaries.SEED,
            },
            "localisation": summaries.localisation(
                self.metres[counted],
                [k for k in _DISTANCE_AT if k <= self.rows.shape[1]],
            ),
            "confidence": summaries.reliability(
                self.confidence[counted], ranks == 1
            ),
            "breakdown": summaries.breakdown(self._groups(), ranks, ks),
        }

    def table(self) -> pd.DataFrame:
        """Returns one row per query, as in queries.csv."""
        rank = pd.array(self.ranks, "Int64")
        rank[rank == 0] = pd.NA
        nearest = self.rows[:, 0]
        positive = self.nearest_positives
        image_ids = self.database["image_id"].to_numpy(object)
        return (
            self.queries[_COLUMNS]
            .reset_index(drop=True)
            .assign(
                counted=self.truth.counted,
                positives=self.positive_counts,
                # Empty if no positive is among the neighbours searched.
                first_correct_rank=rank,
                nearest_image_id=np.where(nearest >= 0, image_ids[nearest], ""),
                nearest_squared_distance=self.squared_distances[:, 0],
                nearest_metres=self.metres[:, 0],
                confidence=self.confidence,
                positive_image_id=np.where(
                    positive >= 0, image_ids[positive], ""
                ),
                positive_squared_distance=self.nearest_positive_distances,
                **self.precisions,
            )
        )

    def _groups(self) -> dict[str, np.ndarray]:
        """Groups of the queries that count, for a breakdown."""
        rows = self.queries[self.truth.counted]
        return {
            "condition": rows["condition"].to_numpy(object),
            "city": cities(rows),
            "heading": summaries.compass(rows["heading_deg"].to_numpy(float)),
        }


def cities(rows: pd.DataFrame) -> np.ndarray:
    """Returns the city of each image, or else its UTM zone, object [rows].

    GSV-Cities has the city in its place_id.

    Args:
        rows: rows of a manifest.
    """
    names = rows["place_id"].str.extract(r"^([A-Za-z]+)_\d{7}$")[0]
    if names.notna().all():
        return names.to_numpy(object)
    return rows["utm_zone"].to_numpy(object)
