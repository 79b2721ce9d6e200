"""Images of records in object storage, read ahead by ranges of bytes.

A request takes as long as many images, so many are under way at once, and one
brings several images where they lie near each other. The rows that are read
next are known: they are divided into windows of `WINDOW_BYTES`. Within a
window, images are taken in the order of the files; those that lie near each
other make one range. While the images of a window are used, the ranges of the
next ones are requested. So images in order are read in ranges of up to
`RANGE_BYTES`, images in any order by many requests at a time, and memory
holds `WINDOWS` windows.

An image whose bytes are not those of its digest is requested again, and is
damaged if it comes so again.
"""

import collections
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import numpy as np

from sare_tf.records import frames
from sare_tf.records.image_places import ImagePlaces
from sare_tf.runtime import remote_files

# Images of one window, and windows in memory.
WINDOW_BYTES = 24 << 20
WINDOWS = 3
# A range ends before it becomes larger, or leaves out more between two images:
# 64 KiB take as long as 1/40 of 20 ms with 1 Gbit/s.
RANGE_BYTES = 4 << 20
GAP_BYTES = 64 << 10
# Requests for an image that comes damaged.
_ATTEMPTS = 3


def read(places: ImagePlaces) -> Iterator[list[bytes | None]]:
    """Yields the images of each window, in their order; None: damaged.

    Raises:
        ConnectionError, FileNotFoundError: see `remote_files.read_range`.
    """
    under_way = collections.deque()
    try:
        for rows in _windows(places):
            if len(under_way) == WINDOWS - 1:
                yield _finished(*under_way.popleft())
            under_way.append((rows, _requested(places, rows)))
        while under_way:
            yield _finished(*under_way.popleft())
    finally:
        for _, requests in under_way:
            for request in requests:
                request.cancel()


def read_now(places: ImagePlaces) -> list[bytes | None]:
    """Returns a few images, in their order; None: damaged. See `read`."""
    rows = np.arange(len(places))
    return _finished(rows, _requested(places, rows))


def _requested(
    places: ImagePlaces, rows: np.ndarray
) -> list[Future[dict[int, bytes | None]]]:
    return [
        remote_files.pool().submit(_images, places, of_range)
        for of_range in _ranges(places, rows)
    ]


def _finished(
    rows: np.ndarray, requests: Sequence[Future[dict[int, bytes | None]]]
) -> list[bytes | None]:
    images = {}
    for request in requests:
        images |= request.result()
    return [images[row] for row in rows]


def _images(places: ImagePlaces, rows: np.ndarray) -> dict[int, bytes | None]:
    """Reads the images of a range by row, and again those that are damaged."""
    start = int(places.offset[rows[0]])
    end = int((places.offset[rows] + places.length[rows]).max())
    file = remote_files.opened_before(places.paths[places.file[rows[0]]])
    content = memoryview(remote_files.read_range(file, start, end - start))
    images = {}
    for row in rows:
        begin, length = int(places.offset[row]), int(places.length[row])
        frame = bytes(content[begin - start : begin - start + length])
        image = frames.encoded_image(frame, places.digest[row])
        for _ in range(_ATTEMPTS - 1):
            if image is not None:
                break
            frame = remote_files.read_range(file, begin, length)
            image = frames.encoded_image(frame, places.digest[row])
        images[row] = image
    return images


def _windows(places: ImagePlaces) -> Iterator[np.ndarray]:
    """Yields the rows of each window."""
    window = np.cumsum(places.length) // WINDOW_BYTES
    starts = np.flatnonzero(np.diff(window, prepend=-1))
    yield from np.split(np.arange(len(window)), starts[1:])


def _ranges(places: ImagePlaces, rows: np.ndarray) -> list[np.ndarray]:
    """Divides rows among ranges; those of a range are by their offset.

    Returns:
        Rows of each range, that with the first row first.
    """
    order = rows[np.lexsort((places.offset[rows], places.file[rows]))]
    ranges, begin, end = [], 0, 0
    for row in order:
        start = places.offset[row]
        if (
            ranges
            and places.file[row] == places.file[ranges[-1][0]]
            and start <= end + GAP_BYTES
            and start + places.length[row] <= begin + RANGE_BYTES
        ):
            ranges[-1].append(row)
        else:
            ranges.append([row])
            begin = end = start
        end = max(end, start + places.length[row])
    return sorted(map(np.array, ranges), key=np.min)
