"""Verifies what photographs of an evaluation found, and orders it anew."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from sare_tf.evaluation import metrics
from sare_tf.evaluation.calibrating import Asked
from sare_tf.evaluation.distractors import Distractors
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.local_features.combination import Combination
from sare_tf.local_features.feature_source import FeatureSource
from sare_tf.local_features.features import Extractor
from sare_tf.records.records import Records
from sare_tf.runtime import progress
from sare_tf.search import calibration
from sare_tf.search.answer_scores import Found
from sare_tf.search.reranker import Verifier

# Photographs at a time.
_BATCH = 8


def reordered(results: QueryResults, order: np.ndarray) -> QueryResults:
    """Returns results in a new order.

    Precisions of the full ranking are left out: only the first images have a
    new order.

    Args:
        results: of retrieval.
        order: int [Q, T], places of the first T images of each query, from the
            best to the worst.
    """
    count = order.shape[1]

    def ordered(values: np.ndarray) -> np.ndarray:
        first = np.take_along_axis(values[:, :count], order, axis=1)
        return np.concatenate([first, values[:, count:]], axis=1)

    hits = ordered(results.hits)
    return dataclasses.replace(
        results,
        rows=ordered(results.rows),
        squared_distances=ordered(results.squared_distances),
        hits=hits,
        ranks=metrics.first_rank(hits),
        metres=ordered(results.metres),
        precisions={
            f"average_precision_at_{k}": metrics.average_precision_at(
                hits, results.positive_counts, k
            )
            for k in results.protocol.mean_average_precision_at
        },
    )


class OnVal:
    """The validation queries, and the inliers of their images.

    Args:
        options: which local features, how many images of each query.
        records: the opened records of the queries.
        asked: what the queries found.
        source: local features of the index.
        extractor: finds those of photographs.
    """

    def __init__(
        self,
        options: EvaluationOptions,
        records: Records,
        asked: Asked,
        source: FeatureSource,
        extractor: Extractor,
    ):
        database = asked.results.database

        def read(rows: Sequence[int]) -> list[bytes]:
            return list(records.read_images(database.iloc[rows]))

        if not asked.is_held:
            source = FeatureSource(extractor, stored=None, read=read)
        self._asked = asked
        self._top = options.rerank_top
        self._verifier = Verifier(
            extractor, source, geometry=options.rerank_geometry
        )
        results = asked.results
        needed = np.arange(results.rows.shape[1]) < self._top
        needed = np.broadcast_to(needed, results.rows.shape)
        if options.calibrate:
            # The first images without the right ones, too.
            needed = needed | (np.cumsum(~results.hits, axis=1) <= self._top)
        depth = int(needed.any(axis=0).sum())
        rows = np.where(needed, results.rows, -1)[:, :depth]
        self._inliers = inliers_of(
            self._verifier,
            records.read_images(results.queries),
            rows,
            calibration.SPLIT,
        )

    @property
    def inliers(self) -> np.ndarray:
        """Of the first images of each query, int64 [Q, T]."""
        return self._inliers[:, : self._top]

    def in_new_order(
        self,
        chosen: Combination,
        ranking: str,
        elsewhere: tuple[Distractors, Found] | None,
    ) -> Asked:
        """Returns what the queries found, in the new order.

        Args:
            chosen: makes the order.
            ranking: what it is called.
            elsewhere: photographs from elsewhere.
        """
        asked = self._asked
        hits = asked.results.hits[:, : self._inliers.shape[1]]
        order = np.argsort(hits, axis=1, kind="stable")
        without = np.take_along_axis(
            np.where(hits, 0, self._inliers), order, axis=1
        )
        others = asked.elsewhere
        if others is not None and elsewhere is not None:
            others = of_elsewhere(
                self._verifier, elsewhere[0], others, self._top, chosen
            )
        return dataclasses.replace(
            asked,
            results=reordered(
                asked.results,
                chosen.order(
                    asked.results.squared_distances[:, : self._top],
                    self.inliers,
                ),
            ),
            found=asked.found.reranked(chosen, self.inliers),
            absent=asked.absent.reranked(chosen, without[:, : self._top]),
            elsewhere=others,
            ranking=ranking,
        )


def of_elsewhere(
    verifier: Verifier,
    distractors: Distractors,
    found: Found,
    top: int,
    chosen: Combination,
) -> Found:
    """Orders what photographs from elsewhere found anew.

    Args:
        verifier: verifies the images.
        distractors: the photographs.
        found: their images, as retrieved.
        top: images of each that are ordered anew.
        chosen: makes the order.
    """
    inliers = inliers_of(
        verifier, distractors.encoded(), found.rows[:, :top], "distractors"
    )
    return found.reranked(chosen, inliers)


def inliers_of(
    verifier: Verifier,
    images: Iterator[bytes],
    rows: np.ndarray,
    name: str,
) -> np.ndarray:
    """Verifies the images that photographs found.

    Args:
        verifier: verifies them.
        images: Q encoded photographs.
        rows: int64 [Q, T], rows of the database; -1 for none.
        name: of the progress bar.

    Returns:
        int64 [Q, T].
    """
    inliers = np.zeros(rows.shape, np.int64)
    with progress.bar(f"verify {name}", total=len(rows), unit="photo") as bar:
        for first in range(0, len(rows), _BATCH):
            batch = list(itertools.islice(images, _BATCH))
            of_batch = slice(first, first + len(batch))
            found = verifier(batch, rows[of_batch])
            inliers[of_batch] = [one.inliers for one in found]
            bar.update(len(batch))
    return inliers
