"""Evaluation with re-ranking: what the new order is, and what it changes.

The combination of distances and inliers is measured on the split val, and used
for the queries of any split. Without validation queries, the default one is
used.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from sare_tf.evaluation import metric_text, run_metrics
from sare_tf.evaluation.calibrating import Asked
from sare_tf.evaluation.distractors import Distractors
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.evaluation.verifying import (
    OnVal,
    inliers_of,
    of_elsewhere,
    reordered,
)
from sare_tf.local_features import combination
from sare_tf.local_features.combination import Calibrated, Combination
from sare_tf.local_features.features import Extractor
from sare_tf.records.records import Records
from sare_tf.runtime import run_lock
from sare_tf.search import calibration, local_index, rerank_file, reranker
from sare_tf.search.answer_scores import Found
from sare_tf.search.opened_index import Index
from sare_tf.search.reranker import Evidence, Verifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reranked:
    """Results in the new order, and how they came about.

    Args:
        before: the results of retrieval.
        after: the same in the new order.
        by_inliers: the same in the order of inliers only.
        verify: yields what verification says of the first images, in the new
            order, of some queries.
        calibrated: what was measured on val; None for the default.
        combination: how the new order is made.
        found: the images of each query, in the new order.
        elsewhere: of photographs from elsewhere; None without any.
        asked: what the validation queries found, in the new order; None
            without these.
        bound_to: what a calibration of the order depends on.
        ranking: what a calibration of the answers depends on.
        figures: for metrics.json.
    """

    before: QueryResults
    after: QueryResults
    by_inliers: QueryResults
    verify: Callable[[Sequence[int]], Iterator[Evidence]]
    calibrated: Calibrated | None
    combination: Combination
    found: Found
    elsewhere: Found | None
    asked: Asked | None
    bound_to: dict[str, Any]
    ranking: str
    figures: dict[str, Any]


def rerank(
    results: QueryResults,
    options: EvaluationOptions,
    *,
    records: Records,
    index: Index,
    asked: Asked | None,
    elsewhere: tuple[Distractors, Found] | None = None,
) -> Reranked:
    """Orders the results of an evaluation anew.

    Args:
        results: of retrieval.
        options: which local features, how many images of each query.
        records: the opened records of the queries.
        index: the opened index.
        asked: what the validation queries found; None without these.
        elsewhere: photographs from elsewhere, and what they found.

    Raises:
        FileNotFoundError, ImportError, ValueError: there are no such local
            features, or they do not fit those that are stored.
    """
    extractor = reranker.load_extractor(options)
    source = local_index.source_of(index, extractor, records)
    top = options.rerank_top
    on_val = None
    if asked is not None:
        on_val = OnVal(options, records, asked, source, extractor)
    calibrated = _calibrate(asked, on_val, top)
    first = results.squared_distances[:, :top]
    if calibrated:
        chosen = calibrated.combination
    else:
        chosen = combination.default(first)
    verifier = Verifier(extractor, source, geometry=options.rerank_geometry)
    inliers = inliers_of(
        verifier,
        records.read_images(results.queries),
        results.rows[:, :top],
        "evaluate",
    )
    after = reordered(results, chosen.order(first, inliers))
    by_inliers = np.argsort(-inliers, axis=1, kind="stable")
    figures = _figures(
        options, extractor, verifier, calibrated, chosen, results, after
    )
    if source.absent:
        logging.warning(
            "%d images of the index are not in %s and have no stored local "
            "features: they keep their distances and have no inliers.",
            len(source.absent),
            records.path,
        )
    bound_to = reranker.bound_to(options, index, extractor)
    found = Found.retrieved(results.rows, results.squared_distances)
    others = None
    if elsewhere is not None:
        others = of_elsewhere(verifier, *elsewhere, top, chosen)
    new_asked = None
    ranking = reranker.ranking_of(bound_to, chosen)
    if on_val is not None and options.calibrate:
        new_asked = on_val.in_new_order(chosen, ranking, elsewhere)

    def verify(queries: Sequence[int]) -> Iterator[Evidence]:
        images = records.read_images(results.queries.iloc[queries])
        for query, image in zip(queries, images, strict=True):
            yield verifier([image], after.rows[[query], :top])[0]

    return Reranked(
        before=results,
        after=after,
        by_inliers=reordered(results, by_inliers),
        verify=verify,
        calibrated=calibrated,
        combination=chosen,
        found=found.reranked(chosen, inliers),
        elsewhere=others,
        asked=new_asked,
        bound_to=bound_to,
        ranking=ranking,
        figures=figures,
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
    by_inliers = reranked.by_inliers.figures(ks)["recall_at"]
    return {
        "rerank": reranked.figures | {"recall_at_by_inliers": by_inliers},
        "without_rerank": run_metrics.before(reranked.before, ks),
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


def _calibrate(
    asked: Asked | None, on_val: OnVal | None, top: int
) -> Calibrated | None:
    """Measures threshold and weight on the validation queries."""
    if asked is None:
        logging.warning(
            "The new order is made with the default threshold and weight: they "
            "are not measured on your photographs."
        )
        return None
    counted = asked.results.truth.counted
    return combination.calibrate(
        asked.results.squared_distances[counted, :top],
        on_val.inliers[counted],
        asked.results.hits[counted, :top],
    )


def _figures(
    options: EvaluationOptions,
    extractor: Extractor,
    verifier: Verifier,
    calibrated: Calibrated | None,
    chosen: Combination,
    before: QueryResults,
    after: QueryResults,
) -> dict[str, Any]:
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
        **run_metrics.changed(before, after),
        "ms_per_query": {
            "features_of_the_query": seconds.features * per_query,
            "features_of_the_database": seconds.database * per_query,
            "verification": seconds.verification * per_query,
        },
    }
