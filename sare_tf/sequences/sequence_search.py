"""Search for the places of queries that follow each other.

`differences`, `trajectories` and `bayes_filter` define the methods. Each gives
every image of the database a cost, by which images are ranked, and a
probability. smoothing, seqslam and average look at a window around a query,
with L // 2 queries before it; filter looks at the L - 1 queries before it.
Windows end where a clip ends. For seqslam and average,

    p_n ~ exp(-r W cost_n),

where W is the number of queries in the window, and r the mean of their rates of
`bayes_filter`. Axis letters: Q queries, N images, D descriptor length, k
neighbours, L length of a sequence.
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
import pandas as pd

from sare_tf.dataset import manifest
from sare_tf.search.confidence import Places
from sare_tf.search.descriptor_arrays import GatheredRows
from sare_tf.sequences import bayes_filter, differences, motion, trajectories
from sare_tf.sequences.bayes_filter import BayesFilter
from sare_tf.sequences.clips import Clips
from sare_tf.sequences.options import SequenceOptions
from sare_tf.sequences.trajectories import Trajectories

# Numbers of a block of the difference matrix. Ours: 64 MiB.
_BLOCK = 1 << 24


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found for Q queries.

    Attributes:
        rows: int64 [Q, k], database rows, best first.
        costs: float32 [Q, k], by which they are ordered.
        probability: float64 [Q], that the query shows the place of the first
            row: the sum over images of that place, and of those that the
            motion model can reach from it within its clip.
    """

    rows: np.ndarray
    costs: np.ndarray
    probability: np.ndarray


