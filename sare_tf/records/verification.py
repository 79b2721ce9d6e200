"""Compares finished records with what was built, and reads every byte once.

    python -m sare_tf.build_records --verify --flagfile=sare_tf:demo

Compared with records.json and the manifest are the files and their sizes, where
each record starts and ends, its checksums, its image_id and the digest of its
image. Manifest and relations are compared with their digests and with the
fingerprint. Records of version 0.1 have no digests: their places and offsets
are compared with the shards only.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging
from google.protobuf import message

from sare_tf.dataset import manifest
from sare_tf.records import frames, record_results, records
from sare_tf.runtime import file_digests, progress

_BUFFER_BYTES = 1 << 20


class Damage(NamedTuple):
    """A difference from what was built.

    Attributes:
        file: name in the folder.
        byte_offset: offset in the file, or -1 for the whole file.
        what: the damage in words.
    """

    file: str
    byte_offset: int
    what: str

    def __str__(self) -> str:
        offset = f" at byte {self.byte_offset}" if self.byte_offset >= 0 else ""
        return f"{self.file}{offset}: {self.what}"


def verify(path: str | Path, *, num_workers: int = 0) -> Path:
    """Reads finished records, and compares them with what was built.

    Args:
        path: their folder.
        num_workers: shards read at a time; 0: one per core.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: no finished records are there.
        ValueError: they are damaged; each damage is logged.
    """
    path = Path(path)
    damages = find_damage(path, num_workers=num_workers or os.cpu_count())
    for damage in damages:
        logging.error("%s", damage)
    if damages:
        names = sorted({damage.file for damage in damages})
        raise ValueError(
            f"Expected records as they were built. Received: "
            f"records={str(path)!r} with {len(damages)} damages, in "
            f"{', '.join(names[:5])}{', ...' * (len(names) > 5)}. Delete what "
            f"is damaged and run {records.COMMAND} again: other shards are "
            "kept."
        )
    if "digests" not in records.read_json(path):
        logging.warning(
            "%s has no digests of manifest.parquet and records.json, since an "
            "earlier version built it: whatever opens it cannot tell whether "
            "they have changed. To add digests, delete the folder and run %s "
            "again.",
            path,
            records.COMMAND,
        )
    record_results.report(
        f"{path} is whole.", path, records.read_json(path), action="verified"
    )
    return path


def find_damage(path: str | Path, *, num_workers: int = 1) -> list[Damage]:
    """Reads every byte of records, and lists what is damaged.

    Args:
        path: their folder.
        num_workers: threads, each of which reads one shard.

    Returns:
        Damages by shard and offset; empty if there are none.

    Raises:
        FileNotFoundError: no finished records are there.
        ValueError: records.json is damaged, or of an earlier version.
    """
    path = Path(path)
    metadata = records.read_json(path)
    sizes = {n: s["bytes"] for n, s in metadata["shards"].items()}
    counts = {n: s["count"] for n, s in metadata["shards"].items()}
    damage, table = _check_tables(path, metadata)
    unknown = {file.name for file in path.glob("*.tfrecord")} - set(sizes)
    damage += [
        Damage(name, -1, "a shard that records.json does not name")
        for name in sorted(unknown)
    ]
    if table is None:
        return damage
    rows = dict(list(table.groupby("shard", sort=False)))
    with (
        progress.bar("verify", total=len(table)) as bar,
        ThreadPoolExecutor(num_workers) as pool,
    ):

        def check(name: str) -> list[Damage]:
            of_shard = rows.get(name, table[:0])
            if len(of_shard) != counts[name]:
                what = f"{counts[name]} images, of which the manifest has "
                return [Damage(name, -1, f"{what}{len(of_shard)}")]
            damages = list(_check_shard(path / name, of_shard, sizes[name]))
            bar.update(len(of_shard))
            return damages

        for of_shard in pool.map(check, sizes):
            damage += of_shard
    return damage


def _check_tables(
    path: Path, metadata: dict[str, Any]
) -> tuple[list[Damage], pd.DataFrame | None]:
    """Checks manifest and relations; returns the manifest if it is usable."""
    damage = []
    # Files that cannot be read are named below.
    with contextlib.suppress(OSError):
        names = file_digests.differing(path, metadata.get("digests", {}))
        damage += [Damage(name, -1, "its SHA-256 is another") for name in names]
    try:
        table = manifest.read(path / "manifest.parquet", others=records.COLUMNS)
    except (OSError, ValueError) as error:
        return [*damage, Damage("manifest.parquet", -1, str(error))], None
    relations = None
    if metadata["relations"] is not None:
        try:
            relations = records.read_relations(path)
        except (OSError, ValueError) as error:
            return [*damage, Damage("relations.parquet", -1, str(error))], table
    if records.fingerprint([table], relations) != metadata["fingerprint"]:
        what = "its rows, or relations.parquet, are not those of records.json"
        damage.append(Damage("manifest.parquet", -1, what))
    return damage, table


def _check_shard(
    path: Path, rows: pd.DataFrame, num_bytes: int
) -> Iterator[Damage]:
    """Reads one shard, and resumes after each damage with the next record."""
    try:
        size = path.stat().st_size
    except OSError as error:
        yield Damage(path.name, -1, f"cannot be read: {error.strerror}")
        return
    if size != num_bytes:
        yield Damage(
            path.name,
            min(size, num_bytes),
            f"the file ends at byte {size}, not at {num_bytes}",
        )
    ends = rows["byte_offset"] + rows["byte_length"]
    begins = [0, *ends[:-1]] if len(rows) else []
    if begins != rows["byte_offset"].tolist() or ends.max() != num_bytes:
        yield Damage(
            path.name, -1, "the manifest's records do not lie end to end in it"
        )
        return
    names = ("byte_offset", "byte_length", "image_id", "sha256")
    expected = list(zip(*(rows[name] for name in names), strict=True))
    position = 0
    while position < len(expected):
        stream = _stream(path, expected[position][0])
        while position < len(expected):
            offset, length, image_id, sha256 = expected[position]
            position += 1
            if offset + length > size:
                what = f"{image_id} and all after it are missing"
                yield Damage(path.name, offset, what)
                return
            try:
                serialised = next(stream, b"")
            except tf.errors.OpError as error:
                what = str(error).splitlines()[0].partition("} ")[2] or error
                yield Damage(path.name, offset, f"{image_id}: {what}")
                break
            what = _compare(serialised, length, image_id, sha256)
            if what:
                yield Damage(path.name, offset, f"{image_id}: {what}")
                break


def _stream(path: Path, offset: int) -> Iterator[bytes]:
    """Yields the records of a file, in order, from an offset on."""

    @tf.autograph.experimental.do_not_convert
    def read(path: tf.Tensor, offset: tf.Tensor) -> tf.data.Dataset:
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=path[None],
            compression_type="",
            buffer_size=_BUFFER_BYTES,
            byte_offsets=offset[None],
        )
        element = tf.TensorSpec([], tf.string)
        return tf.data.experimental.from_variant(variant, element)

    # This dataset can only be iterated within another one.
    dataset = tf.data.Dataset.from_tensors((str(path), np.int64(offset)))
    return dataset.flat_map(read).as_numpy_iterator()


def _compare(serialised: bytes, length: int, image_id: str, sha256: str) -> str:
    """Says what is wrong with a record whose checksums hold; empty if none."""
    if len(serialised) + frames.FRAME_BYTES != length:
        return "another record lies there"
    try:
        feature = tf.train.Example.FromString(serialised).features.feature
        [name] = feature["image/id"].bytes_list.value
        [encoded] = feature["image/encoded"].bytes_list.value
    except (ValueError, message.DecodeError):
        return "no Example of an image"
    if name.decode(errors="replace") != image_id:
        return f"the record is of {name.decode(errors='replace')!r}"
    if hashlib.sha256(encoded).hexdigest() != sha256:
        return "the image is not the one that was built"
    return ""
