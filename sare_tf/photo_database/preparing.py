"""Whether a folder of photographs can be searched, and what it lacks.

Only names, sizes and times are looked at here. If anything is to be made,
`updating` is imported, and with it the network.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from absl import logging

from sare_tf.photo_database.cache_entry import CacheEntry
from sare_tf.photo_database.listing import list_photographs
from sare_tf.photo_database.pretrained import PretrainedWeights
from sare_tf.runtime import run_lock
from sare_tf.search.options import PhotoFolderOptions
from sare_tf.serving.options import ServableOptions

# Raised whenever other things are made of the same photographs and weights.
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Database:
    """What was made of a folder of photographs.

    Attributes:
        records: folder of the records.
        index: folder of the index.
        export: folder of the export; None: it is on a server.
    """

    records: Path
    index: Path
    export: Path | None


def prepare(
    photos: PhotoFolderOptions,
    model: ServableOptions,
    *,
    batch_size: int,
    repair: bool = False,
) -> Database:
    """Makes what `locate` needs, as far as it is not there.

    A run that was killed is resumed by the next.

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
    export, weights = model.export and Path(model.export), None
    if model.server or export:
        key, made_of = f"given {model.server or export.resolve()}", {}
    else:
        weights = PretrainedWeights.of(photos)
        key, made_of = weights.key, weights.made_of
    made_of = {**made_of, "format": _FORMAT}
    entry = CacheEntry(photos.cache, folder, key)
    if weights:
        export = entry.export
        model = dataclasses.replace(model, export=export)
    database = Database(entry.records, entry.index, export)
    expected = {"network": made_of, "listing": listing.digest}
    if not repair and _is_current(entry, database, expected):
        return database
    # Imports the network, Keras and training.
    from sare_tf.photo_database import updating

    with run_lock.only_run(entry.path):
        if repair:
            shutil.rmtree(entry.index, ignore_errors=True)
            shutil.rmtree(entry.export, ignore_errors=True)
        digest = updating.update(
            entry,
            folder,
            weights and dataclasses.replace(weights, made_of=made_of),
            model=model,
            batch_size=batch_size,
        )
        entry.write_state({**expected, "listing": digest})
    return database


def _is_current(
    entry: CacheEntry, database: Database, expected: dict[str, Any]
) -> bool:
    state = entry.read_state()
    with_export = database.export == entry.export
    if state is None or not entry.is_whole(with_export=with_export):
        return False
    if state["network"] != expected["network"]:
        logging.info("The network in the cache is another one: making it anew.")
        return False
    return state["listing"] == expected["listing"]
