"""Tuning of ScaNN's tree: the fastest setting that reaches a recall.

A setting is how many leaves are searched and how many rows reordered, which a
tree may change at any time. How many leaves it has, whether SOAR keeps rows in
two of them, and how many dimensions share a code is decided when it is built:
to choose among trees takes as long as to build them.

Queries are database rows, held out from their own answers: a row's neighbours
are looked for among all others. Photographs that are looked up later may lie
farther from the database; `evaluate` measures the recall on those.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import logging
from tqdm import tqdm

from sare_tf.runtime import tfdata_threads
from sare_tf.search import exact_search, scann_searcher

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
# A tree replaces another if it is so much faster; less may be chance.
_FASTER = 1.05
# Larger trees to try, times the leaves of the first.
_LARGER = (2, 4)
# Dimensions of a code to try, while there are more codes than this; up to it,
# ScaNN finds the best over all leaves at once (its scann_builder.py).
_CODES = 256
_COARSER = (4, 8, 16)
_OF_A_TREE = ("num_leaves", "soar_lambda", "dimensions_per_block")


def tune(
    build: Callable[[dict[str, Any]], scann_searcher.Searcher],
    parameters: dict[str, Any],
    descriptors: np.ndarray,
    *,
    target_recall: float,
    tune_tree: bool,
    keep: Callable[[scann_searcher.Searcher], None],
) -> dict[str, Any]:
    """Finds the fastest setting of a tree, and the fastest tree.

    Where nothing reaches the target, a warning says so and what has the highest
    recall is taken.

    Args:
        build: makes a tree over the descriptors.
        parameters: of that tree, as of `approximate.rules`.
        descriptors: [N, D], rows of unit length, at least 11; may be a memory
            map.
        target_recall: of the 10 nearest rows, from 0 to 1.
        tune_tree: also build a tree without SOAR; trees of coarser codes, above
            512 dimensions; and larger trees. Each has what was better before,
            and the next step is taken where the last one was better: three or
            four trees, and up to three more above 512 dimensions.
        keep: is given each tree that is better than those before it; its
            `parameters` hold its best setting.

    Returns:
        What was asked and reached, as JSON holds it. Each of `trees` has its
        best setting, and in `curve` the settings tried than which none has both
        more recall and more speed; `chosen` is the best of all. Speed is that
        of one batch on all `threads`; of best settings, on one, too.
    """
    held_out = _HeldOut(descriptors)
    trees: list[dict[str, Any]] = []
    chosen: dict[str, Any] = {}

    def attempt(changed: dict[str, Any]) -> bool:
        nonlocal chosen
        began = time.perf_counter()
        searcher = build({**parameters, **changed})
        seconds = time.perf_counter() - began
        best, curve = _tune_settings(searcher, held_out, target_recall)
        tree = {name: searcher.parameters[name] for name in _OF_A_TREE}
        trees.append({**tree, "build_s": seconds, "best": best, "curve": curve})
        logging.info(
            "A tree of %d leaves, SOAR %s, %d dimensions a code, built in "
            "%.0f s:\n%s",
            *tree.values(),
            seconds,
            table(curve),
        )
        better = not chosen or _is_better(best, chosen, target_recall)
        if better:
            chosen = {**tree, **best}
            keep(searcher)
        return better

    attempt({})
    if tune_tree:
        better = {}
        for steps in _changes(parameters, descriptors.shape[1]):
            for change in steps:
                if not attempt({**better, **change}):
                    break
                better |= change
    say = logging.info
    if chosen["recall"] < target_recall:
        say = logging.warning
    say(
        "Recall@%d of ScaNN is %.4f (target %.4f) at %.0f queries per second "
        "(%.0f with one thread), with %d leaves searched and %d rows "
        "reordered, of a tree of %d leaves, SOAR %s, %d dimensions a code.",
        _NEIGHBOURS,
        chosen["recall"],
        target_recall,
        chosen["queries_per_second"],
        chosen["queries_per_second_with_one_thread"],
        chosen["leaves"],
        chosen["reordered"],
        *(chosen[name] for name in _OF_A_TREE),
    )
    return {
        "target_recall": target_recall,
        "neighbours": _NEIGHBOURS,
        "queries": f"{held_out.count} database rows, not counted in their own "
        "answers",
        "threads": tfdata_threads.CORES,
        "chosen": chosen,
        "trees": trees,
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


class _HeldOut:
    """Database rows as queries, and the distances of their neighbours."""

    def __init__(self, descriptors: np.ndarray):
        rng = np.random.default_rng(0)
        self.count = min(_MOST_QUERIES, len(descriptors))
        self._own = np.sort(
            rng.choice(len(descriptors), self.count, replace=False)
        )
        self._descriptors = descriptors
        self._queries = np.asarray(descriptors[self._own], np.float32)
        exact, _ = exact_search.nearest(self._queries, descriptors, _ASKED)
        self._truth = self._distances(exact)

    def measure(
        self, searcher: scann_searcher.Searcher, leaves: int, reordered: int
    ) -> dict[str, float]:
        """Recall and speed of a setting."""
        _set(searcher, leaves, reordered)
        began = time.perf_counter()
        found, _ = searcher.search(self._queries, _ASKED)
        seconds = time.perf_counter() - began
        return {
            "leaves": leaves,
            "reordered": reordered,
            "recall": exact_search.recall_of_search(
                self._distances(found), self._truth
            ),
            "queries_per_second": self.count / seconds,
        }

    def _distances(self, found: np.ndarray) -> np.ndarray:
        return _distances(
            self._queries, self._descriptors, _others(found, self._own)
        )


def _tune_settings(
    searcher: scann_searcher.Searcher, held_out: _HeldOut, target_recall: float
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Sets a tree to its best setting; that one, and the curve of all."""

    def measure(leaves: int, reordered: int) -> dict[str, float]:
        return held_out.measure(searcher, leaves, reordered)

    tried = _try_all(measure, searcher.parameters["num_leaves"], target_recall)
    best = _choose(measure, tried, target_recall)
    searcher.set_num_threads(1)
    best["queries_per_second_with_one_thread"] = statistics.median(
        measure(best["leaves"], best["reordered"])["queries_per_second"]
        for _ in range(_PASSES)
    )
    searcher.set_num_threads(tfdata_threads.CORES)
    return best, _curve(tried)


def _changes(
    parameters: dict[str, Any], dimension: int
) -> list[list[dict[str, Any]]]:
    """What trees may have instead, in steps of ever more of it."""
    coarser = [c for c in _COARSER if 2 * dimension > _CODES * c]
    larger = [times * parameters["num_leaves"] for times in _LARGER]
    sample = parameters["training_sample_size"]
    return [
        [{"soar_lambda": None}],
        [{"dimensions_per_block": codes} for codes in coarser],
        [
            {"num_leaves": leaves, "training_sample_size": max(sample, leaves)}
            for leaves in larger
        ],
    ]


def _is_better(
    one: dict[str, float], other: dict[str, float], target_recall: float
) -> bool:
    """Whether a tree's best setting should replace another tree's."""
    if min(one["recall"], other["recall"]) < target_recall:
        return one["recall"] > other["recall"]
    return one["queries_per_second"] > _FASTER * other["queries_per_second"]


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
        return max(tried, key=lambda p: (p["recall"], p["queries_per_second"]))
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


def _set(
    searcher: scann_searcher.Searcher, leaves: int, reordered: int
) -> None:
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
    distances = exact_search.distances_to(queries, descriptors, list(abs(rows)))
    return np.where(rows < 0, np.float32(np.inf), np.stack(distances))
