"""One shard of records: built as a whole from its plan, anywhere.

    plan = shard_plan.make(reading, ...)                 # before any work
    built = shard_building.build(shard, root=..., folder=..., preparation=...)

`build` depends on nothing but its arguments and the files that the shard names,
so shards may be built in any order, in any number of threads, processes or
machines: the bytes are the same. It leaves a part of `ResumableParts`, named by
the digest of the shard, which a later run finds:

    <digest>.tfrecord   the shard
    <digest>.parquet    the rows of its images
    <digest>.json       the receipt

`building` gathers the shards of a plan into records.
"""

import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Self

import pandas as pd
import tensorflow as tf

from sare_tf.dataset import manifest
from sare_tf.records import frames, image_preparation, records
from sare_tf.records.image_preparation import Refused
from sare_tf.records.shard_plan import Preparation, Shard
from sare_tf.runtime import atomic_files
from sare_tf.runtime.resumable_parts import Part, ResumableParts


@dataclasses.dataclass(frozen=True)
class BuiltShard:
    """A shard that is whole.

    Attributes:
        path: its file.
        num_bytes: size of the file.
        count: images in it.
        rejected: image_id and reason of those that were refused.
        complaints: image_id and libjpeg's complaint of damaged JPEGs in it.
        settled: False if a file was refused because reading it failed, which
            may go well another time: then the next run tries again.
    """

    path: Path
    num_bytes: int
    count: int
    rejected: list[tuple[str, str]]
    complaints: list[tuple[str, str]]
    settled: bool

    @classmethod
    def of(cls, part: Part) -> Self:
        """Makes it of the part that `build` left."""
        return cls(
            path=part.path(".tfrecord"),
            num_bytes=part.sizes[".tfrecord"],
            count=part.facts["count"],
            rejected=[tuple(pair) for pair in part.facts["rejected"]],
            # An earlier version did not look for them.
            complaints=[
                tuple(pair) for pair in part.facts.get("complaints", ())
            ],
            settled=part.facts["settled"],
        )

    def rows(self) -> pd.DataFrame:
        """Reads the rows of its images, in order.

        Returns:
            The columns of a manifest, and `byte_offset`, `byte_length` and
            `sha256`, see `records`.
        """
        return pd.read_parquet(self.path.with_suffix(".parquet"))


def find(shard: Shard, folder: Path) -> BuiltShard | None:
    """Returns the shard, if an earlier `build` left it in the folder."""
    part = ResumableParts(folder).find(shard.digest)
    return None if part is None else BuiltShard.of(part)


def find_all(shards: Sequence[Shard], folder: Path) -> dict[str, BuiltShard]:
    """Returns all shards by name.

    Raises:
        OSError: a shard is not built.
    """
    parts = ResumableParts(folder).gather([shard.digest for shard in shards])
    return {
        shard.name: BuiltShard.of(part)
        for shard, part in zip(shards, parts, strict=True)
    }


def entry(shard: Shard, built: BuiltShard) -> dict[str, Any]:
    """Makes the entry of a shard in records.json, which `take_over` reads."""
    return {
        "count": built.count,
        "bytes": built.num_bytes,
        "rejected": built.rejected,
        "complaints": built.complaints,
        # Empty: not to be used again, since reading a file failed.
        "source": shard.digest if built.settled else "",
    }


def take_over(
    shards: Iterable[Shard], *, finished: str | Path, folder: Path
) -> None:
    """Takes shards from finished records, as if `build` had built them.

    Args:
        shards: the shards wanted.
        finished: folder of records. Fewer shards are taken over if they are of
            another dataset, damaged or absent.
        folder: as of `build`.
    """
    finished = Path(finished)
    wanted = {shard.digest for shard in shards}
    try:
        metadata = records.read_json(finished)
        known = metadata["shards"]
        if wanted.isdisjoint(shard["source"] for shard in known.values()):
            return
        records.check_tables(finished, metadata)
        tables = manifest.read_parts(
            finished / "manifest.parquet",
            [shard["count"] for shard in known.values()],
        )
        for (name, shard), rows in zip(known.items(), tables, strict=True):
            if shard["source"] in wanted and (rows["shard"] == name).all():
                _take_over(finished / name, rows, shard, folder)
    except (OSError, ValueError):
        return


