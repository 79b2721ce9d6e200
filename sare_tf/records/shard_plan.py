"""What a build of records will do, decided before any of it is done.

A plan is a list of shards, each with the rows of its images in their order and
a digest of all that its bytes depend on: names, rows, sizes and times of the
files, and how they are prepared. Equal digests mean equal shards, in this run
or an earlier one, so an engine may build them in any order, anywhere, and skip
those that are there (`record_shards`).

Images are sorted by split, role and group, which is their place, or where
images have none the cell of 10 m that they stand in. Groups stay whole. The
cuts between shards follow the names of groups, not their count: a split that is
larger than twice the size wanted is cut before the group whose name has the
lowest digest, then each part likewise. So images that are added change the
shards they fall into, and leave the others as they are.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import operator
import os
from collections.abc import Callable, Iterator, Mapping

import pandas as pd

from sare_tf.dataset import manifest
from sare_tf.dataset.readers.reading import Reading, Source
from sare_tf.dataset.sqlite_manifest import COLUMNS, SCHEMA, Listing, frame

# Of the shards' bytes and of their receipts.
FORMAT = 3
# Images without place_id are grouped by cells of this size: CosPlace's.
_CELL_M = 10.0
# What a plan says of an image's file.
_FILE = {"group": "str", "bytes": "int64", "modified_ns": "int64"}


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What is done to each image.

    Attributes:
        verify: decode each image, to refuse those that cannot be.
        longest_side: pixels; a larger image is made smaller, keeping its
            aspect, and stored as JPEG. 0: images keep their size.
        jpeg_quality: 1 to 100; store each image anew as JPEG, upright. 0: keep
            the bytes of the file, and store what is made smaller with 95.

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
    """One shard to build. It can be pickled, and takes its own rows along.

    Attributes:
        name: of its file, with the number of shards of its split and role.
        count: images in it.
        load: gives its `rows`.
        sources: image_id -> source, where it is not the file of that name.
        digest: of all that its content depends on.
    """

    name: str
    count: int
    load: Callable[[], pd.DataFrame]
    sources: Mapping[str, Source]
    digest: str

    @property
    def rows(self) -> pd.DataFrame:
        """Rows of the manifest, one per image, in order, and: `group`, `bytes`
        and `modified_ns`, size and time of the file; -1 where it could not be
        looked at. Read each time, so that a plan stays small."""
        return self.load()

    def __getstate__(self):
        return vars(self) | {"load": functools.partial(_itself, self.rows)}


def _itself(rows: pd.DataFrame) -> pd.DataFrame:
    return rows


def make(
    reading: Reading,
    *,
    shard_mebibytes: int,
    preparation: Preparation,
) -> list[Shard]:
    """Plans the shards of a dataset. Looks at its files, but opens none.

    Args:
        reading: the dataset; its listing gets the table `planned`, with the
            rows of shards and their `position` from 1 on, in order.
        shard_mebibytes: size wanted; shards have from half to twice that, if
            no group is larger.
        preparation: of the images.

    Returns:
        Shards, in the order of their images.
    """
    listing = reading.listing
    listing.define("group_of", _group_of)
    listing.run("DROP TABLE IF EXISTS planned")
    listing.run(
        f"CREATE TABLE planned (position INTEGER PRIMARY KEY, {SCHEMA}, "
        '"group" TEXT, bytes INTEGER, modified_ns INTEGER)'
    )
    values = ", ".join("?" * (1 + len(manifest.COLUMNS) + len(_FILE)))
    listing.run_many(
        f"INSERT INTO planned VALUES ({values})", _planned(reading)
    )
    shards = []
    for (split, role), whole in _make_groups(listing).items():
        ranges = list(_ranges(listing, whole, shard_mebibytes << 20))
        for number, images in enumerate(ranges):
            name = f"{split}-{role}-{number:05d}-of-{len(ranges):05d}.tfrecord"
            rows = (images.start, images.stop)
            load = functools.partial(_load, listing, *rows)
            sources = {
                image_id: reading.sources[image_id]
                for image_id in (load()["image_id"] if reading.sources else ())
                if image_id in reading.sources
            }
            digest = _digest(listing, *rows, sources, preparation)
            count = images.stop - images.start
            shards.append(Shard(name, count, load, sources, digest))
    return shards


def _planned(reading: Reading) -> Iterator[tuple]:
    """The rows of the table `planned`."""
    images = reading.listing.run(
        f"SELECT {COLUMNS}, group_of(place_id, utm_zone, utm_east_m, "
        'utm_north_m) AS "group" FROM images '
        'ORDER BY split, role, "group", image_id'
    )
    for position, image in enumerate(images, 1):
        path = reading.source(image[0]).path
        yield (position, *image, *_status(os.path.join(reading.root, path)))


def _group_of(
    place: str, zone: str, east_m: float | None, north_m: float | None
) -> str:
    """The place of an image, or the cell it stands in, or nothing."""
    if place or east_m is None or north_m is None:
        return place
    east, north = east_m // _CELL_M, north_m // _CELL_M
    return f"{zone}_{east:.0f}_{north:.0f}".lstrip("_")


def _status(path: str) -> tuple[int, int]:
    """Size and time; -1 for what cannot be looked at: reading will say why."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


