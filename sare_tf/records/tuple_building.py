"""Builds tuple records of records and a list of tuples, see `tuple_records`."""

import dataclasses
import functools
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging

from sare_tf.dataset import tuple_lists
from sare_tf.records import resuming
from sare_tf.records.records import Records, serialise_features
from sare_tf.records.tuple_records import COMMAND, TupleRecords, one_line
from sare_tf.runtime import (
    atomic_files,
    file_digests,
    flagfiles,
    sealed_json,
    stage_results,
    versions,
)
from sare_tf.runtime.executors import Executor, LocalExecutor
from sare_tf.runtime.resumable_parts import ResumableParts

# Version of the bytes of shards.
FORMAT = 1
_SHARD_NAME = "tuples-{:05d}-of-{:05d}.tfrecord"
# Files of finished tuple records.
_FILES = {"tuples-*.tfrecord", "tuples.parquet", "tuples.json"}


@dataclasses.dataclass(frozen=True)
class TupleShard:
    """One shard to build. It can be pickled.

    Attributes:
        name: of its file.
        positions: int64 [m, T], of its tuples, in the manifest of the records.
        records_fingerprint: of the records.
        digest: of everything that its content depends on.
    """

    name: str
    positions: np.ndarray
    records_fingerprint: str
    digest: str


def build(
    *,
    records: str | Path,
    tuple_list: str | Path,
    out: str | Path,
    shard_mebibytes: int = 128,
    seed: int = 0,
    executor: Executor | None = None,
) -> Path:
    """Builds tuple records. Memory holds the list, and one tuple at a time.

    Tuple records of the same records, list and options are kept as they are, as
    are finished shards of a build that was stopped.

    Args:
        records: folder of records.
        tuple_list: list of tuples of images of its train split, see
            `tuple_lists`.
        out: folder of the tuple records; replaced if it holds some.
        shard_mebibytes: about the size of one shard.
        seed: of the order of the tuples.
        executor: builds the shards, on machines that share the folders; None:
            this process builds them.

    Returns:
        `out`.

    Raises:
        FileNotFoundError: no records, or no list.
        OSError: the tuple records cannot be written, or the executor failed.
        ValueError: records and list are damaged or do not fit, or `out` holds
            something else.
    """
    out = Path(out)
    source = Records(records)
    table, positions = _ordered_tuples(source, tuple_list, seed)
    made_from = {
        "format": FORMAT,
        "shard_mebibytes": shard_mebibytes,
        "tuples": hashlib.sha256(positions.tobytes()).hexdigest(),
        "records_fingerprint": source.fingerprint,
    }
    atomic_files.check_replaceable(out, names=_FILES)
    partial = resuming.partial_folder(out)
    if resuming.read_if_equal(_read_metadata, out, made_from) is not None:
        _report(f"{out} is up to date: nothing to do.", out, positions, "kept")
        shutil.rmtree(partial, ignore_errors=True)
        return out
    shards = _plan(source, positions, shard_mebibytes << 20)
    _build_shards(shards, source.path, partial, executor)
    _gather(shards, partial, out, table=table, made_from=made_from)
    shutil.rmtree(partial)
    tuples, images = positions.shape
    _report(
        f"{tuples} tuples of {images} images in {out}.", out, positions, "made"
    )
    return out


def _report(text: str, out: Path, positions: np.ndarray, action: str) -> None:
    tuples, images = positions.shape
    stage_results.report(
        "build_records",
        text,
        path=out,
        action=f"tuples {action}",
        count=tuples,
        counts=None,
        rejected=None,
        warnings=None,
        next_command=flagfiles.next_command("train", f"--tuples={out}"),
    )


