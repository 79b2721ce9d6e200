"""Evaluation with re-ranking: what the new order is, and what it changes.

The combination of distances and inliers is measured on the split val, and used
for the queries of any split. Without validation queries, the default one is
used.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from sare_tf import serving
from sare_tf.evaluation import calibrating, metric_text, metrics
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.local_features import combination
from sare_tf.local_features.combination import Calibrated, Combination
from sare_tf.local_features.feature_source import FeatureSource
from sare_tf.local_features.features import Extractor
from sare_tf.records.records import Records
from sare_tf.runtime import progress, run_lock
from sare_tf.search import calibration, local_index, rerank_file, reranker
from sare_tf.search.opened_index import Index
from sare_tf.search.reranker import Evidence, Verifier

# Photographs at a time.
_BATCH = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reranked:
    """Results in the new order, and how they came about.

    Args:
        before: the results of retrieval.
        after: the same in the new order.
        verify: yields what verification says of the first images, in the new
            order, of some queries.
        calibrated: what was measured on val; None for the default.
        combination: how the new order is made.
        bound_to: what a calibration depends on.
        figures: for metrics.json.
    """

    before: QueryResults
    after: QueryResults
    verify: Callable[[Sequence[int]], Iterator[Evidence]]
    calibrated: Calibrated | None
    combination: Combination
    bound_to: dict[str, Any]
    figures: dict[str, Any]


def rerank(
    results: QueryResults,
    options: EvaluationOptions,
    *,
    records: Records,
    index: Index,
    servable: serving.Servable | serving.RemoteServable,
) -> Reranked:
    """Orders the results of an evaluation anew.

    Args:
        results: of retrieval.
        options: which local features, how many images of each query.
        records: the opened records of the queries.
        index: the opened index.
        servable: the model of both.

    Raises:
        FileNotFoundError, ImportError, ValueError: there are no such local
            features, or they do not fit those that are stored.
    """
    extractor = reranker.load_extractor(options)
    source = local_index.source_of(index, extractor, records)
    calibrated = _calibrate(options, records, index, servable, extractor)
    if calibrated:
        chosen = calibrated.combination
    else:
        chosen = combination.default(
            results.squared_distances[:, : options.rerank_top]
        )
    verifier = Verifier(extractor, source, geometry=options.rerank_geometry)
    rows = results.rows[:, : options.rerank_top]
    inliers = _inliers(verifier, records, results, rows, "evaluate")
    after = reordered(results, inliers, chosen)
    if source.absent:
        logging.warning(
            "%d images of the index are not in %s and have no stored local "
            "features: they keep their distances and have no inliers.",
            len(source.absent),
            records.path,
        )

    def verify(queries: Sequence[int]) -> Iterator[Evidence]:
        images = records.read_images(results.queries.iloc[queries])
        for query, image in zip(queries, images, strict=True):
            first = after.rows[[query], : options.rerank_top]
            yield verifier([image], first)[0]

    return Reranked(
        before=results,
        after=after,
        verify=verify,
        calibrated=calibrated,
        combination=chosen,
        bound_to=reranker.bound_to(options, index, extractor),
        figures=_figures(
            options, extractor, verifier, calibrated, chosen, results, after
        ),
    )


def keep(reranked: Reranked, index: Index) -> None:
    """Keeps what was measured on val in the index, for `locate`."""
    if reranked.calibrated is None:
        return
    folder = index.folders[0]
    with run_lock.only_run(folder):
        rerank_file.write(
            folder, reranked.calibrated, bound_to=reranked.bound_to
        )
    logging.info("locate uses it: %s.", folder / rerank_file.NAME)


def described(reranked: Reranked, ks: Sequence[int]) -> dict[str, Any]:
    """Returns what metrics.json says of re-ranking.

    Args:
        reranked: the results.
        ks: the values of N of recall@N.
    """
    before = reranked.before.figures(ks)
    return {
        "rerank": reranked.figures,
        "without_rerank": {
            name: before[name]
            for name in ("recall_at", "recall_at_interval", "recall_curve")
        },
    }


def describe(metrics: dict[str, Any]) -> str:
    """Returns what re-ranking does, in a sentence or two.

    Args:
        metrics: metrics.json, with `rerank`.
    """
    figures = metrics["rerank"]
    before = metric_text.recall(metrics["without_rerank"]["recall_at"])
    milliseconds = sum(figures["ms_per_query"].values())
    measured = "not measured on val"
    if figures["measured_on"]:
        measured = (
            f"measured on {figures['measured_on']['queries']:,} queries of val"
        )
    return (
        f"Without re-ranking: {before}. {figures['local_features']} made "
        f"{figures['made_right']} first images right and "
        f"{figures['made_wrong']} wrong, in {milliseconds:.0f} ms a query; "
        f"threshold {figures['threshold']:g} inliers, weight "
        f"{figures['weight']:.3g}, {measured}. With it:"
    )


def reordered(
    results: QueryResults, inliers: np.ndarray, chosen: Combination
) -> QueryResults:
    """Returns results in the new order.

    Precisions of the full ranking are left out: only the first images have a
    new order.

    Args:
        results: of retrieval.
        inliers: int [Q, T] of the first T images of each query.
        chosen: makes the order.
    """
    count = inliers.shape[1]
    order = chosen.order(results.squared_distances[:, :count], inliers)

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


def _calibrate(
    options: EvaluationOptions,
    records: Records,
    index: Index,
    servable: serving.Servable | serving.RemoteServable,
    extractor: Extractor,
) -> Calibrated | None:
    """Measures threshold and weight on the validation queries."""
    asked = calibrating.ask(
        options, records=records, index=index, servable=servable
    )
    if asked is None:
        logging.warning(
            "The new order is made with the default threshold and weight: they "
            "are not measured on your photographs."
        )
        return None
    if asked.is_held:
        source = local_index.source_of(index, extractor, records)
    else:
        database = asked.results.database

        def read(rows: Sequence[int]) -> list[bytes]:
            return list(records.read_images(database.iloc[rows]))

        source = FeatureSource(extractor, stored=None, read=read)
    verifier = Verifier(extractor, source, geometry=options.rerank_geometry)
    results = asked.results
    rows = results.rows[:, : options.rerank_top]
    inliers = _inliers(verifier, records, results, rows, calibration.SPLIT)
    counted = results.truth.counted
    return combination.calibrate(
        results.squared_distances[counted, : rows.shape[1]],
        inliers[counted],
        results.hits[counted, : rows.shape[1]],
    )


def _inliers(
    verifier: Verifier,
    records: Records,
    results: QueryResults,
    rows: np.ndarray,
    name: str,
) -> np.ndarray:
    """Verifies the first images of all queries, int64 [Q, T]."""
    inliers = np.zeros(rows.shape, np.int64)
    images = records.read_images(results.queries)
    with progress.bar(f"verify {name}", total=len(rows), unit="photo") as bar:
        for first in range(0, len(rows), _BATCH):
            batch = list(itertools.islice(images, _BATCH))
            of_batch = slice(first, first + len(batch))
            found = verifier(batch, rows[of_batch])
            inliers[of_batch] = [one.inliers for one in found]
            bar.update(len(batch))
    return inliers


def _figures(
    options: EvaluationOptions,
    extractor: Extractor,
    verifier: Verifier,
    calibrated: Calibrated | None,
    chosen: Combination,
    before: QueryResults,
    after: QueryResults,
) -> dict[str, Any]:
    counted = before.truth.counted
    was_right, is_right = (
        results.ranks[counted] == 1 for results in (before, after)
    )
    per_query = 1000 / len(before.queries)
    seconds = verifier.seconds
    return {
        "local_features": extractor.name,
        "local_features_fingerprint": extractor.fingerprint,
        "geometry": options.rerank_geometry,
        "top": options.rerank_top,
        "threshold": chosen.threshold,
        "weight": chosen.weight,
        "measured_on": calibrated
        and {
            "split": calibration.SPLIT,
            "queries": calibrated.queries,
            "recall_before": calibrated.recall_before,
            "recall_after": calibrated.recall_after,
        },
        "first_images_changed": int(
            (before.rows[:, 0] != after.rows[:, 0]).sum()
        ),
        "made_right": int((is_right & ~was_right).sum()),
        "made_wrong": int((was_right & ~is_right).sum()),
        "ms_per_query": {
            "features_of_the_query": seconds.features * per_query,
            "features_of_the_database": seconds.database * per_query,
            "verification": seconds.verification * per_query,
        },
    }