@dataclasses.dataclass(frozen=True)
class _Range:
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


def _make_groups(listing: Listing) -> dict[tuple[str, str], _Range]:
    """Makes the table `groups`: position of the first image of each, bytes of
    all images before it, and a digest of its name.

    Returns:
        Split and role -> their images.
    """
    found = {}

    def groups() -> Iterator[tuple[int, int, bytes]]:
        begin = end = 0
        # One with neither place nor position is alone.
        images = listing.run(
            'SELECT split, role, iif("group" = \'\', image_id, "group"), '
            "position, bytes FROM planned ORDER BY position"
        )
        key_of = operator.itemgetter(0, 1, 2)
        for key, some in itertools.groupby(images, key_of):
            start = stop = 0
            for *_, position, size in some:
                start = start or position
                stop = position + 1
                end += max(size, 0)
            yield start, begin, _digest_of(" ".join(key))
            first = found.get(key[:2])
            found[key[:2]] = _Range(
                first.start if first else start,
                stop,
                first.begin if first else begin,
                end,
            )
            begin = end

    listing.run("DROP TABLE IF EXISTS groups")
    listing.run(
        "CREATE TABLE groups (position INTEGER, begin INTEGER, digest BLOB, "
        "PRIMARY KEY (begin, position)) WITHOUT ROWID"
    )
    listing.run_many("INSERT INTO groups VALUES (?, ?, ?)", groups())
    return found


def _ranges(
    listing: Listing, whole: _Range, wanted_bytes: int
) -> Iterator[_Range]:
    """Cuts images into shards."""
    waiting = [whole]
    while waiting:
        images = waiting.pop()
        cut = None
        if images.end - images.begin > 2 * wanted_bytes:
            cut = listing.run(
                "SELECT position, begin FROM groups WHERE begin >= ? AND "
                "begin < ? AND position > ? AND position < ? "
                "ORDER BY digest, position LIMIT 1",
                images.begin + wanted_bytes // 2,
                images.end - wanted_bytes // 2,
                images.start,
                images.stop,
            ).fetchone()
        if cut is None:
            yield images
            continue
        position, middle = cut
        waiting += [
            dataclasses.replace(images, start=position, begin=middle),
            dataclasses.replace(images, stop=position, end=middle),
        ]


def _digest_of(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _load(listing: Listing, start: int, stop: int) -> pd.DataFrame:
    """Rows of the plan from one position to the one before another."""
    columns = ", ".join(f'"{name}"' for name in (*manifest.COLUMNS, *_FILE))
    found = listing.run(
        f"SELECT {columns} FROM planned WHERE position >= ? AND position < ?",
        start,
        stop,
    )
    return frame(found, more=_FILE)


def _digest(
    listing: Listing,
    start: int,
    stop: int,
    sources: Mapping[str, Source],
    preparation: Preparation,
) -> str:
    parts = {image_id: [s.path, s.box] for image_id, s in sources.items()}
    made_with = [FORMAT, dataclasses.astuple(preparation), parts]
    digest = hashlib.sha256(json.dumps(made_with).encode())
    for begin in range(start, stop, manifest.BLOCK_ROWS):
        end = min(begin + manifest.BLOCK_ROWS, stop)
        block = _load(listing, begin, end)
        text = block.to_csv(index=False, header=begin == start)
        digest.update(text.encode())
    return digest.hexdigest()
