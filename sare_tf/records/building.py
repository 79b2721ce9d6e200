"""Builds records of a dataset.

The images of a place lie together in one shard. The same images and options
give the same bytes, whatever the number of workers. Files that cannot be used
are left out and listed in `rejected.csv`; what is odd is listed in
`warnings.csv`.

A build plans its shards (`shard_plan`), builds each that is not there yet
(`shard_building`) in the folder `.<records>.partial`, and gathers them in a
folder that takes the place of earlier records. A build that was stopped at any
moment resumes. After a change, only the shards whose images changed are built.
A file counts as unchanged if its size and its time of change are the same.
"""

import collections
import contextlib
import csv
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from absl import logging

from sare_tf.dataset import manifest, readers
from sare_tf.dataset.names import ROLES, SPLITS
from sare_tf.dataset.readers.collector import Reading
from sare_tf.records import (
    record_results,
    records,
    resuming,
    shard_building,
    shard_plan,
    unused_images,
)
from sare_tf.records.options import RecordOptions
from sare_tf.records.shard_building import BuiltShard
from sare_tf.records.shard_plan import Plan, Preparation, Shard
from sare_tf.records.sqlite_plan import KeptImages
from sare_tf.runtime import (
    atomic_files,
    sealed_json,
    versions,
)
from sare_tf.runtime.executors import Executor, LocalExecutor
from sare_tf.runtime.resumable_parts import ResumableParts

# Files of finished records.
_FILES = {
    *("manifest.parquet", "records.json", "rejected.csv", "warnings.csv"),
    *("relations.parquet",),
    *(f"{split}-{role}-*.tfrecord" for split in SPLITS for role in ROLES),
}


@contextlib.contextmanager
def _plain_memory() -> Iterator[None]:
    """Uses malloc: Arrow's own pool keeps several times the memory in use."""
    pool = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(pool)


@_plain_memory()
def build(options: RecordOptions, *, executor: Executor | None = None) -> Path:
    """Builds records of a dataset.

    Records of the same images and options are kept as they are. Shards that did
    not change are taken from earlier records, and from a build that was
    stopped.

    Args:
        options: the dataset and the folder of records, which is replaced if it
            holds earlier records.
        executor: builds the shards, on machines that share the folders; None:
            this machine builds them, with `options.num_workers` threads.

    Returns:
        The folder of records.

    Raises:
        FileNotFoundError: no such dataset.
        OSError: the records cannot be written, or the executor failed.
        ValueError: no usable image, an image that changes meanwhile, or a
            folder that holds something else.
    """
    out = Path(options.records)
    atomic_files.settle_folder(out)
    atomic_files.check_replaceable(out, names=_FILES)
    reading = readers.read(options.dataset, **options.reader_options)
    preparation = Preparation(
        verify=options.verify_images,
        longest_side=options.resize_to,
        jpeg_quality=options.reencode_quality,
    )
    plan = shard_plan.make(
        reading,
        shard_mebibytes=options.shard_mebibytes,
        preparation=preparation,
    )
    made_from = {
        "format": shard_plan.FORMAT,
        "reader": options.reader,
        "shard_mebibytes": options.shard_mebibytes,
        "preparation": dataclasses.asdict(preparation),
        "source": _source_digest(reading, plan.shards),
    }
    partial = resuming.partial_folder(out)
    finished = _find_up_to_date(out, made_from)
    if finished:
        record_results.report(
            f"{out} is up to date: nothing to do.", out, finished, action="kept"
        )
        shutil.rmtree(partial, ignore_errors=True)
        return out
    # Refuses a rule that the layout cannot follow before the work begins.
    unused_images.check_rule(
        KeptImages(plan.images, refused=(), relations=reading.relations),
        rule=options.positives,
    )
    for assumption in reading.assumptions:
        logging.warning("%s %s", assumption.message, assumption.action)
    logging.info(
        "Building records of %d images in %s.",
        len(reading.images),
        reading.root,
    )
    _build_shards(
        plan.shards,
        root=reading.root,
        out=out,
        preparation=preparation,
        executor=executor,
        num_workers=options.num_workers or os.cpu_count(),
    )
    with atomic_files.explained_writing("records", out):
        _gather(
            plan, out, reading=reading, made_from=made_from, options=options
        )
    shutil.rmtree(partial)
    return out


class _WithRows(Sequence):
    """Shards with their rows, of which only one is in memory at a time."""

    def __init__(self, shards: Sequence[Shard]):
        self._shards = shards

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: int) -> Shard:
        return self._shards[index].with_rows()


def _build_shards(
    shards: Sequence[Shard],
    *,
    root: Path,
    out: Path,
    preparation: Preparation,
    executor: Executor | None,
    num_workers: int,
) -> None:
    """Builds the shards that neither `out` nor a stopped build has."""
    folder = resuming.partial_folder(out)
    with atomic_files.explained_writing("records", folder):
        folder.mkdir(parents=True, exist_ok=True)
        parts = ResumableParts(folder)
        parts.discard_others({shard.digest for shard in shards})
        shard_building.take_over(shards, finished=out, folder=folder)
    missing = []
    for shard in shards:
        built = shard_building.find(shard, folder)
        if built is None or not built.settled:
            missing.append(shard)
    if len(missing) < len(shards):
        logging.info(
            "Of %d shards, %d are there already.",
            len(shards),
            len(shards) - len(missing),
        )
    items = missing
    if executor is None:
        executor = LocalExecutor(
            "build records", unit="image", size=lambda shard: shard.count
        )
    else:
        # Workers have another working directory, and no list of images.
        root, folder, num_workers = root.resolve(), folder.resolve(), 1
        items = _WithRows(missing)
    build_shard = functools.partial(
        shard_building.build,
        root=root,
        folder=folder,
        preparation=preparation,
        num_workers=num_workers,
    )
    executor.map(build_shard, items, folder=folder)


