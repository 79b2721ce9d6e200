"""What an evaluation does to the results of retrieval, if it is asked to.

Each of `reranking`, `landmarks` and `sequences` has the results before and
after, their figures for metrics.json, and a sentence.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sare_tf.evaluation import landmarks, reranking, sequences
from sare_tf.evaluation.evaluate_descriptors import Task
from sare_tf.evaluation.landmarks import Landmarks
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.evaluation.reranking import Reranked
from sare_tf.evaluation.sequences import Followed
from sare_tf.search.opened_index import Index

Reordered = Reranked | Landmarks | Followed


def reorder(
    results: QueryResults,
    options: EvaluationOptions,
    *,
    task: Task,
    queries: tuple[pd.DataFrame, np.ndarray],
    index: Index,
) -> Landmarks | Followed | None:
    """Orders the results of an evaluation anew, by other images.

    `answering` does so by local features.

    Args:
        results: of retrieval.
        options: of the evaluation.
        task: the queries and their ground truth.
        queries: rows of a manifest, all images that were embedded, and their
            descriptors [frames, D].
        index: the opened index.

    Returns:
        None if nothing of the kind is asked.

    Raises:
        ValueError: a protocol of sequences beside another order, or what the
            methods refuse.
    """
    if sequences.are_asked(task, options):
        if options.rerank or options.expand_queries or options.distractors:
            raise ValueError(
                "Expected no --rerank and no --expand_queries or --distractors "
                "with a protocol of sequences. Received: protocol="
                f"{task.protocol.name!r}. Leave them out."
            )
        frames, vectors = queries
        return sequences.follow(
            results,
            options,
            task=task,
            frames=frames,
            frame_vectors=vectors,
            database_vectors=index.descriptors,
        )
    if options.expand_queries or options.reranks_neighbours:
        return landmarks.look_up(
            results,
            options,
            task=task,
            query_vectors=queries[1],
            index=index,
        )
    return None


def described(reordered: Reordered | None, ks: Sequence[int]) -> dict[str, Any]:
    """Returns what metrics.json says of the new order.

    Args:
        reordered: the results; None without a new order.
        ks: the values of N of recall@N.
    """
    if reordered is None:
        return {}
    if isinstance(reordered, Followed):
        return sequences.described(reordered, ks)
    if isinstance(reordered, Landmarks):
        return landmarks.described(reordered, ks)
    return reranking.described(reordered, ks)


def describe(metrics: dict[str, Any]) -> list[str]:
    """Returns what the new order does, a sentence or two, or nothing.

    Args:
        metrics: metrics.json.
    """
    if "sequences" in metrics:
        return [sequences.describe(metrics)]
    if "landmarks" in metrics:
        return [landmarks.describe(metrics)]
    if "rerank" in metrics:
        return [reranking.describe(metrics)]
    return []
