"""What metrics.json says of recall, and of what it was measured on."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import pandas as pd
from absl import logging

from sare_tf.evaluation import protocols
from sare_tf.evaluation.evaluate_descriptors import Task
from sare_tf.evaluation.query_results import QueryResults


def choose_ks(
    recall_at: Sequence[int], num_searched: int
) -> tuple[list[int], list[int]]:
    """Returns the N that a database is large enough for, and the others.

    Args:
        recall_at: N of recall@N.
        num_searched: images of the database.

    Raises:
        ValueError: it is too small for all.
    """
    ks = sorted(set(recall_at))
    left_out = [k for k in ks if k > num_searched]
    ks = [k for k in ks if k <= num_searched]
    if not ks:
        raise ValueError(
            f"Expected an N of recall@N of at most {num_searched}, the "
            f"images of the database. Received: recall_at={left_out}."
        )
    if left_out:
        logging.warning(
            "Left out recall@N for N=%s: the database has %d images.",
            left_out,
            num_searched,
        )
    return ks, left_out


def describe(
    task: Task,
    results: QueryResults,
    ks: Sequence[int],
    *,
    left_out: Sequence[int],
    splits: tuple[str, str],
) -> dict[str, Any]:
    """Returns the figures, and what they were measured on.

    Args:
        task: the queries and their ground truth.
        results: of the queries.
        ks: N of recall@N.
        left_out: those that the database is too small for.
        splits: of the queries, and of the database.
    """
    protocol = task.protocol
    figures = results.figures(ks)
    queried, searched = splits
    return {
        "recall_at": figures.pop("recall_at"),
        "recall_at_left_out": left_out,
        "split": queried,
        **({} if searched == queried else {"database_split": searched}),
        "protocol": {
            "name": protocol.name,
            "definition": protocols.describe(protocol),
            "used_by": protocol.used_by,
            "parameters": dataclasses.asdict(protocol),
        },
        "counts": {
            "queries": len(results.queries),
            "queries_without_positive": int(
                (results.positive_counts == 0).sum()
            ),
            "queries_counted": int(task.truth.counted.sum()),
            "database": task.num_searched,
        },
        **figures,
    }


def before(results: QueryResults, ks: Sequence[int]) -> dict[str, Any]:
    """Returns what metrics.json keeps of results that were ordered anew.

    Args:
        results: of the order before.
        ks: N of recall@N.
    """
    figures = results.figures(ks)
    return {
        name: figures[name]
        for name in (
            "recall_at",
            "recall_at_interval",
            "recall_curve",
            "precisions",
        )
    }


def changed(one: QueryResults, other: QueryResults) -> dict[str, int]:
    """Counts the queries whose first image another order made right or wrong.

    Args:
        one: in the order before.
        other: in the order after.
    """
    counted = one.truth.counted
    was_right, is_right = (
        results.ranks[counted] == 1 for results in (one, other)
    )
    return {
        "made_right": int((is_right & ~was_right).sum()),
        "made_wrong": int((was_right & ~is_right).sum()),
    }


def digest(image_ids: pd.Series) -> str:
    """Returns what identifies a set of database images, for comparisons.

    Args:
        image_ids: their names.
    """
    found = hashlib.sha256()
    for name in sorted(image_ids):
        found.update(name.encode() + b"\0")
    return found.hexdigest()
