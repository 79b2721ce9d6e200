"""Images whose records can no longer be read: found, named, left out.

Records hold only images that could be decoded when they were built. If an image
cannot be read in training, its file was damaged since. Training then reads all
images that it uses, writes the unreadable ones to `bad_images.json` of the run,
and repeats the epoch without them. They are in no tuple and no batch of this
and of every later epoch, also after the run is resumed.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import tensorflow as tf
from absl import logging

from sare_tf.records.records import Records
from sare_tf.runtime import sealed_json
from sare_tf.training import batches

NAME = "bad_images.json"
# tf.data raises these for a record with a wrong checksum, bytes that are no
# image, and a file that has become too short.
ERRORS = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError,
)


def read(checkpoints: str | Path) -> dict[str, str]:
    """Reads the bad images of a run: image_id to the reason."""
    path = Path(checkpoints) / NAME
    if not path.exists():
        return {}
    return sealed_json.read(path, made_by="python -m sare_tf.train", types={})


def find(
    checkpoints: str | Path,
    folders: Sequence[Records],
    error: Exception,
    *,
    limit: int,
) -> None:
    """Finds and writes down the bad images, after reading has failed.

    Args:
        checkpoints: folder of the run.
        folders: opened records; images of the same name are left out of all.
        error: the error that was raised.
        limit: largest number of bad images of a run.

    Raises:
        Exception: `error` itself, where every image can be read.
        ValueError: more bad images than the limit; names them.
    """
    known = read(checkpoints)
    used = [
        records.manifest[
            records.manifest["split"].isin(("train", "val"))
            & ~records.manifest["image_id"].isin(known)
        ]
        for records in folders
    ]
    logging.warning(
        "Reading failed (%s). Looking through %d images.",
        str(error).splitlines()[0],
        sum(map(len, used)),
    )
    bad = dict(known)
    for records, rows in zip(folders, used, strict=True):
        bad |= _unreadable(records, rows)
    if len(bad) == len(known):
        raise error
    if len(bad) > limit:
        raise ValueError(
            f"Expected at most {limit} images that cannot be read. Received: "
            f"{len(bad)} in records="
            f"{', '.join(repr(str(records.path)) for records in folders)}: "
            f"{', '.join(itertools.islice(bad, 10))}"
            f"{', ...' if len(bad) > 10 else ''} "
            f"({next(iter(bad.values()))}). The last checkpoint is "
            "untouched; build the records again, or raise --max_bad_images."
        ) from error
    for image_id in bad.keys() - known.keys():
        logging.warning("Left out: %s (%s).", image_id, bad[image_id])
    logging.warning(
        "%d bad images of %d allowed; resuming after the last epoch.",
        len(bad),
        limit,
    )
    sealed_json.write(Path(checkpoints) / NAME, bad)


def _unreadable(
    records: Records, rows: pd.DataFrame
) -> Iterator[tuple[str, str]]:
    """Yields image_id and reason, in the order of the rows."""
    # Decoded, too, at a size that costs little. A dataset that raised an error
    # continues with the next image.
    images = iter(
        batches.decoded(records.encoded_dataset(rows), height=16, width=16)
    )
    for image_id in rows["image_id"]:
        try:
            next(images)
        except ERRORS as error:
            yield image_id, str(error).splitlines()[0]
