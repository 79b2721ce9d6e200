"""Tuning of ScaNN: the fastest tree and setting that reach a recall.

How many leaves a tree has, whether SOAR keeps rows in two of them, and how many
dimensions share a code is decided when the tree is built: to choose among trees
takes as long as to build them. `scann_settings` tunes what may change after.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import logging

from sare_tf.runtime import tfdata_threads
from sare_tf.search import scann_searcher, scann_settings
from sare_tf.search.scann_settings import HeldOutRows, Point

# A tree replaces another if it is this much faster; less may be chance. Ours.
_FASTER = 1.05
# Larger trees to try, times the leaves of the first. Ours.
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

    If nothing reaches the target, a warning is logged, and the tree and setting
    of the highest recall are taken.

    Args:
        build: makes a tree over the descriptors.
        parameters: of that tree, as `scann_searcher.rules` returns them.
        descriptors: [N, D], rows of unit length, at least 11; may be a memory
            map.
        target_recall: of the 10 nearest rows, from 0 to 1.
        tune_tree: also build a tree without SOAR; trees of coarser codes, above
            512 dimensions; and larger trees. Each keeps the changes that were
            better before, and the next step is taken if the last one was
            better: three or four trees, and up to three more above 512
            dimensions.
        keep: called with each tree that is better than those before it; its
            `parameters` hold its best setting.

    Returns:
        A report of target and results, as JSON holds it. Each of `trees` has
        its best setting, and its `curve`, see `scann_settings.tune`. `chosen`
        is the best of all. Speed is that of one batch on all `threads`; of best
        settings, on one, too.
    """
    held_out = HeldOutRows(descriptors)
    trees = _Trees(build, parameters, held_out, target_recall, keep)
    trees.attempt({})
    if tune_tree:
        better = {}
        for steps in _changes(parameters, *descriptors.shape):
            for change in steps:
                if not trees.attempt({**better, **change}):
                    break
                better |= change
    _log_best(trees.best, target_recall)
    return {
        "target_recall": target_recall,
        "neighbours": scann_settings.NEIGHBOURS,
        "queries": f"{held_out.count} database rows, not counted in their own "
        "answers",
        "threads": tfdata_threads.CORES,
        "chosen": trees.best,
        "trees": trees.report,
    }


def largest_sample(
    parameters: dict[str, Any], count: int, dimension: int
) -> int:
    """Returns how many rows train the largest tree that `tune_tree` tries.

    Args:
        parameters: of the first tree, as `scann_searcher.rules` returns them.
        count: rows of the database.
        dimension: descriptor length.
    """
    larger = _changes(parameters, count, dimension)[-1]
    return max(change["training_sample_size"] for change in larger)


def is_better(one: Point, other: Point, target_recall: float) -> bool:
    """Returns whether one tree's best setting should replace another's."""
    if min(one["recall"], other["recall"]) < target_recall:
        return one["recall"] > other["recall"]
    return one["queries_per_second"] > _FASTER * other["queries_per_second"]


class _Trees:
    """The trees that were built, and the best of them.

    Attributes:
        best: the best tree and its best setting.
        report: of each tree its kind, best setting and curve.
    """

    def __init__(self, build, parameters, held_out, target_recall, keep):
        self._build = build
        self._parameters = parameters
        self._held_out = held_out
        self._target_recall = target_recall
        self._keep = keep
        self.best: dict[str, Any] = {}
        self.report: list[dict[str, Any]] = []

    def attempt(self, changes: dict[str, Any]) -> bool:
        """Builds a tree, and keeps it if it is the best so far."""
        began = time.perf_counter()
        searcher = self._build({**self._parameters, **changes})
        seconds = time.perf_counter() - began
        setting, curve = scann_settings.tune(
            searcher, self._held_out, self._target_recall
        )
        tree = {name: searcher.parameters[name] for name in _OF_A_TREE}
        self.report.append(
            {**tree, "build_s": seconds, "best": setting, "curve": curve}
        )
        logging.info(
            "A tree of %d leaves, SOAR %s, %d dimensions a code, built in "
            "%.0f s:\n%s",
            *tree.values(),
            seconds,
            scann_settings.table(curve),
        )
        if self.best and not is_better(setting, self.best, self._target_recall):
            return False
        self.best = {**tree, **setting}
        self._keep(searcher)
        return True


def _changes(
    parameters: dict[str, Any], count: int, dimension: int
) -> list[list[dict[str, Any]]]:
    """Returns changes of a tree to try; each list has steps that go farther."""
    coarser = [
        dimensions
        for dimensions in _COARSER
        if 2 * dimension > _CODES * dimensions
    ]
    larger = [times * parameters["num_leaves"] for times in _LARGER]
    return [
        [{"soar_lambda": None}],
        [{"dimensions_per_block": dimensions} for dimensions in coarser],
        [
            {
                "num_leaves": leaves,
                "training_sample_size": scann_searcher.training_sample_size(
                    count=count,
                    dimension=dimension,
                    num_leaves=leaves,
                    reorder_from=parameters["reorder_from"],
                ),
            }
            for leaves in larger
        ],
    ]


def _log_best(best: dict[str, Any], target_recall: float) -> None:
    """Logs the best tree and setting, as a warning if it misses the target."""
    log = logging.info if best["recall"] >= target_recall else logging.warning
    log(
        "Recall@%d of ScaNN is %.4f (target %.4f) at %.0f queries per second "
        "(%.0f with one thread), with %d leaves searched and %d rows "
        "reordered, of a tree of %d leaves, SOAR %s, %d dimensions a code.",
        scann_settings.NEIGHBOURS,
        best["recall"],
        target_recall,
        best["queries_per_second"],
        best["queries_per_second_with_one_thread"],
        best["leaves"],
        best["reordered"],
        *(best[name] for name in _OF_A_TREE),
    )
