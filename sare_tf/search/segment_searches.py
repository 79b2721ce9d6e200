"""A search of several segments: which images each searches, and their answers.

Segments of this process are searched one after the other, each by all cores.
Those of other processes are asked at the same time.
"""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from sare_tf.search.segments import Segment

# Its client is not needed where all segments are in folders.
if TYPE_CHECKING:
    from sare_tf.search.remote_part import RemotePart


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """What is searched of a segment.

    Args:
        segment: the segment.
        first: its first row in the index.
        where: bool, for each of its live rows whether it is searched; None:
            all.
        count: how many are, at least one.
    """

    segment: "Segment | RemotePart"
    first: int
    where: np.ndarray | None
    count: int

    def search(
        self, descriptors: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns rows of the index and squared distances, [Q, min(k, count)].

        Args:
            descriptors: float32 [Q, D], of unit length.
            k: neighbours per query.
        """
        rows, distances = self.segment.search(
            descriptors, min(k, self.count), where=self.where
        )
        return self.first + rows, distances


def divide(
    segments: Sequence["Segment | RemotePart"], where: np.ndarray | None
) -> list[Share]:
    """Returns what is searched of each segment, without those of nothing.

    Args:
        segments: all segments, in the order of the rows.
        where: bool [N], the images to search; None: all.
    """
    shares, first = [], 0
    for segment in segments:
        of_segment, count = None, len(segment.live)
        if where is not None:
            of_segment = where[first : first + len(segment.live)]
            count = int(of_segment.sum())
            if count == len(segment.live):
                of_segment = None
        if count:
            shares.append(
                Share(
                    segment=segment, first=first, where=of_segment, count=count
                )
            )
        first += len(segment.live)
    return shares


def search(
    shares: Sequence[Share],
    descriptors: np.ndarray,
    k: int,
    *,
    elsewhere: Sequence["RemotePart"],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the neighbours in each share, see `Share.search`.

    Args:
        shares: at least one.
        descriptors: float32 [Q, D], of unit length.
        k: neighbours per query.
        elsewhere: the segments that other processes search.
    """
    with ThreadPoolExecutor(len(elsewhere) or 1) as pool:
        asked = {
            share.first: pool.submit(share.search, descriptors, k)
            for share in shares
            if share.segment in elsewhere
        }
        return [
            asked[share.first].result()
            if share.first in asked
            else share.search(descriptors, k)
            for share in shares
        ]


def failing(parts: Sequence["RemotePart"]) -> dict[str, ConnectionError]:
    """Returns why parts would not answer a search now, by their addresses.

    Args:
        parts: segments that other processes search; they are asked at the same
            time.
    """

    def error_of(part: "RemotePart") -> ConnectionError | None:
        try:
            part.check()
        except ConnectionError as error:
            return error
        return None

    with ThreadPoolExecutor(len(parts) or 1) as pool:
        errors = pool.map(error_of, parts)
        return {
            part.url: error
            for part, error in zip(parts, errors, strict=True)
            if error is not None
        }
