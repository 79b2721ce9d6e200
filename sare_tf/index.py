"""export/ + records/ -> index/: the database of a split, ready to search.

    python -m sare_tf.index --flagfile=configs/demo.flags
    python -m sare_tf.index --flagfile=... --add_records=runs/more/records
    python -m sare_tf.index --flagfile=... --remove_ids=ids.txt
    python -m sare_tf.index --flagfile=... --compact
    python -m sare_tf.index --flagfile=... --runner=FlinkRunner -- ...

    descriptors.npy   float32 or float16 [N, D], rows of unit length
    manifest.parquet  row i describes row i of the descriptors
    scann/            ScaNN's searcher, movable; absent where ScaNN is
    index.json        dimension, count, and what all this was made from

Descriptors are written as a stream: memory holds a batch of images, and a run
that was killed goes on where it was. ScaNN needs more, see `approximate`. Up to
20,000 images it compares with all; above, results are approximate: by rules, or
tuned to --target_recall, with --tune_tree also by the choice of a tree.
`evaluate` measures what is missed. Distances are squared Euclidean.

With --runner, workers of Apache Beam embed parts of the images, which are then
put together: the files are the same (docs/beam.md).

Added images become a segment of their own, removed ones are passed over; both
take as long as the change, not the database. --compact makes one segment again,
which is worth it from some ten additions, or when a tenth is removed. One such
command at a time; the index may be searched meanwhile.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from absl import logging

from sare_tf import flags, serving
from sare_tf.distributed import beam
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files
from sare_tf.search import (
    embedding,
    opened_index,
    scann_searcher,
    segment_building,
    segments,
)
from sare_tf.search.index_changes import add, compact, remove
from sare_tf.search.opened_index import COMMAND, Index
from sare_tf.search.options import IndexOptions


def run(
    options: IndexOptions,
    *,
    for_each: Callable[..., None] | None = None,
) -> Path:
    """Builds the index, or makes the change to it that options name.

    An index of the same export, records, split and dtype is kept as it is, with
    what was added and removed since; only ScaNN is built again where
    `target_recall` or `tune_tree` is another.

    Args:
        options: the index, which is replaced if it exists, and what it is
            built from; or the change.
        for_each: embeds parts elsewhere, called as `beam.for_each` is; None:
            in this process, or by the runner of the options.

    Returns:
        The folder of the index.

    Raises:
        FileNotFoundError: records or export are absent or unfinished.
        ImportError, OSError: as of `for_each`.
        ValueError: no such images or shard, a descriptor that is not a finite
            unit vector, a folder that holds something else, or an index with
            changes that another export or records would lose.
    """
    runner = beam.from_options(options)
    for_each = for_each or (runner and runner.map)
    tuning = {
        "target_recall": options.target_recall,
        "tune_tree": options.tune_tree,
    }
    if options.add_records:
        return add(
            index=options.index,
            records=options.add_records,
            export=serving.named(options),
            split=options.split,
            batch_size=options.batch_size,
            for_each=for_each,
        )
    if options.remove_ids:
        return remove(index=options.index, ids=options.remove_ids)
    if options.compact:
        return compact(index=options.index, **tuning)
    return _build(options, tuning, for_each)


def _build(
    options: IndexOptions,
    tuning: dict[str, Any],
    for_each: Callable[..., None] | None,
) -> Path:
    """Embeds the database images of a split and builds the index."""
    out = Path(options.index)
    atomic_files.put_back(out)
    atomic_files.check_replaceable(out, names=opened_index.NAMES)
    opened = Records(options.records)
    rows = _of_shard(
        opened.rows(options.split, "database"), options.index_shard
    )
    servable = serving.load(serving.named(options))
    made_from = {
        "export_fingerprint": servable.fingerprint,
        "records_fingerprint": opened.fingerprint,
        "split": options.split,
        "shard": options.index_shard,
        "dtype": options.index_dtype,
    }
    found = _find(out, made_from)
    if found:
        if _is_searcher_as_asked(found, tuning):
            logging.info("%s is up to date: nothing to do.", out)
            return out
        return compact(index=out, **tuning)
    with atomic_files.folder_to_resume(
        out,
        {
            **made_from,
            "batch_size": options.batch_size,
            "count": len(rows),
        },
    ) as unfinished:
        segment = segment_building.make(
            unfinished,
            opened,
            rows,
            servable,
            batch_size=options.batch_size,
            dtype=options.index_dtype,
            **tuning,
            for_each=for_each,
        )
        opened_index.write_metadata(
            unfinished.folder,
            {
                "count": len(rows),
                "dimension": servable.dimension,
                "distance": "squared Euclidean between unit vectors",
                **made_from,
                "added_records_fingerprints": [],
                **tuning,
                "segments": [{"folder": ".", **segment}],
                "removed": None,
                "changes": 0,
            },
        )
    logging.info(
        "Index of %d images in %s. Next: python -m sare_tf.evaluate "
        "--flagfile=...",
        len(rows),
        out,
    )
    return out


def embed(
    servable: serving.Servable | serving.RemoteServable,
    encoded_images: Iterable[bytes],
    image_ids: Sequence[str],
    *,
    batch_size: int = 32,
) -> np.ndarray:
    """Embeds encoded images.

    Args:
        servable: the exported model.
        encoded_images: bytes of N images, read one batch at a time.
        image_ids: their N names, for messages.
        batch_size: images of a batch.

    Returns:
        float32 [N, D], rows of unit length.

    Raises:
        ValueError: an image that cannot be decoded, or whose descriptor is
            not a finite unit vector; the message names it. Or fewer images
            than names.
    """
    descriptors = np.empty((len(image_ids), servable.dimension), np.float32)
    start = 0
    for batch in embedding.embed_batches(
        servable, encoded_images, image_ids, batch_size=batch_size
    ):
        descriptors[start : start + len(batch)] = batch
        start += len(batch)
    return descriptors


def _of_shard(rows: pd.DataFrame, shard: str) -> pd.DataFrame:
    number, _, of = shard.partition("/")
    if not (number.isdigit() and of.isdigit() and int(number) < int(of)):
        raise ValueError(
            "Expected a shard: a number from 0, and how many there are, such "
            f"as 0/8 to 7/8. Received: shard={shard!r}."
        )
    if int(of) > len(rows):
        raise ValueError(
            f"Expected at most {len(rows)} shards, one for each image. "
            f"Received: shard={shard!r}."
        )
    start, stop = (
        len(rows) * edge // int(of) for edge in (int(number), int(number) + 1)
    )
    return rows.iloc[start:stop]


def _find(out: Path, made_from: dict[str, Any]) -> Index | None:
    """The index of `out` if it was made from this; None to build anew."""
    if not (out / "index.json").is_file():
        return None
    changed = atomic_files.read_json(out / "index.json", made_by=COMMAND).get(
        "changes"
    )
    try:
        found = Index.open(out, exact=True)
    except ValueError as error:
        if changed:
            raise
        logging.warning("Building again: %s", error)
        return None
    differing = [
        name
        for name in made_from
        if found.metadata.get(name) != made_from[name]
    ]
    if not differing:
        return found
    if changed:
        raise ValueError(
            "Expected what the index was built from, since images were added "
            f"or removed {changed} times, which building anew would undo. "
            f"Received: index={str(out)!r} of another {', '.join(differing)}. "
            "Build in another folder, or delete this one."
        )
    logging.info("Replacing an index of another %s.", ", ".join(differing))
    return None


def _is_searcher_as_asked(found: Index, asked: dict[str, Any]) -> bool:
    if scann_searcher.scann_module() is None:
        return True
    if any(found.metadata.get(name) != asked[name] for name in asked):
        return False
    described = found.metadata["segments"]
    try:
        for part in described:
            segments.check_sizes(Path(found.path) / part["folder"], part)
    except (OSError, ValueError) as error:
        logging.warning("Building ScaNN again: %s", error)
        return False
    return all(part["scann"] for part in described)


def main(argv) -> None:
    run(IndexOptions.from_flags(beam_flags=argv[1:]))


if __name__ == "__main__":
    flags.start(main, takes_files=True)
