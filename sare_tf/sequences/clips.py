"""Which images follow each other: the clips of a manifest.

A clip is the images of one `sequence_id`, or else of one folder, in the order
of

    frame       the column of the manifest, or else
    timestamp   to the second, or else
    names       the last number in the name of the file,

whichever every image of the clip has, and no two the same. It is cut where a
step is more than three times as long as its usual one. Images without any of
these are clips of their own. Axis letters: N images, C clips.
"""

import dataclasses
import datetime
import posixpath
import re
from typing import Self

import numpy as np
import pandas as pd

from sare_tf.search.prior import span_of

# Ours: a longer step, in median steps, is a gap.
LONGEST_STEP = 3
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


@dataclasses.dataclass(frozen=True)
class Clips:
    """Images in clips, in the order of time.

    Attributes:
        order: int64 [N], rows of the manifest, clip by clip.
        starts: int64 [C + 1], where each clip begins in `order`, and N.
        frames: float64 [N], frames or seconds, in the order of `order`.
        steps: float64 [C], the usual step of each clip, 1 for one image.
        unordered: number of images whose order is not known.
    """

    order: np.ndarray
    starts: np.ndarray
    frames: np.ndarray
    steps: np.ndarray
    unordered: int

    @classmethod
    def of(cls, images: pd.DataFrame) -> Self:
        """Finds the clips of images.

        Args:
            images: N rows of a manifest.
        """
        groups = images["sequence_id"].to_numpy(object).copy()
        unnamed = groups == ""
        groups[unnamed] = [
            "/" + posixpath.dirname(name)
            for name in images["image_id"][unnamed]
        ]
        clips, unordered = [], 0
        for rows in pd.Series(groups).groupby(groups).indices.values():
            numbers = _numbers(images.iloc[rows])
            if numbers is None:
                unordered += len(rows)
                clips += [(rows[[i]], np.zeros(1)) for i in range(len(rows))]
                continue
            order = np.argsort(numbers, kind="stable")
            clips += _cut(rows[order], numbers[order])
        return cls.made_of(clips, unordered)

    @classmethod
    def made_of(
        cls, clips: list[tuple[np.ndarray, np.ndarray]], unordered: int
    ) -> Self:
        """Makes clips of their rows and frames.

        Args:
            clips: for each clip, rows int [n] and ascending frames [n].
            unordered: number of images whose order is not known.
        """
        sizes = [len(rows) for rows, _ in clips]
        return cls(
            order=np.concatenate([rows for rows, _ in clips]).astype(np.int64),
            starts=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            frames=np.concatenate([frames for _, frames in clips]),
            steps=np.array(
                [
                    np.median(np.diff(frames)) if len(frames) > 1 else 1.0
                    for _, frames in clips
                ]
            ),
            unordered=unordered,
        )

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def of_place(self) -> np.ndarray:
        """The clip of each place in `order`, int64 [N]."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def spans(self) -> list[slice]:
        """Returns the places of each clip in `order`."""
        return [
            slice(start, stop)
            for start, stop in zip(
                self.starts[:-1], self.starts[1:], strict=True
            )
        ]


def describe(clips: Clips) -> str:
    """Returns clips in words, such as "40 sequences of 3 to 12 images".

    Args:
        clips: the clips.
    """
    sizes = np.diff(clips.starts)
    several = sizes[sizes > 1]
    words = []
    if len(several):
        low, high = several.min(), several.max()
        count = f"{low} to {high}" if low < high else f"{low}"
        noun = "sequence" + "s" * (len(several) > 1)
        words.append(f"{len(several):,} {noun} of {count} images")
    alone = int((sizes == 1).sum())
    if alone == 1:
        words.append("1 image on its own")
    elif alone:
        words.append(f"{alone:,} images on their own")
    return " and ".join(words)


def _numbers(images: pd.DataFrame) -> np.ndarray | None:
    """Returns what orders the images of a clip, float64 [n], or None."""
    frames = images["frame"].to_numpy(np.float64)
    if frames.min() >= 0 and _differ(frames):
        return frames
    seconds = [_seconds(text) for text in images["timestamp"]]
    if None not in seconds and _differ(np.array(seconds)):
        return np.array(seconds)
    found = [
        _LAST_NUMBER.search(posixpath.splitext(posixpath.basename(name))[0])
        for name in (id_.partition("#")[0] for id_ in images["image_id"])
    ]
    if all(found):
        # Longer numbers are no counts, and would lose digits.
        numbers = np.array([float(match[1][-15:]) for match in found])
        if _differ(numbers):
            return numbers
    return None


def _seconds(timestamp: str) -> float | None:
    span = span_of(timestamp)
    if span is None or span[0] != span[1]:
        return None
    try:
        moment = datetime.datetime.strptime(str(span[0]), "%Y%m%d%H%M%S")
    except ValueError:
        return None
    return (moment - datetime.datetime(1970, 1, 1)).total_seconds()


def _differ(numbers: np.ndarray) -> bool:
    return len(np.unique(numbers)) == len(numbers)


def _cut(
    rows: np.ndarray, frames: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    steps = np.diff(frames)
    if not len(steps):
        return [(rows, frames)]
    cuts = np.flatnonzero(steps > LONGEST_STEP * np.median(steps)) + 1
    return list(zip(np.split(rows, cuts), np.split(frames, cuts), strict=True))
