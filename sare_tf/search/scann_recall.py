"""The recall of a ScaNN tree at any k, and the settings that keep it.

A tree that finds 95 % of the 10 nearest rows finds fewer of the 1,000 nearest
with the same setting: they lie in more leaves, and more rows must be reordered.
So a setting is measured for each k of a ladder, and a search for k takes that
of the next larger one. Larger k are searched exactly.

Queries are database rows, held out from their own answers, as in
`scann_settings`.
"""

from collections.abc import Sequence

import numpy as np
from absl import logging

from sare_tf.search import scann_searcher, scann_settings
from sare_tf.search.scann_searcher import Setting

# All values below are ours.
_LADDER = (10, 30, 100, 300, 1000, 3000, 10_000)
# Larger k are exact: ScaNN would search and reorder nearly all rows.
_LARGEST_SHARE = 0.2
_QUERIES = 200
# Fewer queries for larger k, each of which has more neighbours, but at least
# the last number.
_NEIGHBOURS, _FEWEST = 200_000, 50
# Of rules that find more of 10 neighbours, larger k ask no more than this.
_ENOUGH = 0.99
# Rows to reorder, times k.
_REORDERED = (2, 4, 8, 16, 32)
# Distances are rounded, as in `exact_search.recall_of_search`.
_TOLERANCE = 1e-5
_BLOCK = 8192


def settings_by_k(
    searcher: scann_searcher.Searcher,
    descriptors: np.ndarray,
    *,
    target_recall: float = 0.0,
) -> list[Setting]:
    """Finds the settings by which a tree keeps its recall at larger k.

    Args:
        searcher: the tree, set for 10 neighbours.
        descriptors: [N, D], rows of unit length; may be a memory map.
        target_recall: of all k; 0: the recall of the tree's setting for 10, or
            0.99 if that is more.

    Returns:
        Settings in ascending order of k, as JSON holds them. A k for which no
        setting reaches the recall is left out.
    """
    ks = [k for k in _LADDER if k <= _LARGEST_SHARE * len(descriptors)]
    if not ks:
        return []
    rows = _HeldOut(searcher, descriptors, ks)
    leaves = searcher.parameters["num_leaves_to_search"]
    reordered = searcher.parameters["reordering_num_neighbors"]
    own = rows.recall(ks[0], leaves, reordered)
    wanted = min(target_recall or _ENOUGH, own)
    found = [_setting(ks[0], leaves, reordered, own)]
    for k in ks[1:]:
        setting = _search(rows, k, leaves, reordered, wanted)
        if setting is None:
            logging.info("No setting of ScaNN reaches %.4f at k=%d.", wanted, k)
            continue
        leaves = setting["leaves"]
        found.append(setting)
    return found


def _setting(k: int, leaves: int, reordered: int, recall: float) -> Setting:
    return {"k": k, "leaves": leaves, "reordered": reordered, "recall": recall}


def _search(
    rows: "_HeldOut", k: int, leaves: int, reordered: int, wanted: float
) -> Setting | None:
    """Finds the fewest leaves, from a number on, that reach a recall at k."""
    numbers = [
        number
        for number in scann_settings.numbers_of_leaves(rows.num_leaves)
        if number >= leaves
    ]
    # Half of what may be lost is lost by reordering too few rows.
    ample = (1 + wanted) / 2
    for times in _REORDERED:
        tried = min(max(reordered, times * k), rows.count)
        recall = rows.recall(k, numbers[-1], tried)
        if recall >= ample:
            break
    if recall < wanted:
        return None
    best = _setting(k, numbers[-1], tried, recall)
    low, high = 0, len(numbers) - 1
    while low < high:
        middle = (low + high) // 2
        recall = rows.recall(k, numbers[middle], tried)
        if recall >= wanted:
            best = _setting(k, numbers[middle], tried, recall)
            high = middle
        else:
            low = middle + 1
    return best


class _HeldOut:
    """Database rows as queries, and how far their k nearest rows reach."""

    def __init__(
        self,
        searcher: scann_searcher.Searcher,
        descriptors: np.ndarray,
        ks: Sequence[int],
    ):
        self.count = len(descriptors)
        self.num_leaves = searcher.parameters["num_leaves"]
        self._searcher = searcher
        rng = np.random.default_rng(1)
        self._own = rng.choice(
            self.count, min(_QUERIES, self.count), replace=False
        )
        self._queries = np.asarray(descriptors[self._own], np.float32)
        self._reach = dict(
            zip(ks, self._distances_of(descriptors, ks), strict=True)
        )

    def recall(self, k: int, leaves: int, reordered: int) -> float:
        """Measures a setting, as `exact_search.recall_of_search` counts it."""
        asked = slice(max(_FEWEST, _NEIGHBOURS // k))
        rows, distances = self._searcher.search(
            self._queries[asked],
            k + 1,
            setting={"leaves": leaves, "reordered": reordered},
        )
        near = distances <= self._reach[k][asked, None] + _TOLERANCE
        near &= rows != self._own[asked, None]
        return float(np.minimum(near.sum(axis=1), k).mean() / k)

    def _distances_of(
        self, descriptors: np.ndarray, ks: Sequence[int]
    ) -> list[np.ndarray]:
        """Returns the exact distance [Q] of the k-th nearest row for each k."""
        most = ks[-1]
        nearest = np.full((len(self._own), most), np.inf, np.float32)
        for start in range(0, self.count, _BLOCK):
            block = np.asarray(descriptors[start : start + _BLOCK], np.float32)
            distances = 2 - 2 * self._queries @ block.T
            inside = (self._own >= start) & (self._own < start + len(block))
            distances[inside, self._own[inside] - start] = np.inf
            both = np.concatenate([nearest, distances], axis=1)
            nearest = np.partition(both, most - 1, axis=1)[:, :most]
        nearest.sort(axis=1)
        return [nearest[:, k - 1] for k in ks]
