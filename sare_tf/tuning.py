"""Tuning of ScaNN's tree: the fastest setting that reaches a recall.

Queries are database rows, held out from their own answers: a row's neighbours
are looked for among all others. Photographs that are looked up later may lie
farther from the database; `evaluate` measures the recall on those.
"""

import statistics
import time
from typing import Any

import numpy as np
from absl import logging
from tqdm import tqdm

from sare_tf import approximate, retrieval

# Neighbours that recall counts, as evaluate does, and the row itself.
_NEIGHBOURS = 10
_ASKED = _NEIGHBOURS + 1
_MOST_QUERIES = 1000
_REORDERED = (800, 400, 200, 100, 50, 25)
# From one number of leaves to the next.
_STEP = 1.4
# More recall than this is not looked for, nor settings that are this much
# slower than one that reaches the target.
_ENOUGH = 0.9995
_TOO_SLOW = 3.0
# Settings within a third of the fastest are timed so often, by turns.
_CLOSE = 1.33
_PASSES = 5


def tune(
    searcher: approximate.Searcher,
    descriptors: np.ndarray,
    *,
    target_recall: float,
) -> dict[str, Any]:
    """Sets how many leaves are searched and how many rows reordered.

    Where no setting reaches the target, a warning says so and the one of the
    highest recall is taken.

    Args:
        searcher: a tree over the descriptors; its `parameters` are changed.
        descriptors: [N, D], rows of unit length, at least 11; may be a memory
            map.
        target_recall: of the 10 nearest rows, from 0 to 1.

    Returns:
        What was asked and reached, as JSON holds it; `curve` has the settings
        tried than which none has both more recall and more speed.
    """
    rng = np.random.default_rng(0)
    count = min(_MOST_QUERIES, len(descriptors))
    own = np.sort(rng.choice(len(descriptors), count, replace=False))
    queries = np.asarray(descriptors[own], np.float32)
    exact, _ = retrieval.nearest(queries, descriptors, _ASKED)
    truth = _distances(queries, descriptors, _others(exact, own))

    def measure(leaves: int, reordered: int) -> dict[str, float]:
        _set(searcher, leaves, reordered)
        began = time.perf_counter()
        found, _ = searcher.search(queries, _ASKED)
        seconds = time.perf_counter() - began
        distances = _distances(queries, descriptors, _others(found, own))
        return {
            "leaves": leaves,
            "reordered": reordered,
            "recall": retrieval.recall_of_search(distances, truth),
            "queries_per_second": count / seconds,
        }

    tried = _try_all(measure, searcher.parameters["num_leaves"], target_recall)
    chosen = _choose(measure, tried, target_recall)
    _set(searcher, chosen["leaves"], chosen["reordered"])
    say = logging.info
    if chosen["recall"] < target_recall:
        say = logging.warning
    say(
        "Recall@%d of ScaNN is %.4f (target %.4f) at %.0f queries per second, "
        "with %d of %d leaves and %d rows reordered.\n%s",
        _NEIGHBOURS,
        chosen["recall"],
        target_recall,
        chosen["queries_per_second"],
        chosen["leaves"],
        searcher.parameters["num_leaves"],
        chosen["reordered"],
        table(curve := _curve(tried)),
    )
    return {
        "target_recall": target_recall,
        "neighbours": _NEIGHBOURS,
        "queries": f"{count} database rows, not counted in their own answers",
        "chosen": chosen,
        "curve": curve,
    }


def table(curve: list[dict[str, float]]) -> str:
    """A curve as lines of text."""
    lines = ["  leaves  reordered  recall  queries/s"]
    lines += [
        f"{point['leaves']:>8}  {point['reordered']:>9}  "
        f"{point['recall']:>6.4f}  {point['queries_per_second']:>9.0f}"
        for point in curve
    ]
    return "\n".join(lines)


def _try_all(measure, num_leaves: int, target_recall: float) -> list[dict]:
    """Measures settings, from many reordered rows to few."""
    measure(1, _REORDERED[0])  # the first search is slower than the rest
    tried, fastest = [], 0.0
    with tqdm(unit="setting", desc="tune", leave=False) as progress:
        for reordered in _REORDERED:
            for leaves in _steps(num_leaves):
                point = measure(leaves, reordered)
                tried.append(point)
                progress.update()
                speed = point["queries_per_second"]
                if point["recall"] >= target_recall:
                    fastest = max(fastest, speed)
                if point["recall"] >= _ENOUGH or speed * _TOO_SLOW < fastest:
                    break
    return tried


def _choose(measure, tried: list[dict], target_recall: float) -> dict:
    good = [point for point in tried if point["recall"] >= target_recall]
    if not good:
        return max(tried, key=lambda point: point["recall"])
    fastest = max(point["queries_per_second"] for point in good)
    close = [
        point
        for point in good
        if point["queries_per_second"] * _CLOSE >= fastest
    ]
    speeds = [
        [
            measure(point["leaves"], point["reordered"])["queries_per_second"]
            for point in close
        ]
        for _ in range(_PASSES)
    ]
    for point, of_point in zip(close, zip(*speeds, strict=True), strict=True):
        point["queries_per_second"] = statistics.median(of_point)
    return max(close, key=lambda point: point["queries_per_second"])


def _curve(tried: list[dict]) -> list[dict]:
    """Settings that no other beats in recall and speed, by recall."""
    kept, fastest = [], 0.0
    for point in sorted(
        tried, key=lambda p: (-p["recall"], -p["queries_per_second"])
    ):
        if point["queries_per_second"] > fastest:
            fastest = point["queries_per_second"]
            kept.append(point)
    return kept[::-1]


def _steps(num_leaves: int) -> list[int]:
    """1, 2, 3, 5, 7, 10, 14 and so on to all leaves."""
    steps, leaves = [], 1
    while leaves < num_leaves:
        steps.append(leaves)
        leaves = max(leaves + 1, round(leaves * _STEP))
    return [*steps, num_leaves]


def _set(searcher: approximate.Searcher, leaves: int, reordered: int) -> None:
    searcher.parameters["num_leaves_to_search"] = leaves
    searcher.parameters["reordering_num_neighbors"] = reordered


def _others(found: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Rows [Q, k + 1] -> [Q, k] without the query's own, or else the last."""
    order = np.argsort(found == own[:, None], axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(found, order, axis=1)


def _distances(
    queries: np.ndarray, descriptors: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Squared distances to rows [Q, k], infinite where the row is -1."""
    distances = retrieval.distances_to(queries, descriptors, list(abs(rows)))
    return np.where(rows < 0, np.float32(np.inf), np.stack(distances))