def _gather(
    plan: Plan,
    out: Path,
    *,
    reading: Reading,
    made_from: dict[str, Any],
    options: RecordOptions,
) -> None:
    """Makes records of shards that are all built.

    Raises:
        OSError: a shard is missing.
        ValueError: there is no image in them.
    """
    built = shard_building.find_all(plan.shards, resuming.partial_folder(out))
    rejected = [*reading.rejected]
    for shard in built.values():
        rejected += shard.rejected
    count = sum(shard.count for shard in built.values())
    if not count:
        raise ValueError(
            "Expected at least one image that can be decoded. Received: "
            f"{len(rejected)} files, none of them. Check --dataset."
        )
    refused = [name for shard in built.values() for name, _ in shard.rejected]
    relations = _without(reading.relations, refused)
    kept = KeptImages(plan.images, refused=refused, relations=relations)
    misses = collections.Counter()
    warnings = _counted(
        itertools.chain(
            unused_images.find(
                kept, rule=options.positives, radius_m=options.positive_radius_m
            ),
            _damaged(built),
        ),
        misses,
    )
    with atomic_files.folder_in_one_piece(out) as folder:
        for name, shard in built.items():
            atomic_files.link_or_copy(shard.path, folder / name)
        if relations is not None:
            records.write_relations(relations, folder)
        listed = {
            name: _write_csv(folder / f"{name}.csv", header, rows)
            for name, header, rows in (
                ("rejected", ("path", "reason"), sorted(rejected)),
                ("warnings", ("what", "warning"), warnings),
            )
        }
        counts = kept.counts()
        manifest.write_parts(_tables(built), folder / "manifest.parquet")
        metadata = {
            "count": count,
            "counts": counts,
            **{name: number for name, (number, _) in listed.items()},
            "relations": None if relations is None else len(relations),
            "fingerprint": records.fingerprint(_tables(built), relations),
            "shards": {
                shard.name: shard_building.entry(shard, built[shard.name])
                for shard in plan.shards
            },
            "digests": records.digests_of(folder),
            "made_from": made_from,
            "versions": versions.of("tensorflow"),
        }
        sealed_json.write(folder / "records.json", metadata)
    _log_listed(out, listed)
    record_results.report_made(
        out, metadata, without_positive=misses[unused_images.WITHOUT_POSITIVE]
    )


def _damaged(built: dict[str, BuiltShard]) -> Iterator[tuple[str, str]]:
    """Yields damaged JPEGs that were kept, and libjpeg's complaint."""
    for shard in built.values():
        for image_id, complaint in shard.complaints:
            yield image_id, f"damaged JPEG, which decodes: {complaint}"


def _counted(
    warnings: Iterable[tuple[str, str]], counter: collections.Counter
) -> Iterator[tuple[str, str]]:
    """Yields warnings, and counts how often there is each."""
    for what, warning in warnings:
        counter[warning] += 1
        yield what, warning


def _without(
    relations: pd.DataFrame | None, refused: Sequence[str]
) -> pd.DataFrame | None:
    """Leaves out relations of images that were refused."""
    if relations is None:
        return None
    is_refused = relations["query"].isin(refused) | relations["database"].isin(
        refused
    )
    return relations[~is_refused].reset_index(drop=True)


def _tables(built: dict[str, BuiltShard]) -> Iterator[pd.DataFrame]:
    """Yields the manifest, one shard after the other."""
    for name, shard in built.items():
        yield shard.rows().assign(shard=name)


def _source_digest(reading: Reading, shards: Sequence[Shard]) -> str:
    """Digests names, rows, sizes and times: changes if a file does."""
    digest = hashlib.sha256()
    digest.update(json.dumps([shard.digest for shard in shards]).encode())
    digest.update(json.dumps(reading.rejected).encode())
    if reading.relations is not None:
        digest.update(reading.relations.to_csv(index=False).encode())
    return digest.hexdigest()


def _find_up_to_date(
    out: Path, made_from: dict[str, Any]
) -> dict[str, Any] | None:
    """Returns the metadata of equal records; None if there are none."""
    metadata = resuming.read_if_equal(records.read_metadata, out, made_from)
    # A file that could not be read is tried again.
    if metadata and all(s["source"] for s in metadata["shards"].values()):
        return metadata
    return None


def _write_csv(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]
) -> tuple[int, Sequence[str]]:
    """Writes rows, and returns their number and the first row."""
    count, first = 0, ()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            writer.writerow(row)
            first = first or row
            count += 1
    return count, first


def _log_listed(
    out: Path, listed: dict[str, tuple[int, Sequence[str]]]
) -> None:
    for name, (number, first) in listed.items():
        if number:
            logging.warning(
                "%d %s, listed in %s; the first: %s: %s",
                number,
                name,
                out / f"{name}.csv",
                *first,
            )
