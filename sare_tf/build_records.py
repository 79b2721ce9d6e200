"""photographs -> records/: sharded TFRecord files and the manifest.

    python -m sare_tf.build_records --flagfile=configs/demo.flags
    python -m sare_tf.build_records --flagfile=configs/demo.flags --verify

The images of a place lie together in one shard. The same images and flags give
the same bytes, whatever the number of workers. What cannot be used is left out
and listed in `rejected.csv`; what is odd is listed in `warnings.csv`.

A run plans its shards (`record_plan`), builds each that is not there yet
(`record_shards`) in the folder `.<records>.partial`, and gathers them in a
folder that takes the place of earlier records. Stopped at any moment, it is
taken up where it was; after a change, the shards whose images changed are
built anew. A file is taken for the same if its size and its time of change
are. `--verify` reads finished records and compares them with what was built.
"""

import contextlib
import csv
import dataclasses
import functools
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import tensorflow as tf
from absl import logging
from tqdm import tqdm

import sare_tf
from sare_tf import flags
from sare_tf.dataset import manifest, readers
from sare_tf.dataset.readers import reading as dataset_reading
from sare_tf.distributed import beam
from sare_tf.records import (
    records,
    shard_building,
    shard_plan,
    tuple_records,
    unused_images,
    verification,
)
from sare_tf.records.options import RecordOptions
from sare_tf.records.shard_plan import Preparation, Shard
from sare_tf.runtime import atomic_files


@contextlib.contextmanager
def _plain_memory() -> Iterator[None]:
    """Arrow's own pool keeps what is freed, several times what is in use."""
    pool = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(pool)


def run(
    options: RecordOptions, *, engine: Callable[..., None] | None = None
) -> Path:
    """Builds records, or tuple records, or verifies records.

    Records of the same images and options are kept as they are; of others, and
    of a run that was stopped, the shards that did not change are.

    Args:
        options: the dataset, or the list of tuples, and what is built; the
            folder is replaced if it holds earlier records.
        engine: what builds shards, called as `build_here` is, which it
            defaults to. It leaves them in `folder` by `shard_building.build`.

    Returns:
        The folder of what was built or verified.

    Raises:
        FileNotFoundError: no such dataset.
        ValueError: no usable image, or a folder that holds something else.
    """
    runner = beam.from_options(options)
    for_each = runner and runner.map
    if options.verify:
        verify(options.records, num_workers=options.num_workers)
        return Path(options.records)
    if options.tuple_list is not None:
        return tuple_records.build(
            records=options.records,
            tuple_list=options.tuple_list,
            out=options.tuples,
            shard_mebibytes=options.shard_mebibytes,
            seed=options.seed,
            for_each=for_each,
        )
    if for_each:
        engine = functools.partial(build_by, for_each=for_each)
    return _build(options, engine)


@_plain_memory()
def _build(options: RecordOptions, engine: Callable[..., None] | None) -> Path:
    """Builds records of a dataset."""
    out = Path(options.records)
    atomic_files.settle_folder(out)
    _check_replaceable(out)
    reading = readers.read(
        options.dataset,
        reader=options.reader,
        split_fractions=options.split_fractions,
        query_fraction=options.query_fraction,
        utm_zone=options.utm_zone,
        seed=options.seed,
    )
    preparation = Preparation(
        verify=options.verify_images,
        longest_side=options.resize_to,
        jpeg_quality=options.reencode_quality,
    )
    shards = shard_plan.make(
        reading,
        shard_mebibytes=options.shard_mebibytes,
        preparation=preparation,
    )
    made_from = {
        "format": shard_plan.FORMAT,
        "reader": options.reader,
        "shard_mebibytes": options.shard_mebibytes,
        "preparation": dataclasses.asdict(preparation),
        "source": _source_digest(reading, shards),
    }
    partial = out.with_name(f".{out.name}.partial")
    if _is_up_to_date(out, made_from):
        logging.info("%s is up to date: nothing to do.", out)
        shutil.rmtree(partial, ignore_errors=True)
        return out
    # Refuses a rule that the layout cannot follow now, not after the work.
    unused_images.check_rule(
        reading.listing, rule=options.positives, relations=reading.relations
    )
    logging.info(
        "Building records of %d images in %s.",
        len(reading.listing),
        reading.root,
    )
    with atomic_files.explained_writing("records", partial):
        partial.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(partial, shards)
        shard_building.reuse(shards, finished=out, folder=partial)
    missing = []
    for shard in shards:
        built = shard_building.find(shard, partial)
        if built is None or not built.settled:
            missing.append(shard)
    if len(missing) < len(shards):
        logging.info(
            "Of %d shards, %d are there already.",
            len(shards),
            len(shards) - len(missing),
        )
    engine = engine or functools.partial(
        build_here, num_workers=options.num_workers
    )
    engine(missing, root=reading.root, folder=partial, preparation=preparation)
    with atomic_files.explained_writing("records", out):
        _gather(
            shards,
            partial,
            out,
            reading=reading,
            made_from=made_from,
            rule=options.positives,
            radius_m=options.positive_radius_m,
        )
    shutil.rmtree(partial)
    return out