def _take_over(
    source: Path, rows: pd.DataFrame, known: dict[str, Any], folder: Path
) -> None:
    """Takes over a shard of finished records, if it has the size it had."""
    parts = ResumableParts(folder)
    if parts.find(known["source"]) or not source.is_file():
        return
    if source.stat().st_size == known["bytes"]:
        with parts.write(known["source"], what=f"the shard {source}") as part:
            atomic_files.link_or_copy(source, part.path(".tfrecord"))
            manifest.write(rows.drop(columns="shard"), part.path(".parquet"))
            part.facts.update(
                count=len(rows),
                rejected=known["rejected"],
                complaints=known.get("complaints", []),
                settled=True,
            )


def build(
    shard: Shard,
    *,
    root: Path,
    folder: Path,
    preparation: Preparation,
    num_workers: int = 1,
) -> BuiltShard:
    """Builds a shard.

    Args:
        shard: the plan.
        root: folder that its sources are relative to.
        folder: where its part goes; it exists.
        preparation: as the shard was planned with.
        num_workers: threads that read and check images.

    Raises:
        Unsteady: the sources are not those that were planned.
        OSError: the folder cannot be written to. What was begun is removed.
    """
    prepare = partial(
        image_preparation.prepare_batch, root=root, preparation=preparation
    )
    planned = shard.read_rows()
    batches = image_preparation.batches(planned, shard.sources)
    kept, rejected, complaints, settled = [], [], [], True
    position = 0
    parts = ResumableParts(folder)
    with parts.write(shard.digest, what=f"the shard {shard.name}") as part:
        with _writer(part.path(".tfrecord")) as write:
            for batch in _in_order(prepare, batches, num_workers):
                for image in batch:
                    if isinstance(image, Refused):
                        rejected.append((image.image_id, image.reason))
                        settled &= image.settled
                    else:
                        where = write(image.serialised)
                        kept.append(
                            (position, *image.size, *where, image.sha256)
                        )
                        if image.complaint:
                            image_id = planned["image_id"].iat[position]
                            complaints.append((image_id, image.complaint))
                    position += 1
        manifest.write(_rows(planned, kept), part.path(".parquet"))
        part.facts.update(
            count=len(kept),
            rejected=rejected,
            complaints=complaints,
            settled=settled,
        )
    return find(shard, folder)


def _in_order(
    function: Callable, batches: Iterable, num_workers: int
) -> Iterator:
    """Maps a function over batches; threads work ahead of what is taken.

    Reading and checking images leaves the interpreter's lock.
    """
    if num_workers == 1:
        yield from map(function, batches)
        return
    waiting = deque()
    with ThreadPoolExecutor(num_workers) as pool:
        for batch in batches:
            waiting.append(pool.submit(function, batch))
            if len(waiting) > 2 * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextlib.contextmanager
def _writer(path: Path) -> Iterator[Callable[[bytes], tuple[int, int]]]:
    """Yields a function that writes a record, and returns offset and length.

    Raises:
        OSError: the file cannot be written whole.
    """
    num_bytes = 0

    def write(serialised: bytes) -> tuple[int, int]:
        nonlocal num_bytes
        writer.write(serialised)
        begin, length = num_bytes, len(serialised) + frames.FRAME_BYTES
        num_bytes += length
        return begin, length

    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            yield write
    except tf.errors.OpError as error:
        raise OSError(error.message) from error
    if path.stat().st_size != num_bytes:
        raise OSError(f"{path.name} was not written whole")


def _rows(planned: pd.DataFrame, kept: list[tuple]) -> pd.DataFrame:
    """Returns the rows of the images that were kept, and where they are."""
    numbers = ("position", "height", "width", "byte_offset", "byte_length")
    built = pd.DataFrame(kept, columns=[*numbers, "sha256"])
    built = built.astype(dict.fromkeys(numbers, "int64"))
    rows = planned.iloc[built.pop("position")][list(manifest.COLUMNS)]
    rows = rows.reset_index(drop=True)
    for name in built:
        rows[name] = built[name].to_numpy()
    return rows
