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
tuned to --target_recall. `evaluate` measures what is missed. Distances are
squared Euclidean.

With --runner, workers of Apache Beam embed parts of the images, which are then
put together: the files are the same (docs/beam.md).

Added images become a segment of their own, removed ones are passed over; both
take as long as the change, not the database. --compact makes one segment again,
which is worth it from some ten additions, or when a tenth is removed. One such
command at a time; the index may be searched meanwhile.
"""

import functools
import importlib.metadata
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import flags, logging

import sare_tf
from sare_tf import (
    approximate,
    beam,
    embedding,
    files,
    searching,
    segments,
    serving,
)
from sare_tf import flags as stage_flags
from sare_tf.records import Records
from sare_tf.searching import COMMAND, Index

FLAGS = flags.FLAGS
# Images after which what was embedded is safe on disk; those of a part.
_RECORD_EVERY = 512
# Rows copied at a time in numbers: 256 MiB of float32.
_COPIED_NUMBERS = 1 << 26


def run(
    *,
    records: str | Path,
    export: str | Path | serving.Server,
    out: str | Path,
    split: str = "test",
    batch_size: int = 32,
    shard: str = "0/1",
    dtype: str = "float32",
    target_recall: float = 0.0,
    for_each: Callable[..., None] | None = None,
) -> Path:
    """Embeds the database images of a split and builds the index.

    An index of the same export, records, split and dtype is kept as it is, with
    what was added and removed since; only ScaNN is built again where
    `target_recall` is another.

    Args:
        records: folder of `build_records`.
        export: folder of `export`, or of one of its versions; or a server of
            it (`serving.load`).
        out: folder of the index; replaced if it holds one.
        split: whose database images are indexed.
        batch_size: images embedded at a time.
        shard: part of those images, such as 0/8: the first of 8 equal parts.
        dtype: of the descriptors on disk, float32 or float16.
        target_recall: if above 0, ScaNN is tuned to this recall@10 against
            exact search, from 0 to 1; 0: by rules.
        for_each: embeds parts elsewhere, called as `beam.for_each` is; None:
            in this process.

    Returns:
        `out`.

    Raises:
        FileNotFoundError: records or export are absent or unfinished.
        ImportError, OSError: as of `for_each`.
        ValueError: no such images or shard, a descriptor that is not a finite
            unit vector, or an `out` that holds something else, or an index with
            changes that another export or records would lose.
    """
    out = Path(out)
    files.put_back(out)
    files.check_replaceable(out, names=searching.NAMES)
    opened = Records(records)
    rows = _of_shard(opened.rows(split, "database"), shard)
    servable = serving.load(export)
    made_from = {
        "export_fingerprint": servable.fingerprint,
        "records_fingerprint": opened.fingerprint,
        "split": split,
        "shard": shard,
        "dtype": dtype,
    }
    found = _find(out, made_from)
    if found:
        if _is_searcher_as_asked(found, target_recall):
            logging.info("%s is up to date: nothing to do.", out)
            return out
        return compact(index=out, target_recall=target_recall)
    with files.folder_to_resume(
        out, {**made_from, "batch_size": batch_size, "count": len(rows)}
    ) as unfinished:
        segment = _make_segment(
            unfinished,
            opened,
            rows,
            servable,
            batch_size=batch_size,
            dtype=dtype,
            target_recall=target_recall,
            for_each=for_each,
        )
        _write_metadata(
            unfinished.folder,
            {
                "count": len(rows),
                "dimension": servable.dimension,
                "distance": "squared Euclidean between unit vectors",
                **made_from,
                "added_records_fingerprints": [],
                "target_recall": target_recall,
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


def add(
    *,
    index: str | Path,
    records: str | Path,
    export: str | Path | serving.Server,
    split: str = "test",
    batch_size: int = 32,
    for_each: Callable[..., None] | None = None,
) -> Path:
    """Adds the database images of a split of other records to an index.

    Args:
        index: folder of the index.
        records: folder of `build_records`, with the images to add.
        export: folder of the export that built the index, or a server of it.
        split: whose database images are added.
        batch_size: images embedded at a time.
        for_each: as of `run`.

    Returns:
        `index`.

    Raises:
        FileNotFoundError: index, records or export are absent or unfinished.
        ValueError: another export, images that the index has already, or what
            `run` raises.
    """
    folder = _one_folder(index)
    found = Index.open(folder, exact=True)
    opened = Records(records)
    rows = opened.rows(split, "database")
    servable = serving.load(export)
    found.check_export(servable)
    _check_new(found, rows["image_id"])
    whole = folder / "added"
    with files.folder_to_resume(
        whole,
        {
            "export_fingerprint": servable.fingerprint,
            "records_fingerprint": opened.fingerprint,
            "split": split,
            "batch_size": batch_size,
        },
    ) as unfinished:
        segment = _make_segment(
            unfinished,
            opened,
            rows,
            servable,
            batch_size=batch_size,
            dtype=found.metadata["dtype"],
            target_recall=found.metadata["target_recall"],
            for_each=for_each,
        )
    # Other changes may have come meanwhile.
    found = Index.open(folder, exact=True)
    found.check_export(servable)
    _check_new(found, rows["image_id"])
    metadata = dict(found.metadata)
    name = f"added-{metadata['changes'] + 1:05d}"
    shutil.rmtree(folder / name, ignore_errors=True)
    whole.rename(folder / name)
    metadata["segments"] = [
        *metadata["segments"],
        {"folder": name, **segment},
    ]
    metadata["added_records_fingerprints"] = [
        *metadata["added_records_fingerprints"],
        opened.fingerprint,
    ]
    metadata["count"] += len(rows)
    _write_change(folder, metadata)
    logging.info(
        "Added %d images: %d in %s, in %d segments.",
        len(rows),
        metadata["count"],
        folder,
        len(metadata["segments"]),
    )
    return folder


def remove(*, index: str | Path, ids: str | Path) -> Path:
    """Removes images from an index.

    Args:
        index: folder of the index.
        ids: text file, one image id a line.

    Returns:
        `index`.

    Raises:
        FileNotFoundError: the index or the file is not there.
        ValueError: no id, one that the index does not hold, or all that it
            holds.
    """
    folder = _one_folder(index)
    found = Index.open(folder, exact=True)
    if not Path(ids).is_file():
        raise FileNotFoundError(
            "Expected a text file of image ids, one a line. Received: "
            f"remove_ids={str(ids)!r}, which is no file."
        )
    lines = Path(ids).read_text(encoding="utf-8").splitlines()
    named = pd.Index([line for line in lines if line.strip()]).unique()
    rows = pd.Index(found.manifest["image_id"]).get_indexer(named)
    if not len(named) or (rows < 0).any():
        unknown = named[rows < 0]
        raise ValueError(
            "Expected ids of images of the index, one a line. Received: "
            f"remove_ids={str(ids)!r} with {len(named)} ids, of which the "
            f"index {str(folder)!r} lacks {len(unknown)}: "
            f"{', '.join(unknown[:5])}. Nothing was removed; correct the file."
        )
    if len(rows) == len(found.manifest):
        raise ValueError(
            f"Expected to keep some images. Received: remove_ids={str(ids)!r} "
            f"with all {len(rows)} of the index. Delete its folder instead."
        )
    metadata = dict(found.metadata)
    live, start = [], 0
    for part in found.segments:
        live.append(start + part.live)
        start += len(part.descriptors)
    kept = np.delete(np.concatenate(live), rows)
    removed = np.setdiff1d(np.arange(start), kept)
    name = f"removed-{metadata['changes'] + 1:05d}.npy"
    np.save(folder / name, removed)
    metadata["removed"] = name
    metadata["count"] = len(kept)
    _write_change(folder, metadata)
    logging.info(
        "Removed %d images: %d in %s. --compact frees what %d take.",
        len(rows),
        len(kept),
        folder,
        len(removed),
    )
    return folder


def compact(*, index: str | Path, target_recall: float = 0.0) -> Path:
    """Makes one segment of an index, without what was removed.

    Nothing is embedded again. Until it is done the index is as it was.

    Args:
        index: folder of the index.
        target_recall: as of `run`.

    Returns:
        `index`.

    Raises:
        FileNotFoundError: no finished index is there.
        ValueError: it is damaged, or holds something else.
    """
    folder = _one_folder(index)
    files.check_replaceable(folder, names=searching.NAMES)
    found = Index.open(folder, exact=True)
    metadata = dict(found.metadata)
    step = max(1, _COPIED_NUMBERS // metadata["dimension"])
    with files.folder_to_resume(
        folder, {"compacted": metadata, "target_recall": target_recall}
    ) as unfinished:
        segments.write_descriptors(
            (
                found.descriptors[start : start + step]
                for start in range(unfinished.done, metadata["count"], step)
            ),
            unfinished,
            shape=(metadata["count"], metadata["dimension"]),
            dtype=metadata["dtype"],
        )
        segment = segments.finish(
            unfinished.folder, found.manifest, target_recall=target_recall
        )
        _check_unchanged(folder, found)
        metadata["segments"] = [{"folder": ".", **segment}]
        metadata["removed"] = None
        metadata["target_recall"] = target_recall
        _write_metadata(unfinished.folder, metadata)
    logging.info("Index of %d images in %s.", metadata["count"], folder)
    return folder


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


def versions() -> dict[str, str | None]:
    """Versions of what made a result."""
    try:
        scann = importlib.metadata.version("scann")
    except importlib.metadata.PackageNotFoundError:
        scann = None
    return {
        "sare_tf": sare_tf.__version__,
        "tensorflow": tf.__version__,
        "scann": scann,
        "numpy": np.__version__,
    }


def _make_segment(
    unfinished: files.Unfinished,
    opened: Records,
    rows: pd.DataFrame,
    servable: serving.Servable | serving.RemoteServable,
    *,
    batch_size: int,
    dtype: str,
    target_recall: float,
    for_each: Callable[..., None] | None,
) -> dict[str, Any]:
    """Embeds rows of records into a folder; see `segments.finish`."""
    done = unfinished.done
    if done:
        logging.info("Going on after %d images.", done)
    logging.info("Embedding %d database images.", len(rows) - done)
    # Whole batches, so that a run that goes on makes the same ones.
    record_every = batch_size * max(1, _RECORD_EVERY // batch_size)
    parts = embedding.plan(rows, first=done, part_rows=record_every)
    folder = unfinished.folder.resolve() / "parts"
    if for_each:
        _embed_parts(
            parts,
            folder,
            opened,
            servable,
            batch_size=batch_size,
            dtype=dtype,
            for_each=for_each,
        )
    segments.write_descriptors(
        _descriptors(
            parts, folder, opened, servable, unfinished, batch_size=batch_size
        ),
        unfinished,
        shape=(len(rows), servable.dimension),
        dtype=dtype,
        record_every=record_every,
    )
    shutil.rmtree(folder, ignore_errors=True)
    return segments.finish(unfinished.folder, rows, target_recall=target_recall)


def _embed_parts(
    parts: Sequence[embedding.Part],
    folder: Path,
    opened: Records,
    servable: serving.Servable | serving.RemoteServable,
    *,
    batch_size: int,
    dtype: str,
    for_each: Callable[..., None],
) -> None:
    """Has the parts embedded that are not in the folder yet.

    Raises:
        OSError: one is not there after all.
    """
    folder.mkdir(exist_ok=True)
    missing = [part for part in parts if not part.is_whole(folder)]
    logging.info(
        "Of %d parts, %d are there already.",
        len(parts),
        len(parts) - len(missing),
    )
    embed = functools.partial(
        embedding.embed_part,
        folder=folder,
        records=opened.path.resolve(),
        records_fingerprint=opened.fingerprint,
        export_fingerprint=servable.fingerprint,
        batch_size=batch_size,
        dtype=dtype,
    )
    for_each(
        embed,
        missing,
        folder=folder,
        load=functools.partial(serving.load, servable.source),
    )
    absent = [part for part in missing if not part.is_whole(folder)]
    if absent:
        raise OSError(
            "Expected every part to be embedded. Received: folder="
            f"{str(folder)!r} without {len(absent)} of {len(parts)}, such as "
            f"{absent[0].path(folder).name}. The workers need this folder "
            "under the same path, on a file system that they share."
        )


def _descriptors(
    parts: Sequence[embedding.Part],
    folder: Path,
    opened: Records,
    servable: serving.Servable | serving.RemoteServable,
    unfinished: files.Unfinished,
    *,
    batch_size: int,
) -> Iterator[np.ndarray]:
    """Descriptors of parts in order, [b, D] each: read, or embedded here."""
    for whole, group in itertools.groupby(
        parts, key=lambda part: part.is_whole(folder)
    ):
        if not whole:
            positions = np.concatenate([part.positions for part in group])
            rows = opened.manifest.iloc[positions]
            yield from embedding.embed_batches(
                servable,
                opened.read_images(rows),
                rows["image_id"].tolist(),
                batch_size=batch_size,
            )
            continue
        for part in group:
            yield part.read(folder)
            # Not twice on disk, once it is safe there.
            if part.stop <= unfinished.done:
                part.path(folder).unlink()


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
    changed = files.read_json(out / "index.json", made_by=COMMAND).get(
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


def _is_searcher_as_asked(found: Index, target_recall: float) -> bool:
    if approximate.scann_module() is None:
        return True
    if found.metadata["target_recall"] != target_recall:
        return False
    described = found.metadata["segments"]
    try:
        for part in described:
            segments.check_sizes(Path(found.path) / part["folder"], part)
    except (OSError, ValueError) as error:
        logging.warning("Building ScaNN again: %s", error)
        return False
    return all(part["scann"] for part in described)


def _check_new(found: Index, image_ids: pd.Series) -> None:
    known = image_ids[image_ids.isin(found.manifest["image_id"])]
    if len(known):
        raise ValueError(
            "Expected images that the index does not hold. Received: "
            f"{len(known)} that it holds, such as {known.iloc[0]!r}. Nothing "
            "was added. Remove those first (--remove_ids) to replace them."
        )


def _check_unchanged(folder: Path, found: Index) -> None:
    now = files.read_json(folder / "index.json", made_by=COMMAND)
    if now != found.metadata:
        raise ValueError(
            "Expected no change of the index while it was compacted. Received: "
            f"index={str(folder)!r} with {now['changes']} changes, not "
            f"{found.metadata['changes']}. The index is as it was; run the "
            "command again."
        )


def _one_folder(index: str | Path) -> Path:
    folder = Path(index)
    files.put_back(folder)
    if not (folder / "index.json").is_file():
        raise FileNotFoundError(
            "Expected the folder of one index, which holds index.json. "
            f"Received: index={str(index)!r}. Change shards one by one; build "
            f"an index with {COMMAND}."
        )
    return folder


def _write_metadata(folder: Path, metadata: dict[str, Any]) -> None:
    files.write_json(
        folder / "index.json", {**metadata, "versions": versions()}
    )


def _write_change(folder: Path, metadata: dict[str, Any]) -> None:
    """Makes a change count, then removes what no longer does."""
    metadata["changes"] += 1
    _write_metadata(folder, metadata)
    named = {part["folder"] for part in metadata["segments"]}
    named.add(metadata["removed"])
    for path in [*folder.glob("added*"), *folder.glob("removed-*")]:
        if path.name not in named:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def main(argv) -> None:
    for_each = beam.named_by_flags(argv[1:])
    changes = {
        "add_records": FLAGS.add_records,
        "remove_ids": FLAGS.remove_ids,
        "compact": FLAGS.compact,
    }
    asked = [name for name, value in changes.items() if value]
    if len(asked) > 1:
        raise ValueError(
            "Expected one change at a time. Received: --"
            + ", --".join(asked)
            + ". Run one command after the other."
        )
    if FLAGS.add_records:
        stage_flags.required("index")
        add(
            index=FLAGS.index,
            records=FLAGS.add_records,
            export=serving.named_by_flags(),
            split=FLAGS.split,
            batch_size=FLAGS.batch_size,
            for_each=for_each,
        )
    elif FLAGS.remove_ids:
        stage_flags.required("index")
        remove(index=FLAGS.index, ids=FLAGS.remove_ids)
    elif FLAGS.compact:
        stage_flags.required("index")
        compact(index=FLAGS.index, target_recall=FLAGS.target_recall)
    else:
        stage_flags.required("records", "index")
        run(
            records=FLAGS.records,
            export=serving.named_by_flags(),
            out=FLAGS.index,
            split=FLAGS.split,
            batch_size=FLAGS.batch_size,
            shard=FLAGS.index_shard,
            dtype=FLAGS.index_dtype,
            target_recall=FLAGS.target_recall,
            for_each=for_each,
        )


if __name__ == "__main__":
    stage_flags.start(main, takes_files=True)
