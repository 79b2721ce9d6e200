"""Everything that `locate` needs of a folder of photographs."""

import dataclasses
import os
import shutil
import time
from pathlib import Path
from typing import Any

from absl import logging

from sare_tf import serving
from sare_tf.dataset import names
from sare_tf.model import published_files
from sare_tf.photo_database import indexing
from sare_tf.photo_database.cache_entry import CacheEntry
from sare_tf.photo_database.listing import Listing, list_photographs
from sare_tf.records import building
from sare_tf.records.image_preparation import Unsteady
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.runtime import run_lock
from sare_tf.search.options import PhotoFolderOptions
from sare_tf.serving.options import ServableOptions

# Raised whenever other things are made of the same photographs and weights.
FORMAT = 1
DEFAULT_WEIGHTS = "mobilenet_v2"
SPLIT = names.ALL_SPLITS
# Photographs are kept smaller than this, in pixels, in shards of so many MiB of
# files: a change builds a shard again. Ours.
_LONGEST_SIDE = 1024
_SHARD_MEBIBYTES = 32
# Attempts to read a folder that is changing, and seconds between them.
_ATTEMPTS = 4
_WAIT_S = 2.0


@dataclasses.dataclass(frozen=True)
class Database:
    """What is made of a folder of photographs.

    Attributes:
        folder: the cache entry.
        records: folder of the records.
        index: folder of the index.
        export: the export, or a server of it.
    """

    folder: Path
    records: Path
    index: Path
    export: str | Path | serving.Server


def prepare(
    photos: PhotoFolderOptions,
    model: ServableOptions,
    *,
    batch_size: int = 32,
    repair: bool = False,
) -> Database:
    """Makes what `locate` needs, as far as it is not there.

    If the names, sizes and times of the photographs are those of the last time,
    nothing is read but these. A run that was killed is resumed by the next.

    Args:
        photos: the photographs, the weights and the cache.
        model: an export, or a server of one, to use instead of the weights.
        batch_size: images embedded at a time.
        repair: make network and index anew, since they are damaged.

    Raises:
        BlockingIOError: another run is at it.
        ConnectionError: the weights cannot be downloaded.
        FileNotFoundError: no such folder or file.
        OSError: the cache cannot be written.
        ValueError: no photograph that can be read, photographs that keep
            changing, or weights that are not understood.
    """
    folder = Path(photos.photo_folder)
    listing = list_photographs(folder)
    given = serving.named(model) if model.server or model.export else None
    weights = None if given else _Weights.of(photos)
    network = weights.made_of if weights else {"given": str(given)}
    entry = CacheEntry(
        photos.cache, folder, weights.key if weights else f"given {given}"
    )
    database = Database(
        entry.path, entry.records, entry.index, given or entry.export
    )
    state = entry.read_state()
    expected = {"format": FORMAT, "network": network, "listing": listing.digest}
    if not repair and _is_current(entry, state, expected):
        return database
    with run_lock.only_run(entry.path):
        if repair:
            shutil.rmtree(entry.index, ignore_errors=True)
            shutil.rmtree(entry.export, ignore_errors=True)
        listing, records = _build_records(entry, folder)
        if weights:
            _write_export(entry, weights, records, photos)
        embedded = indexing.update(
            entry.index,
            records,
            serving.load(database.export),
            split=SPLIT,
            batch_size=batch_size,
        )
        entry.write_state({**expected, "listing": listing.digest})
    left_out = listing.count - len(records.manifest)
    logging.info(
        "%d photographs of %s are searched, %d of them new. All that was made "
        "of them is in %s.%s",
        len(records.manifest),
        folder,
        embedded,
        entry.path,
        f" {left_out} that cannot be read are in "
        f"{entry.records / 'rejected.csv'}."
        if left_out
        else "",
    )
    return database


@dataclasses.dataclass(frozen=True)
class _Weights:
    """Weights by a name or as a file, before they are read.

    Attributes:
        key: tells them from other weights.
        made_of: changes if they do.
        file: None: it is downloaded when it is needed.
    """

    key: str
    made_of: dict[str, Any]
    file: Path | None

    @classmethod
    def of(cls, photos: PhotoFolderOptions) -> "_Weights":
        name = photos.weights or DEFAULT_WEIGHTS
        path = Path(name)
        if path.exists():
            status = path.stat()
            key = f"file {path.resolve()}"
            about = {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}
            return cls(key, {"format": FORMAT, "weights": key, **about}, path)
        published = published_files.find(name)
        if published is None:
            raise FileNotFoundError(
                "Expected weights to be a file, or a name: "
                f"{', '.join(published_files.PUBLISHED)}. Received: "
                f"weights={name!r}, which is neither."
            )
        key = f"published {published.name}"
        return cls(key, {"format": FORMAT, "weights": key}, None)


def _is_current(
    entry: CacheEntry, state: dict[str, Any] | None, expected: dict[str, Any]
) -> bool:
    if state is None or not entry.index.is_dir():
        return False
    differing = [name for name in expected if state[name] != expected[name]]
    if differing != [] and "listing" not in differing:
        logging.info("The cache is of another %s.", " and ".join(differing))
    return not differing


def _build_records(entry: CacheEntry, folder: Path) -> tuple[Listing, Records]:
    """Builds the records of a folder, which may be changing."""
    options = RecordOptions(
        dataset=os.path.abspath(folder),
        records=entry.records,
        reader="plain_photos",
        resize_to=_LONGEST_SIDE,
        shard_mebibytes=_SHARD_MEBIBYTES,
    )
    for attempt in range(1, _ATTEMPTS + 1):
        listing = list_photographs(folder)
        try:
            building.build(options, for_training=False)
            break
        except Unsteady as error:
            if attempt == _ATTEMPTS:
                raise
            logging.info("%s is changing; reading it again: %s", folder, error)
            time.sleep(_WAIT_S)
    return listing, Records(entry.records)


def _write_export(
    entry: CacheEntry,
    weights: _Weights,
    records: Records,
    photos: PhotoFolderOptions,
) -> None:
    # The network, Keras and training are imported only to make an export.
    from sare_tf.photo_database import exporting

    if exporting.is_current(
        entry.export, weights.made_of, count=len(records.manifest)
    ):
        return
    source = weights.file
    if source is None:
        kept = photos.cache and Path(photos.cache) / "weights"
        published = published_files.find(weights.key.removeprefix("published "))
        source = published_files.get(published, folder=kept)
    exporting.write(entry.export, source, records, weights.made_of)
