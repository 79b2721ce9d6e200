"""SeqSLAM: trajectories of constant velocity through a difference matrix.

A query t0 and the queries around it lie at frames f_t. If the camera passes
image n at t0 and moves at velocity v, it passes the image of n's clip that is
nearest to frame g_n + v (f_t - f_t0) at t. The score of n is the smallest mean
of the differences along such a trajectory, over the velocities. Where a
trajectory leaves the clip by more than half a step, it costs as much as the
image that differs most: with an infinite cost, as in the original code, short
clips could not be found.

Source: SeqSLAM (Milford and Wyeth, ICRA 2012), section III C. OpenSeqSLAM
counts frames by index and sums floors; frame numbers allow for gaps, and for
drives at other rates.
"""

import numpy as np

from sare_tf.sequences.clips import Clips

# Moves whose places are kept. Ours.
_KEPT = 512


class Trajectories:
    """Scores the images of a database by trajectories through them.

    Args:
        clips: of the database.
        velocities: to try.

    Call arguments:
        differences: float32 [W, N], of the queries of a window, in the order of
            the clips.
        frames: [W], their frames, counted from that of the query that is looked
            up.

    Output:
        float32 [N], small for the images that were passed.
    """

    def __init__(self, clips: Clips, velocities: np.ndarray):
        self._clips = clips
        self._velocities = velocities
        of_place = clips.of_place
        self._step = clips.steps[of_place]
        self._first = clips.frames[clips.starts[:-1]][of_place]
        self._last = clips.frames[clips.starts[1:] - 1][of_place]
        # One axis for all clips, on which frames of different clips are apart.
        span = self._last - self._first
        room = (span + 2 * self._step)[clips.starts[:-1]]
        begin = np.concatenate([[0], np.cumsum(room)[:-1]])[of_place]
        self._shift = begin - self._first
        self._axis = clips.frames + self._shift
        self._begin = clips.starts[:-1][of_place]
        self._end = clips.starts[1:][of_place] - 1
        self._known: dict[float, np.ndarray] = {}

    def __call__(
        self, differences: np.ndarray, frames: np.ndarray
    ) -> np.ndarray:
        worst = differences.max(axis=1)
        best = np.full(differences.shape[1], np.inf, np.float32)
        for velocity in self._velocities:
            total = np.zeros(differences.shape[1], np.float32)
            for of_query, most, frame in zip(
                differences, worst, frames, strict=True
            ):
                place = self._place_after(float(velocity * frame))
                total += np.where(place >= 0, of_query[place], most)
            np.minimum(best, total, out=best)
        return best / len(frames)

    def _place_after(self, frames: float) -> np.ndarray:
        """The place nearest to each one's frame plus `frames`, -1 outside."""
        key = round(frames, 6)
        if key not in self._known:
            if len(self._known) >= _KEPT:
                self._known.clear()
            wanted = self._clips.frames + frames
            after = np.searchsorted(self._axis, wanted + self._shift)
            after = np.clip(after, self._begin, self._end)
            before = np.maximum(after - 1, self._begin)
            # Of two equally near, the earlier one.
            is_before = (
                wanted - self._clips.frames[before]
                <= self._clips.frames[after] - wanted
            )
            place = np.where(is_before, before, after)
            is_outside = (wanted < self._first - self._step / 2) | (
                wanted > self._last + self._step / 2
            )
            self._known[key] = np.where(is_outside, -1, place)
        return self._known[key]


def velocities(low: float, high: float, step: float) -> np.ndarray:
    """Returns low, low + step and so on, up to high.

    Args:
        low: the smallest.
        high: the largest.
        step: between them.
    """
    count = int(np.floor((high - low) / step + 1e-9)) + 1
    return low + step * np.arange(count)