def _remove_leftovers(partial: Path, shards: Sequence[Shard]) -> None:
    """Of a stopped run: shards half written, and those not wanted any more."""
    wanted = {shard.digest for shard in shards}
    for path in partial.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name.partition(".")[0] not in wanted:
            path.unlink()


def verify(path: str | Path, *, num_workers: int = 0) -> None:
    """Reads finished records whole, and compares them with what was built.

    Args:
        path: their folder.
        num_workers: shards read at a time; 0: one per core.

    Raises:
        FileNotFoundError: no finished records are there.
        ValueError: they are damaged; each damage is logged.
    """
    path = Path(path)
    damage = verification.find_damage(
        path, num_workers=num_workers or os.cpu_count()
    )
    for found in damage:
        logging.error("%s", found)
    if damage:
        names = sorted({found.file for found in damage})
        raise ValueError(
            f"Expected records as they were built. Received: "
            f"records={str(path)!r} with {len(damage)} damages, in "
            f"{', '.join(names[:5])}{', ...' * (len(names) > 5)}. Delete what "
            f"is damaged and run {records.COMMAND} again: other shards are "
            "kept."
        )
    logging.info("%s is whole.", path)


def build_here(
    shards: Sequence[Shard],
    *,
    root: Path,
    folder: Path,
    preparation: Preparation,
    num_workers: int = 0,
) -> None:
    """Builds shards one after the other, on the cores of this machine.

    Threads read and check images ahead: that leaves the interpreter's lock.
    """
    num_workers = num_workers or os.cpu_count()
    count = sum(shard.count for shard in shards)
    with (
        ThreadPoolExecutor(num_workers) as pool,
        tqdm(
            total=count, unit="image", desc="build records", leave=False
        ) as bar,
    ):

        def ahead(function: Callable, batches: Iterable) -> Iterator:
            waiting = deque()
            for batch in batches:
                waiting.append(pool.submit(function, batch))
                bar.update(len(batch))
                if len(waiting) > 2 * num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        for shard in shards:
            shard_building.build(
                shard,
                root=root,
                folder=folder,
                preparation=preparation,
                in_order=ahead,
            )


def build_by(
    shards: Sequence[Shard],
    *,
    root: Path,
    folder: Path,
    preparation: Preparation,
    for_each: Callable[..., None],
) -> None:
    """Builds shards by an `Executor.map`."""
    build = functools.partial(
        shard_building.build,
        root=root.resolve(),
        folder=folder.resolve(),
        preparation=preparation,
    )
    for_each(build, shards, folder=folder)


