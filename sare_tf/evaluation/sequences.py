"""Evaluation of queries that follow each other, beside single frames."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from absl import logging

from sare_tf.evaluation import (
    ground_truth,
    metric_text,
    new_rows,
    run_metrics,
    sequence_truth,
)
from sare_tf.evaluation.evaluate_descriptors import Task
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.search.descriptor_arrays import GatheredRows
from sare_tf.sequences import clips
from sare_tf.sequences.clips import Clips
from sare_tf.sequences.sequence_search import SequenceSearch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Followed:
    """Results of sequences, and how they came about.

    Args:
        before: the results of single frames.
        after: of the sequences around the same queries.
        figures: for metrics.json.
    """

    before: QueryResults
    after: QueryResults
    figures: dict[str, Any]


def are_asked(task: Task, options: EvaluationOptions) -> bool:
    """Returns whether queries are looked up as sequences.

    Args:
        task: with the protocol.
        options: with the length of a sequence.
    """
    return options.sequence_length > 1 or bool(task.protocol.sequences)


def follow(
    results: QueryResults,
    options: EvaluationOptions,
    *,
    task: Task,
    frames: pd.DataFrame,
    frame_vectors: np.ndarray,
    database_vectors: np.ndarray | GatheredRows,
) -> Followed:
    """Looks up queries together with those around them.

    Args:
        results: of the queries on their own.
        options: the method and its constants.
        task: the queries and their ground truth.
        frames: rows of a manifest, all images that may be in a sequence.
        frame_vectors: float32 [frames, D].
        database_vectors: [N, D].

    Raises:
        ValueError: no image has an order.
    """
    queries = Clips.of(frames)
    _check_order(queries, frames)
    began = time.perf_counter()
    k = results.rows.shape[1]
    search = _search(options, task, database_vectors)
    _warn_of_gaps(queries, search.clips, options)
    depth = min(
        task.num_searched, ground_truth.depth(task.protocol, task.truth, k)
    )
    found = search(frame_vectors, queries, depth)
    rows, costs = found.rows[task.asked], found.costs[task.asked]
    rows, _ = ground_truth.rank(task.truth, rows, costs, k)
    milliseconds = 1000 * (time.perf_counter() - began) / len(frames)
    after = new_rows.with_rows(
        results,
        rows,
        query_vectors=frame_vectors[task.asked],
        database_vectors=database_vectors,
        confidence=found.probability[task.asked],
    )
    return Followed(
        before=results,
        after=after,
        figures=_figures(
            options, task, (results, after), (queries, search.clips)
        )
        | {"ms_per_query": milliseconds},
    )


def described(followed: Followed, ks: Sequence[int]) -> dict[str, Any]:
    """Returns what metrics.json says of sequences.

    Args:
        followed: the results.
        ks: the values of N of recall@N.
    """
    return {
        "sequences": followed.figures,
        "single_frames": run_metrics.before(followed.before, ks),
    }


def describe(metrics: dict[str, Any]) -> str:
    """Returns what sequences do, in a sentence or two.

    Args:
        metrics: metrics.json, with `sequences`.
    """
    figures = metrics["sequences"]
    single = metric_text.recall(metrics["single_frames"]["recall_at"])
    return (
        f"Single frames: {single}. Sequences of up to {figures['length']} "
        f"({figures['method']}, {figures['queries']}, in a database of "
        f"{figures['database']}) made {figures['made_right']} first images "
        f"right and {figures['made_wrong']} wrong, in "
        f"{figures['ms_per_query']:.1f} ms a query. With them:"
    )


def _search(
    options: EvaluationOptions,
    task: Task,
    vectors: np.ndarray | GatheredRows,
) -> SequenceSearch:
    of_query, of_database = options.sequence_length, 1
    if task.protocol.sequences:
        of_query, of_database = sequence_truth.lengths(task.protocol)
    return SequenceSearch(
        vectors,
        task.database,
        dataclasses.replace(options, sequence_length=of_query),
        radius_m=options.positive_radius_m,
        allowed=task.truth.allowed,
        windows=of_database,
    )


def _check_order(queries: Clips, frames: pd.DataFrame) -> None:
    if np.diff(queries.starts).max() > 1:
        return
    raise ValueError(
        "Expected queries that follow each other: with a frame, a timestamp to "
        "the second, or a number in the names of their files, in a sequence or "
        f"folder of several. Received: {len(frames)} queries without, such as "
        f"{frames['image_id'].iloc[0]!r}. Leave out --sequence_length."
    )


def _warn_of_gaps(
    queries: Clips, database: Clips, options: EvaluationOptions
) -> None:
    logging.info(
        "Queries: %s. Database: %s.",
        clips.describe(queries),
        clips.describe(database),
    )
    alone = int((np.diff(queries.starts) == 1).sum())
    if alone:
        logging.warning(
            "%d queries follow no other one, and are looked up on their own.",
            alone,
        )
    if options.sequence_method == "average" or (
        options.sequence_step_m and options.sequence_method != "seqslam"
    ):
        return
    if np.diff(database.starts).max() == 1:
        logging.warning(
            "No images of the database follow each other, so that sequences "
            "say nothing: take --sequence_method=average, or, where images "
            "have positions, smoothing with --sequence_step_m."
        )


def _figures(
    options: EvaluationOptions,
    task: Task,
    results: tuple[QueryResults, QueryResults],
    of_both: tuple[Clips, Clips],
) -> dict[str, Any]:
    length = options.sequence_length
    if task.protocol.sequences:
        length = task.protocol.sequence_length
    constants = ("velocity", "velocity_step", "contrast", "window", "step_m")
    return {
        "method": options.sequence_method,
        "length": length,
        "queries": clips.describe(of_both[0]),
        "database": clips.describe(of_both[1]),
        **run_metrics.changed(*results),
        "constants": {
            name: getattr(options, f"sequence_{name}")
            for name in (*constants, "jump", "evidence")
        },
    }
