"""photographs -> records/: sharded TFRecord files and the manifest.

    python -m sare_tf.build_records --flagfile=configs/demo.flags

The images of a place lie together in one shard. The same images and flags give
the same bytes, whatever the number of workers. What cannot be used is left out
and listed in `rejected.csv`; what is odd is listed in `warnings.csv`.
"""

import csv
import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import flags, logging
from tqdm import tqdm

import sare_tf
from sare_tf import files, images, manifest, readers, records
from sare_tf import flags as stage_flags

FLAGS = flags.FLAGS
FORMAT = 2
# Images without place_id are grouped by cells of this size: CosPlace's.
_CELL_M = 10.0
# Left, top, right, bottom, in pixels.
Box = tuple[float, float, float, float]


def run(
    *,
    dataset: str | Path,
    out: str | Path,
    reader: str = "at_names",
    shard_mebibytes: int = 128,
    num_workers: int = 0,
    split_fractions: Sequence[float] = (0.6, 0.15, 0.25),
    query_fraction: float = 0.25,
    utm_zone: str = "",
    positives: str = "auto",
    positive_radius_m: float = 25.0,
    seed: int = 0,
) -> Path:
    """Builds records.

    Records of the same images and options are kept as they are.

    Args:
        dataset: folder of raw images.
        out: folder of the records; replaced if it holds some.
        reader: layout of the dataset, a name in `readers.READERS`.
        shard_mebibytes: about the size of one shard.
        num_workers: threads that read and check images; 0: one per core.
        split_fractions: for a layout without splits, see `readers.read`.
        query_fraction: for a layout without roles.
        utm_zone: of latitudes and longitudes.
        positives: rule of `manifest.positives`, to count queries without any.
        positive_radius_m: of that rule.
        seed: of splits and roles.

    Returns:
        `out`.

    Raises:
        FileNotFoundError: no such dataset.
        ValueError: no usable image, or an `out` that holds something else.
    """
    out = Path(out)
    _check_replaceable(out)
    reading = readers.read(
        dataset,
        reader=reader,
        split_fractions=split_fractions,
        query_fraction=query_fraction,
        utm_zone=utm_zone,
        seed=seed,
    )
    made_from = {
        "format": FORMAT,
        "reader": reader,
        "shard_mebibytes": shard_mebibytes,
        "source": _source_digest(reading),
    }
    if _is_up_to_date(out, made_from):
        logging.info("%s is up to date: nothing to do.", out)
        return out
    rows = _in_order(reading.manifest)
    # Refuses a rule that the layout cannot follow now, not after the work.
    _warnings(rows, positives, positive_radius_m, reading.relations)
    sources = [reading.source(image_id) for image_id in rows["image_id"]]
    rows["bytes"] = [_size(reading.root / source.path) for source in sources]
    logging.info(
        "Building records of %d images in %s.", len(rows), reading.root
    )
    rejected = list(reading.rejected)
    with files.folder_in_one_piece(out) as folder:
        with _Writer(folder, _shard_names(rows, shard_mebibytes)) as writer:
            checked = _checked(
                (
                    (reading.root / source.path, source.box)
                    for source in sources
                ),
                num_workers,
            )
            for row, image in zip(
                tqdm(
                    rows.to_dict("records"),
                    unit="image",
                    desc="build records",
                    leave=False,
                ),
                checked,
                strict=True,
            ):
                if isinstance(image, str):
                    rejected.append((row["image_id"], image))
                else:
                    writer.add(row, image)
        table = writer.manifest()
        relations = reading.relations
        if relations is not None:
            # Of images that were refused, an answer cannot be found.
            relations = relations[
                relations["query"].isin(table["image_id"])
                & relations["database"].isin(table["image_id"])
            ]
            relations = relations.reset_index(drop=True)
            records.write_relations(relations, folder)
            writer.digest_relations(relations)
        warnings = _warnings(table, positives, positive_radius_m, relations)
        _write_csv(
            folder / "rejected.csv", ("path", "reason"), sorted(rejected)
        )
        _write_csv(folder / "warnings.csv", ("what", "warning"), warnings)
        manifest.write(table, folder / "manifest.parquet")
        counts = table.groupby(["split", "role"]).size()
        files.write_json(
            folder / "records.json",
            {
                "count": len(table),
                "counts": {f"{s}/{r}": int(n) for (s, r), n in counts.items()},
                "rejected": len(rejected),
                "warnings": len(warnings),
                "relations": None if relations is None else len(relations),
                "fingerprint": writer.fingerprint(),
                "shards": writer.shards,
                "made_from": made_from,
                "versions": {
                    "sare_tf": sare_tf.__version__,
                    "tensorflow": tf.__version__,
                },
            },
        )
    _tell(out, counts, rejected, warnings)
    return out