def _ordered_tuples(
    source: Records, tuple_list: str | Path, seed: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Reads a list, and puts it in a random order.

    Returns:
        The list, [M, T], and its positions in the manifest, int64 [M, T].
    """
    table = tuple_lists.read(tuple_list)
    rows = source.manifest[source.manifest["split"] == "train"]
    positions = rows.index.to_numpy()[tuple_lists.find(table, rows)]
    order = np.random.default_rng(seed).permutation(len(positions))
    return table.iloc[order].reset_index(drop=True), positions[order]


def _plan(
    source: Records, positions: np.ndarray, wanted_bytes: int
) -> list[TupleShard]:
    """Cuts tuples at positions [M, T] into shards of about a size."""
    lengths = source.manifest["byte_length"].to_numpy()[positions].sum(axis=1)
    before = np.cumsum(lengths) - lengths
    _, first = np.unique(before // wanted_bytes, return_index=True)
    shards = []
    for number, of_shard in enumerate(np.split(positions, first[1:])):
        digest = hashlib.sha256(f"{FORMAT} {source.fingerprint}".encode())
        digest.update(of_shard.tobytes())
        shards.append(
            TupleShard(
                _SHARD_NAME.format(number, len(first)),
                of_shard,
                source.fingerprint,
                digest.hexdigest(),
            )
        )
    return shards


def _build_shards(
    shards: list[TupleShard],
    records: Path,
    partial: Path,
    executor: Executor | None,
) -> None:
    """Builds the shards that a stopped build has not."""
    partial.mkdir(parents=True, exist_ok=True)
    parts = ResumableParts(partial)
    missing = [shard for shard in shards if not parts.find(shard.digest)]
    logging.info(
        "Building %d shards of tuples; %d are there already.",
        len(missing),
        len(shards) - len(missing),
    )
    executor = executor or LocalExecutor("build tuples", unit="shard")
    executor.map(
        functools.partial(write_shard, folder=partial.resolve()),
        missing,
        folder=partial,
        load=functools.partial(Records, records.resolve()),
    )


def write_shard(shard: TupleShard, source: Records, *, folder: Path) -> None:
    """Builds a shard.

    Args:
        shard: the shard.
        source: the records.
        folder: where its part goes; it exists.

    Raises:
        OSError: the shard cannot be written.
        ValueError: the records are damaged, or not those of the plan.
    """
    if source.fingerprint != shard.records_fingerprint:
        raise ValueError(
            "Expected the records that the tuples were planned for. Received: "
            f"records={str(source.path)!r}, which have changed. Run the "
            "command again."
        )
    rows = source.manifest.iloc[shard.positions.reshape(-1)]
    image_ids = rows["image_id"].to_numpy(object).reshape(shard.positions.shape)
    encoded = source.read_images(rows)
    parts = ResumableParts(folder)
    with parts.write(shard.digest, what=f"the shard {shard.name}") as part:
        part.facts["count"] = len(shard.positions)
        try:
            with tf.io.TFRecordWriter(str(part.path(".tfrecord"))) as writer:
                for names in image_ids:
                    example = {
                        "image/encoded": [next(encoded) for _ in names],
                        "image/id": [name.encode() for name in names],
                    }
                    writer.write(serialise_features(example))
        except tf.errors.OpError as error:
            raise OSError(one_line(error)) from error


def _gather(
    shards: list[TupleShard],
    partial: Path,
    out: Path,
    *,
    table: pd.DataFrame,
    made_from: dict[str, Any],
) -> None:
    """Makes tuple records of shards that are all built.

    Raises:
        OSError: a shard is missing.
    """
    parts = ResumableParts(partial).gather([shard.digest for shard in shards])
    fingerprint = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    with atomic_files.folder_in_one_piece(out) as folder:
        entries = {}
        for shard, part in zip(shards, parts, strict=True):
            path = part.path(".tfrecord")
            atomic_files.link_or_copy(path, folder / shard.name)
            entries[shard.name] = {
                "count": part.facts["count"],
                "bytes": part.sizes[".tfrecord"],
            }
        tuple_lists.write(table, folder / "tuples.parquet")
        sealed_json.write(
            folder / "tuples.json",
            {
                "count": len(table),
                "images_per_tuple": len(table.columns),
                "fingerprint": fingerprint,
                "shards": entries,
                "digests": file_digests.of(folder, ["tuples.parquet"]),
                "made_from": made_from,
                "versions": versions.of("tensorflow"),
            },
        )


def _read_metadata(out: Path) -> dict[str, Any]:
    """Reads tuples.json, once the files beside it are as it says."""
    metadata = sealed_json.read(
        out / "tuples.json", made_by=COMMAND, types={"made_from": dict}
    )
    TupleRecords(out).table()
    return metadata
