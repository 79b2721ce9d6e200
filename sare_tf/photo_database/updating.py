"""Brings what a cache holds of a folder of photographs up to date."""

import os
import time
from pathlib import Path

from absl import logging

from sare_tf import serving
from sare_tf.dataset import names
from sare_tf.photo_database import exporting, indexing
from sare_tf.photo_database.cache_entry import CacheEntry
from sare_tf.photo_database.listing import Listing, list_photographs
from sare_tf.photo_database.pretrained import PretrainedWeights
from sare_tf.records import building
from sare_tf.records.image_preparation import Unsteady
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.serving.options import ServableOptions

# Photographs are kept at most so large, in pixels, in shards of so many MiB of
# their files. A change of one builds its shard again. Ours.
_LONGEST_SIDE = 1024
_SHARD_MEBIBYTES = 32
# Attempts to read a folder that is changing, and seconds between them.
_ATTEMPTS = 4
_WAIT_S = 2.0


def update(
    entry: CacheEntry,
    folder: Path,
    weights: PretrainedWeights | None,
    *,
    model: ServableOptions,
    batch_size: int,
) -> str:
    """Builds records, network and index, as far as they are not there.

    Args:
        entry: where they are.
        folder: the photographs.
        weights: of the network; None: it is not made here.
        model: the export, or a server of one.
        batch_size: images embedded at a time.

    Returns:
        The digest of the listing that was read.

    Raises:
        ConnectionError, FileNotFoundError, OSError, ValueError: as
            `preparing.prepare`.
    """
    if weights and not exporting.is_current(
        entry.export, weights.made_of, count=0
    ):
        weights.file()  # Fails before any work is done, as an export does.
    servable = None if weights else serving.load(serving.named(model))
    listing, records = _build_records(entry, folder)
    count = len(records.manifest)
    if weights and not exporting.is_current(
        entry.export, weights.made_of, count=count
    ):
        exporting.write(entry.export, weights.file(), records, weights.made_of)
    num_new = indexing.update(
        entry.index,
        records,
        servable or serving.load(serving.named(model)),
        split=names.ALL_SPLITS,
        batch_size=batch_size,
    )
    logging.info(
        "%d photographs of %s can be searched, %d of them new. What was made "
        "of them is in %s.",
        *(count, folder, num_new, entry.path),
    )
    if listing.count > count:
        logging.warning(
            "%d files cannot be read, see %s.",
            *(listing.count - count, entry.records / "rejected.csv"),
        )
    return listing.digest


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
            logging.info("The folder is changing: %s Reading it again.", error)
            time.sleep(_WAIT_S)
    return listing, Records(entry.records)