class _Image:
    """An image that passed: its bytes and what was found in them."""

    def __init__(self, encoded: bytes):
        self.encoded = encoded
        self.sha256 = hashlib.sha256(encoded).hexdigest()
        self.height, self.width, _ = images.pixels(encoded).shape


class _Writer:
    """Writes rows, which come in order, into shards decided before.

    Args:
        folder: where to.
        shard_names: image_id -> name of its shard, without the total.
    """

    def __init__(self, folder: Path, shard_names: dict[str, str]):
        self._folder = folder
        self._shard_names = shard_names
        self._name = None
        self._writer = None
        self._rows = []
        self._digest = hashlib.sha256()
        self.shards = {}

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_) -> None:
        if self._writer:
            self._writer.close()

    def add(self, row: dict[str, Any], image: _Image) -> None:
        name = self._shard_names[row["image_id"]]
        if name != self._name:
            if self._writer:
                self._writer.close()
            self._name = name
            self._writer = tf.io.TFRecordWriter(str(self._folder / name))
            self.shards[name] = {"count": 0, "bytes": 0}
        serialised = records.serialise(
            image.encoded, image_id=row["image_id"], place=row["group"]
        )
        self._writer.write(serialised)
        shard = self.shards[name]
        length = len(serialised) + records.FRAME_BYTES
        row = {key: row[key] for key in manifest.COLUMNS}
        row |= {"width": image.width, "height": image.height}
        self._digest.update(
            json.dumps([list(row.values()), image.sha256]).encode()
        )
        place = {
            "shard": name,
            "byte_offset": shard["bytes"],
            "byte_length": length,
        }
        self._rows.append((row, place))
        shard["count"] += 1
        shard["bytes"] += length

    def manifest(self) -> pd.DataFrame:
        """The manifest with where each image is.

        Raises:
            ValueError: no image was added.
        """
        if not self._rows:
            raise ValueError(
                "Expected at least one image that can be decoded. Received: "
                f"{len(self._shard_names)} files, none of them. Check "
                "--dataset."
            )
        rows, places = zip(*self._rows, strict=True)
        return pd.concat([manifest.make(rows), pd.DataFrame(places)], axis=1)

    def digest_relations(self, relations: pd.DataFrame) -> None:
        """Makes the fingerprint depend on them too."""
        self._digest.update(relations.to_csv(index=False).encode())

    def fingerprint(self) -> str:
        """Digest of all images and rows, in their order, and relations."""
        return self._digest.hexdigest()


def _checked(
    sources: Iterable[tuple[Path, Box | None]], num_workers: int
) -> Iterator["_Image | str"]:
    """Reads and decodes files ahead, in order: an image, or why not.

    Threads do: decoding and hashing leave the interpreter's lock.
    """
    num_workers = num_workers or os.cpu_count()
    with ThreadPoolExecutor(num_workers) as pool:
        ahead = deque()
        for path, box in sources:
            ahead.append(pool.submit(_check, path, box))
            if len(ahead) > 4 * num_workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _check(path: Path, box: Box | None) -> "_Image | str":
    """Decodes as training and serving will; cuts a part out, as PNG."""
    try:
        encoded = path.read_bytes()
        if box is not None:
            encoded = _crop(encoded, box)
        return _Image(encoded)
    except OSError as error:
        return f"cannot be read: {error}"
    except ValueError as error:
        return str(error)


def _crop(encoded: bytes, box: Box) -> bytes:
    """The part of an image inside a box, without loss; what lies beyond the
    image is left out.

    Raises:
        ValueError: it cannot be decoded, or nothing of it lies inside.
    """
    part = images.cut(images.pixels(encoded), box)
    return tf.io.encode_png(part).numpy()


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