def _gather(
    shards: Sequence[Shard],
    partial: Path,
    out: Path,
    *,
    reading: dataset_reading.Reading,
    made_from: dict[str, Any],
    rule: str,
    radius_m: float,
) -> None:
    """Makes records of shards that are all built.

    Raises:
        ValueError: one is missing, or there is no image in them.
    """
    built = {
        shard.name: shard_building.find(shard, partial) for shard in shards
    }
    absent = [name for name, shard in built.items() if shard is None]
    if absent:
        raise ValueError(
            f"Expected every shard to be built. Received: {len(absent)} of "
            f"{len(shards)} are not in {str(partial)!r}, such as {absent[0]}. "
            "Run the command again."
        )
    rejected = list(reading.rejected)
    for shard in built.values():
        rejected += shard.rejected
    count = sum(shard.count for shard in built.values())
    if not count:
        raise ValueError(
            "Expected at least one image that can be decoded. Received: "
            f"{len(rejected)} files, none of them. Check --dataset."
        )
    refused = [name for shard in built.values() for name, _ in shard.rejected]
    relations = reading.relations
    if relations is not None:
        # Of images that were refused, an answer cannot be found.
        relations = relations[
            ~relations["query"].isin(refused)
            & ~relations["database"].isin(refused)
        ]
        relations = relations.reset_index(drop=True)
    warnings = unused_images.find(
        reading.listing,
        refused=refused,
        rule=rule,
        radius_m=radius_m,
        relations=relations,
    )

    def parts() -> Iterator[pd.DataFrame]:
        for name, shard in built.items():
            yield shard.rows().assign(shard=name)

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
        counts = unused_images.counts(reading.listing)
        manifest.write_parts(parts(), folder / "manifest.parquet")
        atomic_files.write_json(
            folder / "records.json",
            {
                "count": count,
                "counts": counts,
                **{name: number for name, (number, _) in listed.items()},
                "relations": None if relations is None else len(relations),
                "fingerprint": records.fingerprint(parts(), relations),
                "shards": {
                    shard.name: shard_building.entry(shard, built[shard.name])
                    for shard in shards
                },
                "made_from": made_from,
                "versions": {
                    "sare_tf": sare_tf.__version__,
                    "tensorflow": tf.__version__,
                },
            },
        )
    _tell(out, counts, listed)


def _source_digest(
    reading: dataset_reading.Reading, shards: Sequence[Shard]
) -> str:
    """Digest of names, rows, sizes and times: changes when a file does."""
    digest = hashlib.sha256()
    digest.update(json.dumps([shard.digest for shard in shards]).encode())
    digest.update(json.dumps(reading.rejected).encode())
    if reading.relations is not None:
        digest.update(reading.relations.to_csv(index=False).encode())
    return digest.hexdigest()


def _is_up_to_date(out: Path, made_from: dict[str, Any]) -> bool:
    if not (out / "records.json").is_file():
        return False
    try:
        metadata = records.read_metadata(out)
        found = metadata["made_from"]
    except (KeyError, ValueError) as error:
        logging.warning("Building again: %s", error)
        return False
    differing = [
        name for name in made_from if found.get(name) != made_from[name]
    ]
    if differing:
        logging.info("Replacing records of another %s.", ", ".join(differing))
        return False
    # What could not be read is tried again.
    return all(shard["source"] for shard in metadata["shards"].values())


def _check_replaceable(out: Path) -> None:
    """Refuses to replace a folder that is no records folder."""
    if not out.exists() or (out / "records.json").is_file():
        return
    if not out.is_dir() or any(out.iterdir()):
        raise ValueError(
            "Expected a new or empty folder, or earlier records. Received: "
            f"out={str(out)!r}, which holds something else and would be "
            "replaced. Choose another --records."
        )


def _write_csv(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]
) -> tuple[int, Sequence[str]]:
    """Writes rows; gives their number and the first."""
    count, first = 0, ()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            writer.writerow(row)
            first = first or row
            count += 1
    return count, first


def _tell(
    out: Path,
    counts: dict[str, int],
    listed: dict[str, tuple[int, Sequence[str]]],
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
    logging.info(
        "Records in %s: %s. Next: python -m sare_tf.train --flagfile=...",
        out,
        ", ".join(f"{number} {name}" for name, number in counts.items()),
    )


def main(argv) -> None:
    run(RecordOptions.from_flags(beam_flags=argv[1:]))


if __name__ == "__main__":
    flags.start(main, takes_files=True)
