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
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from sare_tf import manifest
from sare_tf.readers.reading import Reading, Source

# Of the shards' bytes and of their receipts.
FORMAT = 3
# Images without place_id are grouped by cells of this size: CosPlace's.
_CELL_M = 10.0
_KINDS = (manifest.SPLITS, manifest.ROLES)


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
        images: of the whole plan, in no order: rows of the manifest, one per
            image, and: `group`, `bytes` and `modified_ns`, size and time of the
            file; -1 where it could not be looked at.
        order: which of them are in the shard, in order: positions, int32 [B].
        sources: image_id -> source, where it is not the file of that name.
        digest: of all that its content depends on.
    """

    name: str
    images: pd.DataFrame
    order: np.ndarray
    sources: Mapping[str, Source]
    digest: str

    @property
    def rows(self) -> pd.DataFrame:
        """Its images, in order: made each time, so that a plan stays small."""
        rows = self.images.iloc[self.order].reset_index(drop=True)
        return manifest.plain(rows)

    def __getstate__(self):
        order = np.arange(len(self.order))
        return vars(self) | {"images": self.rows, "order": order}


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
    table = reading.manifest
    found = np.empty((len(table), 2), np.int64)
    for row, image_id in enumerate(table["image_id"]):
        found[row] = _status(reading.root / reading.source(image_id).path)
    status = pd.DataFrame(found, columns=["bytes", "modified_ns"], copy=False)
    groups = pd.Series(_groups(table), name="group")
    images = pd.concat([table, groups, status], axis=1)
    keys = [images[name] for name in ("split", "role", "group")]
    order = manifest.in_order(images["image_id"], *keys)
    shards = []
    for split, role in itertools.product(*map(sorted, _KINDS)):
        chosen = (images["split"] == split) & (images["role"] == role)
        part = order[chosen.to_numpy()[order]]
        ranges = list(
            _ranges(images, part, f"{split} {role}", shard_mebibytes << 20)
        )
        for number, (start, stop) in enumerate(ranges):
            name = f"{split}-{role}-{number:05d}-of-{len(ranges):05d}.tfrecord"
            rows = part[start:stop]
            sources = {
                image_id: reading.sources[image_id]
                for image_id in images["image_id"].iloc[rows]
                if image_id in reading.sources
            }
            digest = _digest(images, rows, sources, preparation)
            shards.append(Shard(name, images, rows, sources, digest))
    return shards


def _groups(table: pd.DataFrame) -> pd.Categorical:
    """The place of each image, or the cell it stands in, or nothing."""
    if manifest.has_places(table):
        return manifest.categories(table["place_id"])
    names = ("place_id", "utm_zone", "utm_east_m", "utm_north_m")
    blocks = []
    for start in range(0, len(table), manifest.BLOCK_ROWS):
        block = table.iloc[start : start + manifest.BLOCK_ROWS]
        groups = [
            place or _cell(*position)
            for place, *position in zip(
                *(block[name] for name in names), strict=True
            )
        ]
        blocks.append(pd.Categorical(groups))
    return manifest.categories(union_categoricals(blocks))


def _cell(zone: str, east_m: float, north_m: float) -> str:
    if not (np.isfinite(east_m) and np.isfinite(north_m)):
        return ""
    east, north = east_m // _CELL_M, north_m // _CELL_M
    return f"{zone}_{east:.0f}_{north:.0f}".lstrip("_")


def _status(path: Path) -> tuple[int, int]:
    """Size and time; -1 for what cannot be looked at: reading will say why."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _ranges(
    images: pd.DataFrame, order: np.ndarray, name: str, wanted_bytes: int
) -> Iterator[tuple[int, int]]:
    """Cuts images into shards: start and stop of each, in order.

    Args:
        images: of the plan.
        order: those of a split and role, sorted by group: positions [B].
        name: of split and role.
        wanted_bytes: size wanted.
    """
    if not len(order):
        return
    groups = images["group"].cat.codes.to_numpy()[order]
    # An image with neither place nor position is a group of its own.
    alone = (images["group"] == "").to_numpy()[order]
    begins = np.r_[True, groups[1:] != groups[:-1]] | alone
    firsts = np.flatnonzero(begins)
    names = images.iloc[order[firsts]]
    rank = np.fromiter(
        (
            _hash(f"{name} {group or image_id}")
            for group, image_id in zip(
                names["group"].astype("str"), names["image_id"], strict=True
            )
        ),
        np.uint64,
        len(firsts),
    )
    sizes = images["bytes"].to_numpy()[order]
    np.maximum(sizes, 0, out=sizes)
    bounds = np.r_[firsts, len(order)]
    # Bytes before each group.
    begin = np.r_[0, np.add.reduceat(sizes, firsts).cumsum()]
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
    images: pd.DataFrame,
    order: np.ndarray,
    sources: Mapping[str, Source],
    preparation: Preparation,
) -> str:
    parts = {image_id: [s.path, s.box] for image_id, s in sources.items()}
    made_with = [FORMAT, dataclasses.astuple(preparation), parts]
    digest = hashlib.sha256(json.dumps(made_with).encode())
    for start in range(0, len(order), manifest.BLOCK_ROWS):
        block = images.iloc[order[start : start + manifest.BLOCK_ROWS]]
        digest.update(block.to_csv(index=False, header=not start).encode())
    return digest.hexdigest()
