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
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from sare_tf.readers.reading import Reading, Source

# Of the shards' bytes and of their receipts.
FORMAT = 3
# Images without place_id are grouped by cells of this size: CosPlace's.
_CELL_M = 10.0


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


@dataclasses.dataclass(frozen=True)
class Shard:
    """One shard to build. It can be pickled.

    Attributes:
        name: of its file, with the number of shards of its split and role.
        rows: of the manifest, one per image, in order, and: `group`, `bytes`
            and `modified_ns`, size and time of the file; -1 where it could not
            be looked at.
        sources: image_id -> source, where it is not the file of that name.
        digest: of all that its content depends on.
    """

    name: str
    rows: pd.DataFrame
    sources: Mapping[str, Source]
    digest: str


def make(
    reading: Reading,
    *,
    shard_mebibytes: int,
    preparation: Preparation,
) -> list[Shard]:
    """Plans the shards of a dataset. Looks at its files, but opens none.

    Args:
        reading: the dataset.
        shard_mebibytes: size wanted; shards have from half to twice that, if
            no group is larger.
        preparation: of the images.

    Returns:
        Shards, in the order of their images.
    """
    table = _in_order(reading.manifest)
    found = np.empty((len(table), 2), np.int64)
    for row, image_id in enumerate(table["image_id"]):
        found[row] = _status(reading.root / reading.source(image_id).path)
    table["bytes"], table["modified_ns"] = found.T
    shards = []
    for (split, role), part in table.groupby(["split", "role"], sort=False):
        ranges = list(_ranges(part, f"{split} {role}", shard_mebibytes << 20))
        for number, (start, stop) in enumerate(ranges):
            # A view: the plan holds each row once.
            rows = part.iloc[start:stop]
            sources = {
                image_id: reading.sources[image_id]
                for image_id in rows["image_id"]
                if image_id in reading.sources
            }
            name = f"{split}-{role}-{number:05d}-of-{len(ranges):05d}.tfrecord"
            digest = _digest(rows, sources, preparation)
            shards.append(Shard(name, rows, sources, digest))
    return shards


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Rows sorted so that a group (a place) is in one run."""
    table = table.copy()
    cells = [
        f"{zone}_{east // _CELL_M:.0f}_{north // _CELL_M:.0f}".lstrip("_")
        if np.isfinite(east) and np.isfinite(north)
        else ""
        for zone, east, north in zip(
            *(table["utm_zone"], table["utm_east_m"], table["utm_north_m"]),
            strict=True,
        )
    ]
    table["group"] = np.where(table["place_id"] != "", table["place_id"], cells)
    return table.sort_values(
        ["split", "role", "group", "image_id"], ignore_index=True
    )


def _status(path: Path) -> tuple[int, int]:
    """Size and time; -1 for what cannot be looked at: reading will say why."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _ranges(
    rows: pd.DataFrame, name: str, wanted_bytes: int
) -> Iterator[tuple[int, int]]:
    """Cuts rows into shards: start and stop of each, in order.

    Args:
        rows: B rows of a split and role, sorted by group.
        name: of split and role.
        wanted_bytes: size wanted.
    """
    # An image with neither place nor position is a group of its own.
    groups = rows["group"].where(rows["group"] != "", rows["image_id"])
    groups = groups.to_numpy(object)
    firsts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    rank = np.array(
        [_hash(f"{name} {groups[first]}") for first in firsts], np.uint64
    )
    sizes = rows["bytes"].to_numpy().clip(0)
    bounds = np.r_[firsts, len(rows)]
    begin = np.r_[0, sizes.cumsum()][bounds]  # bytes before each group
    waiting = [(0, len(firsts))]
    while waiting:
        start, stop = waiting.pop()
        cuts = slice(0, 0)
        if begin[stop] - begin[start] > 2 * wanted_bytes:
            low, high = np.searchsorted(
                begin[start + 1 : stop],
                (
                    begin[start] + wanted_bytes / 2,
                    begin[stop] - wanted_bytes / 2,
                ),
                side="left",
            )
            cuts = slice(start + 1 + low, start + 1 + high)
        if cuts.start < cuts.stop:
            cut = cuts.start + int(np.argmin(rank[cuts]))
            waiting += [(cut, stop), (start, cut)]
        else:
            yield int(bounds[start]), int(bounds[stop])


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest)


def _digest(
    rows: pd.DataFrame,
    sources: Mapping[str, Source],
    preparation: Preparation,
) -> str:
    parts = {image_id: [s.path, s.box] for image_id, s in sources.items()}
    made_with = [FORMAT, dataclasses.astuple(preparation), parts]
    digest = hashlib.sha256(json.dumps(made_with).encode())
    digest.update(rows.to_csv(index=False).encode())
    return digest.hexdigest()
