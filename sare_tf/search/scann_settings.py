"""Settings of one ScaNN tree: the fastest one that reaches a recall.

A setting is how many leaves are searched and how many rows are reordered, which
may change at any time after a tree is built.

Queries are database rows, held out from their own answers: the neighbours of a
row are looked for among all others. Photographs that are looked up later may
lie farther from the database; `evaluate` measures the recall on those.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np

from sare_tf.runtime import progress, tfdata_threads
from sare_tf.search import exact_search, scann_searcher

# Neighbours that recall counts, as in `evaluate`.
NEIGHBOURS = 10
_ASKED = NEIGHBOURS + 1  # and the row itself
# All values below are ours.
_MOST_QUERIES = 1000
_REORDERED = (800, 400, 200, 100, 50, 25)
# From one number of leaves to the next.
_STEP = 1.4
# No setting of more recall than this is looked for, and none that is this much
# slower than one that reaches the target.
_ENOUGH = 0.9995
_TOO_SLOW = 3.0
# Settings within a third of the fastest are timed this often, by turns.
_CLOSE = 1.33
_PASSES = 5

# Recall and speed of a setting: leaves, reordered, recall, queries_per_second.
Point = dict[str, float]


class HeldOutRows:
    """Database rows as queries, and the distances of their neighbours.

    Attributes:
        count: the number of queries.

    Args:
        descriptors: [N, D], rows of unit length, at least 11; may be a memory
            map.
        most: queries.
    """

    def __init__(self, descriptors: np.ndarray, *, most: int = _MOST_QUERIES):
        rng = np.random.default_rng(0)
        self.count = min(most, len(descriptors))
        self._own_rows = np.sort(
            rng.choice(len(descriptors), self.count, replace=False)
        )
        self._descriptors = descriptors
        self._queries = np.asarray(descriptors[self._own_rows], np.float32)
        exact, _ = exact_search.nearest(self._queries, descriptors, _ASKED)
        self._exact_distances = self._distances(exact)

    def measure(
        self, searcher: scann_searcher.Searcher, leaves: int, reordered: int
    ) -> Point:
        """Sets a tree to a setting, and measures its recall and speed."""
        searcher.parameters["num_leaves_to_search"] = leaves
        searcher.parameters["reordering_num_neighbors"] = reordered
        began = time.perf_counter()
        rows, _ = searcher.search(
            self._queries,
            _ASKED,
            setting={"leaves": leaves, "reordered": reordered},
        )
        seconds = time.perf_counter() - began
        return {
            "leaves": leaves,
            "reordered": reordered,
            "recall": exact_search.recall_of_search(
                self._distances(rows), self._exact_distances
            ),
            "queries_per_second": self.count / seconds,
        }

    def recall_of(self, other: np.ndarray) -> float:
        """Returns the recall of exact search in another array [N, D].

        Args:
            other: descriptors of the same rows, such as decoded codes.
        """
        rows, _ = exact_search.nearest(self._queries, other, _ASKED)
        return exact_search.recall_of_search(
            self._distances(rows), self._exact_distances
        )

    def _distances(self, rows: np.ndarray) -> np.ndarray:
        return distances_of_rows(
            self._queries, self._descriptors, other_rows(rows, self._own_rows)
        )


def tune(
    searcher: scann_searcher.Searcher,
    held_out: HeldOutRows,
    target_recall: float,
) -> tuple[Point, list[Point]]:
    """Sets a tree to the fastest setting that reaches a recall.

    Args:
        searcher: the tree.
        held_out: the queries.
        target_recall: of the 10 nearest rows, from 0 to 1.

    Returns:
        The setting, or the one of the highest recall if none reaches the
        target, with its speed on one thread, too. And the curve: the settings
        that no other beats in both recall and speed, by recall.
    """

    def measure(leaves: int, reordered: int) -> Point:
        return held_out.measure(searcher, leaves, reordered)

    tried = _try_all(measure, searcher.parameters["num_leaves"], target_recall)
    best = _choose(measure, tried, target_recall)
    searcher.set_num_threads(1)
    best["queries_per_second_with_one_thread"] = statistics.median(
        measure(best["leaves"], best["reordered"])["queries_per_second"]
        for _ in range(_PASSES)
    )
    searcher.set_num_threads(tfdata_threads.CORES)
    return best, best_tradeoffs(tried)


def best_tradeoffs(tried: list[Point]) -> list[Point]:
    """Returns settings that no other beats in recall and speed, by recall."""
    curve, fastest = [], 0.0
    for point in sorted(
        tried, key=lambda p: (-p["recall"], -p["queries_per_second"])
    ):
        if point["queries_per_second"] > fastest:
            fastest = point["queries_per_second"]
            curve.append(point)
    return curve[::-1]


def table(curve: list[Point]) -> str:
    """Returns a curve as lines of text."""
    lines = ["  leaves  reordered  recall  queries/s"]
    lines += [
        f"{point['leaves']:>8}  {point['reordered']:>9}  "
        f"{point['recall']:>6.4f}  {point['queries_per_second']:>9.0f}"
        for point in curve
    ]
    return "\n".join(lines)


def numbers_of_leaves(count: int) -> list[int]:
    """Returns numbers of leaves to search: 1, 2, 3, 4, 6, 8, ... and all."""
    numbers, leaves = [], 1
    while leaves < count:
        numbers.append(leaves)
        leaves = max(leaves + 1, round(leaves * _STEP))
    return [*numbers, count]


def other_rows(rows: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Removes each query's own row, or else the last, from [Q, k + 1] rows.

    Args:
        rows: int [Q, k + 1].
        own: int [Q].

    Returns:
        int [Q, k].
    """
    order = np.argsort(rows == own[:, None], axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(rows, order, axis=1)


def distances_of_rows(
    queries: np.ndarray, descriptors: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Returns squared distances to rows [Q, k], infinite where a row is -1."""
    distances = exact_search.distances_to(queries, descriptors, list(abs(rows)))
    return np.where(rows < 0, np.float32(np.inf), np.stack(distances))


def _try_all(
    measure: Callable[[int, int], Point], num_leaves: int, target_recall: float
) -> list[Point]:
    """Measures settings, from many reordered rows to few."""
    measure(1, _REORDERED[0])  # the first search is slower than the rest
    tried, fastest = [], 0.0
    with progress.bar("tune", unit="setting") as bar:
        for reordered in _REORDERED:
            for leaves in numbers_of_leaves(num_leaves):
                point = measure(leaves, reordered)
                tried.append(point)
                bar.update()
                speed = point["queries_per_second"]
                if point["recall"] >= target_recall:
                    fastest = max(fastest, speed)
                if point["recall"] >= _ENOUGH or speed * _TOO_SLOW < fastest:
                    break
    return tried


def _choose(
    measure: Callable[[int, int], Point],
    tried: list[Point],
    target_recall: float,
) -> Point:
    """Returns the fastest setting, after the close ones are timed again."""
    good = [point for point in tried if point["recall"] >= target_recall]
    if not good:
        return max(tried, key=lambda p: (p["recall"], p["queries_per_second"]))
    fastest = max(point["queries_per_second"] for point in good)
    close = [
        point
        for point in good
        if point["queries_per_second"] * _CLOSE >= fastest
    ]
    passes = [
        [
            measure(point["leaves"], point["reordered"])["queries_per_second"]
            for point in close
        ]
        for _ in range(_PASSES)
    ]
    for point, speeds in zip(close, zip(*passes, strict=True), strict=True):
        point["queries_per_second"] = statistics.median(speeds)
    return max(close, key=lambda point: point["queries_per_second"])
