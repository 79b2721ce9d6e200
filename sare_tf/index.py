"""export/ + records/ -> index/: the database of a split, ready to search.

    python -m sare_tf.index --flagfile=sare_tf:demo
    python -m sare_tf.index --flagfile=... --add_records=runs/more/records
    python -m sare_tf.index --flagfile=... --remove_ids=ids.txt
    python -m sare_tf.index --flagfile=... --compact
    python -m sare_tf.index --flagfile=... --runner=FlinkRunner -- ...

    descriptors.npy   float32 or float16 [N, D], rows of unit length; or
    codes.npy         codes of a quarter to a 32nd of float32, with codec.npz
    manifest.parquet  row i describes row i of the descriptors
    scann/            ScaNN's searcher, movable; absent where ScaNN is
    index.json        dimension, count, and what all this was made from

Descriptors are written as a stream: memory holds a batch of images, and a run
that was killed is resumed. ScaNN needs more memory, see `scann_searcher`. Up to
20,000 images ScaNN compares a query with all of them. Above, results are
approximate: settings follow rules, or are tuned to --target_recall, with
--tune_tree by a choice of trees, too. `evaluate` measures what approximate
search misses. Distances are squared Euclidean.

With --local_features, local features of the images are stored as well; the log
says how large they are. Store them again after a change of the index: only
those of new images are computed.

With --augment_database=10, the descriptor of an image is that of its
surroundings: its nearest images are added to it. No images can be added to such
an index. --neighbour_graph=50 stores the nearest images of each, for
--rerank=diffusion and k_reciprocal of evaluate. --offline_diffusion=1000 stores
what diffusion from each gives its nearest images, for
--rerank=offline_diffusion, by which a query costs less.

With --runner, workers of Apache Beam embed parts of the images, which are then
put together: the files are the same (docs/beam.md).

Added images become a segment of their own, and removed ones are passed over.
Both take as long as the change, not the database. Segments are merged by and
by, see `segment_merging`, so that many changes keep the index quick and small;
--compact makes one of all. One such command runs at a time; the index may be
searched meanwhile.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from absl import logging

from sare_tf import flags, serving
from sare_tf.distributed import beam
from sare_tf.landmarks import (
    augmented_descriptors,
    expansion,
    neighbour_graph,
    offline_diffusion,
)
from sare_tf.local_features import extractors
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files, flagfiles, run_lock
from sare_tf.runtime.executors import Executor
from sare_tf.search import (
    descriptor_arrays,
    index_changes,
    index_files,
    index_size,
    local_index,
    scann_searcher,
    segment_building,
    segment_merging,
    segments,
)
from sare_tf.search.opened_index import Index
from sare_tf.search.options import IndexOptions, TuningOptions

_AUGMENTATION = ("augment_database", "expand_alpha")


@run_lock.one_at_a_time("index")
def run(options: IndexOptions, *, executor: Executor | None = None) -> Path:
    """Builds the index, or makes the change to it that options name.

    An index of the same export, records, split and dtype is kept, with what was
    added and removed since. Only ScaNN is built again if `target_recall` or
    `tune_tree` is another.

    Args:
        options: the index, which is replaced if it exists, and what it is
            built from; or the change.
        executor: embeds parts of the images; None: the runner of the options,
            or else this process.

    Returns:
        The folder of the index.

    Raises:
        FileNotFoundError: records or export are absent or unfinished.
        ImportError, OSError: the executor failed, or another run writes the
            index.
        ValueError: no such images or shard, a descriptor that is not a finite
            unit vector, a folder that holds something else, or an index with
            changes that another export or records would lose.
    """
    executor = executor or beam.from_options(options)
    extractor = None
    if options.local_features:
        extractor = extractors.load(
            options.local_features,
            count=options.local_count,
            longest_side=options.local_side,
        )
    out = _build_or_change(options, executor)
    if extractor is not None:
        local_index.store(
            out,
            extractor,
            records=[
                path for path in (options.records, options.add_records) if path
            ],
        )
    if options.neighbour_graph or options.offline_diffusion:
        opened = Index.open(out, exact=True, check=False)
        if options.neighbour_graph:
            neighbour_graph.store(opened, options.neighbour_graph)
        if options.offline_diffusion:
            offline_diffusion.store(opened, options.offline_diffusion, options)
    return out


def _build_or_change(options: IndexOptions, executor: Executor | None) -> Path:
    if options.add_records:
        return index_changes.add(
            index=options.index,
            records=options.add_records,
            export=serving.named(options),
            split=options.split,
            batch_size=options.batch_size,
            executor=executor,
            stale=options.compact_when_stale,
        )
    if options.remove_ids:
        return index_changes.remove(
            index=options.index,
            ids=options.remove_ids,
            stale=options.compact_when_stale,
        )
    if options.compact:
        return index_changes.compact(
            index=options.index, tuning=options.part(TuningOptions)
        )
    return _build(options, executor)


def _build(options: IndexOptions, executor: Executor | None) -> Path:
    """Embeds the database images of a split and builds the index."""
    out = Path(options.index)
    tuning = options.part(TuningOptions)
    atomic_files.put_back(out)
    atomic_files.check_replaceable(out, names=index_files.NAMES)
    records = Records(options.records)
    rows = _rows_of_shard(records.rows(options.split, "database"), options)
    servable = serving.load(serving.named(options))
    made_from = {
        "export_fingerprint": servable.fingerprint,
        "records_fingerprint": records.fingerprint,
        "split": options.split,
        "shard": options.index_shard,
        "dtype": options.index_dtype,
        **_augmentation(options, len(rows)),
    }
    finished = _find(out, made_from)
    if finished:
        descriptor_arrays.remove_coded(out)
        if _is_tuned(finished, tuning):
            index_changes.report(
                f"{out} is up to date: nothing to do.",
                out,
                finished.metadata,
                action="kept",
                next_command=flagfiles.next_command("evaluate"),
            )
            return out
        return index_changes.compact(index=out, tuning=tuning)
    dtype, dimension = options.index_dtype, servable.dimension
    index_size.check(out, len(rows), dimension, dtype=dtype, tuning=tuning)
    with atomic_files.folder_to_resume(
        out,
        {**made_from, "batch_size": options.batch_size, "count": len(rows)},
    ) as unfinished:
        segment_building.embed(
            unfinished,
            records,
            rows,
            servable,
            batch_size=options.batch_size,
            dtype=descriptor_arrays.dtype_embedded(dtype),
            executor=executor,
        )
        augmented_descriptors.augment(unfinished.folder, options)
        index_files.write_new(
            unfinished.folder,
            segments.finish(unfinished.folder, rows, tuning, dtype=dtype),
            made_from=made_from,
            dimension=dimension,
            tuning=tuning,
        )
    descriptor_arrays.remove_coded(out)
    index_changes.report(
        f"Index of {len(rows)} images in {out}.",
        out,
        index_files.read(out),
        action="made",
        next_command=flagfiles.next_command("evaluate"),
    )
    return out


def _augmentation(options: IndexOptions, images: int) -> dict[str, Any]:
    """What index.json says of database augmentation; nothing without it."""
    count = options.augment_database
    expansion.check_count("augment_database", count, images - 1)
    names = _AUGMENTATION if count else ()
    return {name: getattr(options, name) for name in names}


def _rows_of_shard(rows: pd.DataFrame, options: IndexOptions) -> pd.DataFrame:
    """Returns the rows of a shard: shards are equal but for one row."""
    number, count = options.shard
    if count > len(rows):
        raise ValueError(
            f"Expected at most {len(rows)} shards, one for each image. "
            f"Received: index_shard={options.index_shard!r}."
        )
    first, stop = (len(rows) * edge // count for edge in (number, number + 1))
    return rows.iloc[first:stop]


def _find(out: Path, made_from: dict[str, Any]) -> Index | None:
    """Returns the index in a folder, or None if it must be built anew.

    Raises:
        ValueError: building anew would lose changes, or descriptors of a
            caller.
    """
    if not (out / "index.json").is_file():
        return None
    changes = None
    try:
        changes = index_files.read(out)["changes"]
        index = Index.open(out, exact=True)
    except ValueError as error:
        if changes != 0:
            raise
        logging.warning("Building again: %s", error)
        return None
    differing = [
        name
        for name in dict.fromkeys([*made_from, *_AUGMENTATION])
        if index.metadata.get(name) != made_from.get(name)
    ]
    if not differing:
        return index
    if index.metadata["export_fingerprint"] is None:
        raise ValueError(
            "Expected an index that this stage built, or a new folder. "
            f"Received: index={str(out)!r}, which Index.build made from "
            "descriptors. Build in another folder, or delete this one."
        )
    if changes:
        raise ValueError(
            "Expected what the index was built from, since images were added "
            f"or removed {changes} times, which building anew would undo. "
            f"Received: index={str(out)!r} of another {', '.join(differing)}. "
            "Build in another folder, or delete this one."
        )
    logging.info("Replacing an index of another %s.", ", ".join(differing))
    return None


def _is_tuned(index: Index, tuning: TuningOptions) -> bool:
    """Returns whether the searchers of an index are those asked for."""
    if scann_searcher.scann_module() is None:
        return True
    metadata = index.metadata
    if segment_merging.tuning_of(metadata) != tuning:
        return False
    try:
        for segment in metadata["segments"]:
            segments.check_files(Path(index.path) / segment["folder"], segment)
    except (OSError, ValueError) as error:
        logging.warning("Building ScaNN again: %s", error)
        return False
    return all(segment["scann"] for segment in metadata["segments"])


def main(argv) -> None:
    run(IndexOptions.from_flags(beam_flags=argv[1:]))


if __name__ == "__main__":
    flags.start(main, takes_files=True)