class SequenceSearch:
    """Searches a database for queries that follow each other.

    Args:
        vectors: [M, D], unit vectors of the database; may be a memory map.
        database: M rows of a manifest.
        options: the method and its constants.
        radius_m: images at most this far apart show the same place.
        allowed: bool [M], the images to search; None: all.
        windows: if above 1, the database is searched for sequences of so many
            images around each allowed one, as in MSLS: average takes the mean
            descriptor of their images, and a query on its own the nearest one.

    Attributes:
        clips: of the images that are searched.
        count: number of these images.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        database: pd.DataFrame,
        options: SequenceOptions,
        *,
        radius_m: float,
        allowed: np.ndarray | None = None,
        windows: int = 1,
    ):
        self._options = options
        self._windows = windows
        self._rows = np.arange(len(database))
        if allowed is not None and windows == 1:
            # Other images are no states of the camera.
            self._rows = np.flatnonzero(allowed)
            vectors = GatheredRows([vectors], [self._rows])
            database, allowed = database.iloc[self._rows], None
        self._vectors = vectors
        # Others may be in the sequence around an allowed one.
        self.clips = Clips.of(database)
        order = self.clips.order
        self._allowed = None if allowed is None else allowed[order]
        self.count = len(order) if allowed is None else int(allowed.sum())
        self._places = Places(database, radius_m=radius_m)
        self._clip = self.clips.of_place
        self._filter = self._trajectories = None
        spans = self.clips.spans()
        if options.sequence_method == "seqslam":
            self._trajectories = Trajectories(
                self.clips,
                trajectories.velocities(
                    *options.sequence_velocity, options.sequence_velocity_step
                ),
            )
        elif options.sequence_method != "average":
            if options.sequence_step_m:
                model = motion.by_metres(
                    manifest.coordinates(database)[order],
                    manifest.grids(database)[order],
                    options.sequence_step_m,
                )
            else:
                model = motion.by_frame(spans, options.sequence_window)
            self._filter = BayesFilter(model, jump=options.sequence_jump)

    def __call__(self, queries: np.ndarray, clips: Clips, k: int) -> Found:
        """Looks up every query.

        Args:
            queries: float32 [Q, D], unit vectors.
            clips: of the queries.
            k: images to find for each; at most as many as are searched.
        """
        rows = np.empty((len(queries), k), np.int64)
        costs = np.empty((len(queries), k), np.float32)
        probability = np.empty(len(queries))
        for own, of_images, chances in self._by_block(queries, clips):
            if self._allowed is not None:
                of_images[:, ~self._allowed] = np.inf
                chances[:, ~self._allowed] = 0
                chances /= np.maximum(chances.sum(axis=1, keepdims=True), 1e-30)
            near = _smallest(of_images, k)
            rows[own] = self._rows[self.clips.order[near]]
            costs[own] = np.take_along_axis(of_images, near, axis=1)
            for query, of_query, first in zip(
                own, chances, near[:, 0], strict=True
            ):
                probability[query] = of_query[self._same_place(first)].sum()
        return Found(rows, costs, probability)

    def frames_of(self, clips: Clips, place: int) -> int:
        """Returns how many queries were looked up together with one.

        Args:
            clips: of the queries.
            place: of the query in the order of these.
        """
        before, after = self._reach()
        clip = np.searchsorted(clips.starts, place, "right") - 1
        first, stop = clips.starts[clip : clip + 2]
        return int(min(place + after + 1, stop) - max(place - before, first))

    def _same_place(self, first: int) -> np.ndarray:
        """Marks the images of the place of one, bool [N], in clip order."""
        rows = np.concatenate([self.clips.order[[first]], self.clips.order])
        same = self._places.same_as_first(rows[None])[0, 1:]
        reach = max(map(abs, self._options.sequence_window))
        near = np.abs(np.arange(len(same)) - first) <= reach
        return same | (near & (self._clip == self._clip[first]))

    def _by_block(
        self, queries: np.ndarray, clips: Clips
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields queries int [q], their costs [q, N] and probabilities."""
        before, after = self._reach()
        most = max(1, _BLOCK // len(self.clips.order))
        for span in clips.spans():
            for start in range(span.start, span.stop, most):
                stop = min(start + most, span.stop)
                first = max(start - before, span.start)
                last = min(stop + after, span.stop)
                window = slice(first, last)
                centre = np.arange(start, stop) - first
                of_images, chances = self._look_up(
                    queries[clips.order[window]],
                    clips.frames[window],
                    centre=centre,
                    first=np.maximum(centre - before, 0),
                    last=np.minimum(centre + after, last - first - 1),
                )
                yield clips.order[start:stop], of_images, chances

    def _reach(self) -> tuple[int, int]:
        """Queries before and after one that belong to its window."""
        length = self._options.sequence_length
        if self._options.sequence_method == "filter":
            return length - 1, 0
        return length // 2, length - 1 - length // 2

    def _look_up(
        self,
        queries: np.ndarray,
        frames: np.ndarray,
        *,
        centre: np.ndarray,
        first: np.ndarray,
        last: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Costs and probabilities [q, N] of the centres of windows."""
        method = self._options.sequence_method
        if method == "average":
            queries = np.stack(
                [
                    _mean(queries[a : b + 1])
                    for a, b in zip(first, last, strict=True)
                ]
            )
        far = self._distances(queries)
        ratio = self._options.sequence_evidence
        if method in ("filter", "smoothing"):
            evidence = bayes_filter.likelihoods(far, ratio)
            if method == "filter":
                belief = self._filter.filter(evidence, first, centre)
            else:
                belief = self._filter.smooth(
                    evidence, first=first, centre=centre, last=last
                )
            # An image that cannot be left over from zero is the last of all.
            return -np.log(np.maximum(belief, 1e-38)), belief
        rates = bayes_filter.evidence_rates(far, ratio)
        sizes = last - first + 1
        if method == "average":
            return far, _chances(far, rates[:, 0] * sizes)
        if self._options.sequence_contrast:
            far = differences.local_contrast(
                far, self.clips.spans(), self._options.sequence_contrast
            )
            rates = bayes_filter.evidence_rates(far, ratio)
        costs = np.stack(
            [
                self._trajectories(
                    far[a : b + 1], frames[a : b + 1] - frames[c]
                )
                for a, b, c in zip(first, last, centre, strict=True)
            ]
        )
        mean = [
            rates[a : b + 1].mean() for a, b in zip(first, last, strict=True)
        ]
        return costs, _chances(costs, mean * sizes)

    def _distances(self, queries: np.ndarray) -> np.ndarray:
        """Distances [q, N] to the images, or to the sequences around them."""
        order, half = self.clips.order, self._windows // 2
        if self._windows == 1:
            return differences.distances(queries, self._vectors, order)
        if self._options.sequence_method == "average":
            return differences.distances(
                queries, self._mean_of_windows, np.arange(len(order))
            )
        far = differences.distances(queries, self._vectors, order)
        if self._options.sequence_length > 1:
            return far
        nearest = far.copy()
        for shift in range(1, half + 1):
            same = self._clip[shift:] == self._clip[:-shift]
            for here, there in (
                (nearest[:, shift:], far[:, :-shift]),
                (nearest[:, :-shift], far[:, shift:]),
            ):
                np.minimum(here, there, out=here, where=same)
        return nearest

    @functools.cached_property
    def _mean_of_windows(self) -> np.ndarray:
        """Mean descriptors of the sequences, float32 [N, D], in clip order."""
        half = self._windows // 2
        vectors = np.asarray(self._vectors[self.clips.order], np.float32)
        return np.stack(
            [
                _mean(
                    vectors[
                        max(place - half, span.start) : min(
                            place + half + 1, span.stop
                        )
                    ]
                )
                for span in self.clips.spans()
                for place in range(span.start, span.stop)
            ]
        )


def _mean(vectors: np.ndarray) -> np.ndarray:
    """The mean direction of unit vectors; the middle one if there is none."""
    total = np.sum(vectors, axis=0, dtype=np.float64)
    length = np.linalg.norm(total)
    if length < 1e-6:
        return vectors[len(vectors) // 2]
    return (total / length).astype(np.float32)


def _chances(costs: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Probabilities [q, N] that are proportional to exp(-rate cost)."""
    exponent = (costs - costs.min(axis=1, keepdims=True)).astype(np.float64)
    exponent *= -np.asarray(rates)[:, None]
    chances = np.exp(exponent)
    return chances / chances.sum(axis=1, keepdims=True)


def _smallest(costs: np.ndarray, k: int) -> np.ndarray:
    """Places of the k smallest costs, int64 [q, k], in order."""
    if k < costs.shape[1]:
        near = np.argpartition(costs, k - 1, axis=1)[:, :k]
    else:
        near = np.tile(np.arange(costs.shape[1]), (len(costs), 1))
    of_near = np.take_along_axis(costs, near, axis=1)
    return np.take_along_axis(near, np.lexsort((near, of_near)), axis=1)