def _shard_names(rows: pd.DataFrame, shard_mebibytes: int) -> dict[str, str]:
    """Assigns whole groups to shards of about the same size."""
    target = shard_mebibytes << 20
    names = {}
    for (split, role), part in rows.groupby(["split", "role"], sort=False):
        shard, size = 0, 0
        numbers = []
        for _, group in part.groupby("group", sort=False):
            total = int(group["bytes"].sum())
            if size and size + total > target:
                shard, size = shard + 1, 0
            size += total
            numbers += [shard] * len(group)
        for image_id, number in zip(part["image_id"], numbers, strict=True):
            names[image_id] = (
                f"{split}-{role}-{number:05d}-of-{shard + 1:05d}.tfrecord"
            )
    return names


def _warnings(
    table: pd.DataFrame,
    rule: str,
    radius_m: float,
    relations: pd.DataFrame | None,
) -> list[tuple[str, str]]:
    """What training and evaluation will not use, or count as a miss."""
    found = []
    named = table[table["place_id"] != ""]
    sizes = named.groupby(["split", "place_id"]).size()
    for split, place in sizes.index[sizes == 1]:
        found.append((f"{split}/{place}", "place with one image"))
    for split in manifest.SPLITS:
        part = table[table["split"] == split]
        if not len(part):
            found.append((split, "split without an image"))
            continue
        queries = part[part["role"] == "query"]
        database = part[part["role"] == "database"]
        for role, some in (("query", queries), ("database", database)):
            if not len(some):
                found.append((split, f"split without a {role} image"))
        if not manifest.has_truth(queries, database, relations=relations):
            found.append((split, "split of which nothing says what matches"))
            continue
        truth = manifest.positives(
            queries,
            database,
            rule=rule,
            radius_m=radius_m,
            relations=relations,
        )
        found += [
            (image_id, "query without a positive in the database")
            for image_id, rows in zip(queries["image_id"], truth, strict=True)
            if not len(rows)
        ]
    return found


def _source_digest(reading: readers.Reading) -> str:
    """Digest of names, rows, sizes and times: changes when a file does."""
    digest = hashlib.sha256()
    for row in reading.manifest.to_dict("records"):
        source = reading.source(row["image_id"])
        try:
            status = (reading.root / source.path).stat()
            state = [status.st_size, status.st_mtime_ns, source.box]
        except OSError:
            state = None
        digest.update(json.dumps([list(row.values()), state]).encode())
    digest.update(json.dumps(reading.rejected).encode())
    if reading.relations is not None:
        digest.update(reading.relations.to_csv(index=False).encode())
    return digest.hexdigest()


def _size(path: Path) -> int:
    """0 for what cannot be looked at; reading it will say why."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _is_up_to_date(out: Path, made_from: dict[str, Any]) -> bool:
    if not (out / "records.json").is_file():
        return False
    try:
        found = records.Records(out).metadata["made_from"]
    except (KeyError, ValueError) as error:
        logging.warning("Building again: %s", error)
        return False
    differing = [
        name for name in made_from if found.get(name) != made_from[name]
    ]
    if differing:
        logging.info("Replacing records of another %s.", ", ".join(differing))
    return not differing


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
) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _tell(out, counts, rejected, warnings) -> None:
    for name, found in (("rejected", rejected), ("warnings", warnings)):
        if found:
            logging.warning(
                "%d %s, listed in %s; the first: %s: %s",
                len(found),
                name,
                out / f"{name}.csv",
                *found[0],
            )
    logging.info(
        "Records in %s: %s. Next: python -m sare_tf.train --flagfile=...",
        out,
        ", ".join(f"{n} {s}/{r}" for (s, r), n in counts.items()),
    )


def main(argv) -> None:
    del argv
    stage_flags.required("dataset", "records")
    try:
        fractions = [float(share) for share in FLAGS.split_fractions]
    except ValueError as error:
        raise ValueError(
            "Expected three numbers. Received: "
            f"--split_fractions={','.join(FLAGS.split_fractions)}."
        ) from error
    run(
        dataset=FLAGS.dataset,
        out=FLAGS.records,
        reader=FLAGS.reader,
        shard_mebibytes=FLAGS.shard_mebibytes,
        num_workers=FLAGS.num_workers,
        split_fractions=fractions,
        query_fraction=FLAGS.query_fraction,
        utm_zone=FLAGS.utm_zone,
        positives=FLAGS.positives,
        positive_radius_m=FLAGS.positive_radius_m,
        seed=FLAGS.seed,
    )


if __name__ == "__main__":
    stage_flags.start(main)
