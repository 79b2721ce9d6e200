"""What a build of records will do, decided before any of it is done.

A plan is a list of shards, each with the rows of its images in their order and
a digest of everything that its bytes depend on: names, rows, sizes and times of
the files, and how they are prepared. Equal digests mean equal shards, in this
run or an earlier one. So shards can be built in any order, anywhere, and those
that are there already are skipped (`shard_building`).

Images are sorted by split, role and group, see `SqlitePlan`. Groups stay whole.
The cuts between shards follow the names of groups, not their count: a split
that is larger than twice the size wanted is cut before the group whose name has
the lowest digest, then each half likewise. So added images change only the
shards that they fall into.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import operator
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Self

import pandas as pd

from sare_tf.dataset.manifest import BLOCK_ROWS
from sare_tf.dataset.readers.collector import Reading, Source
from sare_tf.records.sqlite_plan import SqlitePlan

# Version of the bytes of shards and of their receipts.
FORMAT = 3


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What is done to each image.

    Attributes:
        verify: whether each image is decoded, to refuse it if that fails.
        longest_side: pixels; a larger image is made smaller, keeping its
            aspect, and stored as JPEG. 0: images keep their size.
        jpeg_quality: 1 to 100; each image is stored anew as JPEG, upright. 0:
            the bytes of the file are kept, and smaller copies have 95.

    Raises:
        ValueError: numbers out of range.
    """

    verify: bool = True
    longest_side: int = 0
    jpeg_quality: int = 0

    def __post_init__(self):
        if self.longest_side < 0:
            raise ValueError(
                "Expected a number of pixels, or 0. Received: "
                f"longest_side={self.longest_side}. Check --resize_to."
            )
        if not 0 <= self.jpeg_quality <= 100:
            raise ValueError(
                "Expected a quality from 1 to 100, or 0. Received: "
                f"jpeg_quality={self.jpeg_quality}. Check --reencode_quality."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Shard:
    """One shard to build.

    Attributes:
        name: of its file, with the number of shards of its split and role.
        count: images in it.
        sources: image_id -> source, where it is not the file of that name.
        digest: of everything that its content depends on.
        load: reads its rows from the plan; None if it has them itself.
        rows: its rows, see `read_rows`; None if they are read from the plan.
    """

    name: str
    count: int
    sources: Mapping[str, Source]
    digest: str
    load: Callable[[], pd.DataFrame] | None
    rows: pd.DataFrame | None = None

    def read_rows(self) -> pd.DataFrame:
        """Reads the rows of its images, in order, from the plan on disk.

        Returns:
            The columns of a manifest, and `group`, `bytes` and `modified_ns`,
            size and time of the file; -1 where the file could not be examined.
        """
        return self.load() if self.rows is None else self.rows

    def with_rows(self) -> Self:
        """Returns the shard with its rows in memory, to be sent elsewhere."""
        return dataclasses.replace(self, rows=self.read_rows(), load=None)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a build will do.

    Attributes:
        shards: in the order of their images.
        images: all images, in the order of their shards.
    """

    shards: list[Shard]
    images: SqlitePlan


def make(
    reading: Reading, *, shard_mebibytes: int, preparation: Preparation
) -> Plan:
    """Plans the shards of a dataset. Examines its files, but opens none.

    Args:
        reading: the dataset; one plan of it can be in use at a time.
        shard_mebibytes: size wanted; shards have from half to twice that, if
            no group is larger.
        preparation: of the images.
    """
    images = SqlitePlan(
        reading.images,
        lambda image_id: _status(
            os.path.join(reading.root, reading.source(image_id).path)
        ),
    )
    shards = []
    for (split, role), whole in _set_cuts(images).items():
        spans = list(_cut(images, whole, shard_mebibytes << 20))
        for number, span in enumerate(spans):
            name = f"{split}-{role}-{number:05d}-of-{len(spans):05d}.tfrecord"
            sources = {}
            if reading.sources:
                for image_id in images.rows(span.start, span.stop)["image_id"]:
                    if image_id in reading.sources:
                        sources[image_id] = reading.sources[image_id]
            shards.append(
                Shard(
                    name=name,
                    count=span.stop - span.start,
                    sources=sources,
                    digest=_digest(images, span, sources, preparation),
                    load=functools.partial(images.rows, span.start, span.stop),
                )
            )
    return Plan(shards, images)


def _status(path: str) -> tuple[int, int]:
    """Returns size and time; -1 if they fail: reading will say why."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


@dataclasses.dataclass(frozen=True)
class _Span:
    """Images of a plan that follow each other.

    Attributes:
        start: position of the first.
        stop: position after the last.
        begin: bytes of all images before them.
        end: bytes of all images up to their last.
    """

    start: int
    stop: int
    begin: int
    end: int


def _set_cuts(images: SqlitePlan) -> dict[tuple[str, str], _Span]:
    """Sets the cuts of a plan, before each group.

    Returns:
        Split and role -> their images.
    """
    spans = {}

    def cuts() -> Iterator[tuple[int, int, bytes]]:
        begin = end = 0
        group_of = operator.itemgetter(0, 1, 2)
        for key, members in itertools.groupby(images.groups(), group_of):
            start = stop = 0
            for *_, position, size in members:
                start = start or position
                stop = position + 1
                end += max(size, 0)
            yield start, begin, _digest_of(" ".join(key))
            first = spans.get(key[:2])
            spans[key[:2]] = _Span(
                first.start if first else start,
                stop,
                first.begin if first else begin,
                end,
            )
            begin = end

    images.set_cuts(cuts())
    return spans


def _cut(
    images: SqlitePlan, whole: _Span, wanted_bytes: int
) -> Iterator[_Span]:
    """Cuts images into shards."""
    waiting = [whole]
    while waiting:
        span = waiting.pop()
        cut = None
        if span.end - span.begin > 2 * wanted_bytes:
            margin = wanted_bytes // 2
            cut = images.lowest_cut(
                (span.start, span.stop),
                (span.begin + margin, span.end - margin),
            )
        if cut is None:
            yield span
            continue
        position, middle = cut
        waiting += [
            dataclasses.replace(span, start=position, begin=middle),
            dataclasses.replace(span, stop=position, end=middle),
        ]


def _digest_of(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _digest(
    images: SqlitePlan,
    span: _Span,
    sources: Mapping[str, Source],
    preparation: Preparation,
) -> str:
    """Digests everything that the content of a shard depends on."""
    boxes = {image_id: [s.path, s.box] for image_id, s in sources.items()}
    made_with = [FORMAT, dataclasses.astuple(preparation), boxes]
    digest = hashlib.sha256(json.dumps(made_with).encode())
    for start in range(span.start, span.stop, BLOCK_ROWS):
        block = images.rows(start, min(start + BLOCK_ROWS, span.stop))
        text = block.to_csv(index=False, header=start == span.start)
        digest.update(text.encode())
    return digest.hexdigest()
