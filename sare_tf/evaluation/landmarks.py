"""Evaluation with query expansion, diffusion or k-reciprocal re-ranking.

Only the nearest `--rerank_top` images of a query are ranked anew; the others
follow in the order of search.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import logging

from sare_tf.evaluation import (
    ground_truth,
    metric_text,
    metrics,
    new_rows,
    run_metrics,
)
from sare_tf.evaluation.evaluate_descriptors import Task
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.landmarks import (
    expansion,
    neighbour_graph,
    offline_diffusion,
)
from sare_tf.landmarks.diffusion import Diffusion
from sare_tf.landmarks.k_reciprocal import KReciprocal
from sare_tf.landmarks.offline_diffusion import OfflineDiffusion
from sare_tf.runtime import progress
from sare_tf.search import exact_search
from sare_tf.search.opened_index import Index


@dataclasses.dataclass(frozen=True, kw_only=True)
class Landmarks:
    """Results with what was done, and how they came about.

    Args:
        before: the results of retrieval.
        after: with expanded queries, or in the new order.
        figures: for metrics.json.
    """

    before: QueryResults
    after: QueryResults
    figures: dict[str, Any]


def look_up(
    results: QueryResults,
    options: EvaluationOptions,
    *,
    task: Task,
    query_vectors: np.ndarray,
    index: Index,
) -> Landmarks:
    """Expands queries, and ranks their nearest images anew.

    Args:
        results: of retrieval.
        options: what is done.
        task: the queries and their ground truth.
        query_vectors: float32 [Q, D].
        index: the opened index.

    Raises:
        ValueError: more neighbours than images, or no columns of diffusion
            beside the index.
    """
    seconds = {}
    after, began = results, time.perf_counter()
    if options.expand_queries:
        query_vectors = expansion.expand_queries(
            query_vectors,
            index.descriptors,
            count=options.expand_queries,
            alpha=options.expand_alpha,
            allowed=task.truth.allowed,
        )
        after = task.evaluate(
            query_vectors,
            index.descriptors,
            num_neighbours=results.rows.shape[1],
            place_radius_m=options.positive_radius_m,
        )
        seconds["expansion"] = time.perf_counter() - began
    if options.reranks_neighbours:
        began = time.perf_counter()
        score = _scorer(options, query_vectors, index)
        seconds["preparation"] = time.perf_counter() - began
        began = time.perf_counter()
        after = _reranked(after, options, task, query_vectors, index, score)
        seconds["rerank"] = time.perf_counter() - began
    return Landmarks(
        before=results,
        after=after,
        figures=_figures(options, results, after, seconds),
    )


def described(found: Landmarks, ks: Sequence[int]) -> dict[str, Any]:
    """Returns what metrics.json says of it.

    Args:
        found: the results.
        ks: the values of N of recall@N.
    """
    return {
        "landmarks": found.figures,
        "without_rerank": run_metrics.before(found.before, ks),
    }


def describe(metrics: dict[str, Any]) -> str:
    """Returns what was done, in a sentence or two.

    Args:
        metrics: metrics.json, with `landmarks`.
    """
    figures = metrics["landmarks"]
    before = metrics["without_rerank"]
    precisions = "".join(
        f", {name} {value:.3f} to {metrics['precisions'][name]:.3f}"
        for name, value in before["precisions"].items()
    )
    milliseconds = ", ".join(
        f"{name} {value:.1f}" for name, value in figures["ms_per_query"].items()
    )
    return (
        f"Without: {metric_text.recall(before['recall_at'])}. "
        f"{' and '.join(figures['done'])} made {figures['made_right']} first "
        f"images right and {figures['made_wrong']} wrong{precisions}; "
        f"milliseconds a query: {milliseconds}. With it:"
    )


def _scorer(
    options: EvaluationOptions, query_vectors: np.ndarray, index: Index
) -> Callable[[int, np.ndarray, np.ndarray], np.ndarray]:
    """Returns what scores the nearest images of a query, by its number."""
    if options.rerank == "diffusion":
        diffusion = Diffusion(
            neighbour_graph.of_index(index, options.graph_neighbours),
            gamma=options.diffusion_gamma,
            alpha=options.diffusion_alpha,
            start=options.diffusion_start,
        )
        return lambda query, rows, similarities: diffusion(rows, similarities)
    if options.rerank == "offline_diffusion":
        offline = OfflineDiffusion(
            offline_diffusion.of_index(index, options),
            gamma=options.diffusion_gamma,
            start=options.diffusion_start,
        )
        return lambda query, rows, similarities: offline(rows, similarities)
    k1, k2 = options.reciprocal_k1, options.reciprocal_k2
    reciprocal = KReciprocal(
        neighbour_graph.of_index(index, max(k1, k2)).first(max(k1, k2)),
        index.descriptors,
        k1=k1,
        k2=k2,
        share=options.reciprocal_lambda,
    )
    return lambda query, rows, similarities: reciprocal(
        query_vectors[query], rows, similarities
    )


def _reranked(
    results: QueryResults,
    options: EvaluationOptions,
    task: Task,
    query_vectors: np.ndarray,
    index: Index,
    score: Callable[[int, np.ndarray, np.ndarray], np.ndarray],
) -> QueryResults:
    truth, k = task.truth, results.rows.shape[1]
    top = min(options.rerank_top, task.num_searched)
    if top < options.rerank_top:
        logging.info("All %d images are ranked anew.", top)
    depth = min(
        task.num_searched,
        max(top, ground_truth.depth(task.protocol, truth, k)),
    )
    rows, squared = exact_search.nearest(
        query_vectors, index.descriptors, depth, allowed=truth.allowed
    )
    places = np.empty((len(rows), top), np.int64)
    with progress.bar(options.rerank, total=len(rows), unit="query") as bar:
        for query, (near, far) in enumerate(
            zip(rows[:, :top], squared[:, :top], strict=True)
        ):
            scores = score(query, near, 1 - far.astype(np.float64) / 2)
            places[query] = np.argsort(scores, kind="stable")
            bar.update()
    ordered = rows.copy()
    ordered[:, :top] = np.take_along_axis(rows[:, :top], places, axis=1)
    kept, _ = ground_truth.rank(truth, ordered, squared, k)
    after = new_rows.with_rows(
        results,
        kept,
        query_vectors=query_vectors,
        database_vectors=index.descriptors,
        confidence=results.confidence,
    )
    if not task.protocol.full_ranking:
        return after
    ranks = metrics.ranks_without_junk(
        query_vectors,
        index.descriptors,
        positives=truth.positives,
        junk=truth.junk,
        first_rows=ordered[:, :top],
    )
    return dataclasses.replace(
        after,
        precisions=after.precisions | metrics.full_ranking_precisions(ranks),
    )


def _figures(
    options: EvaluationOptions,
    before: QueryResults,
    after: QueryResults,
    seconds: dict[str, float],
) -> dict[str, Any]:
    done, constants = [], {}
    if options.expand_queries:
        done.append(
            f"query expansion by {options.expand_queries} images (alpha "
            f"{options.expand_alpha:g})"
        )
        names = ["expand_queries", "expand_alpha"]
        constants |= {name: getattr(options, name) for name in names}
    if options.reranks_neighbours:
        done.append(f"{options.rerank} over {options.rerank_top} images")
        used = ("diffusion_", "graph_")
        if options.rerank == "k_reciprocal":
            used = ("reciprocal_",)
        constants |= {
            name: getattr(options, name)
            for name in vars(options)
            if name.startswith((*used, "rerank_top"))
        }
    return {
        "done": done,
        "constants": constants,
        **run_metrics.changed(before, after),
        "ms_per_query": {
            name: 1000 * value / len(before.queries)
            for name, value in seconds.items()
        },
    }
