"""Features of the frozen layers of all folders of records of a run.

One folder of records has its features in the folder of features itself. Several
ones have a folder each below it, which is named by a digest of the records and
of the images that are used: the images of the train split where it is trained
on, and of the val split where it is validated on. Runs over other folders, or
over the same ones in other roles, may therefore share the folder of features.
"""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging

from sare_tf.records.records import Records
from sare_tf.training import frozen_features
from sare_tf.training.frozen_features import FrozenFeatures, Origin


@dataclasses.dataclass(frozen=True)
class FolderFeatures:
    """Features of several folders of records, read as if they were one.

    Attributes:
        by_folder: absolute path of the records -> their features.
    """

    by_folder: Mapping[str, FrozenFeatures]

    def dataset(self, rows: pd.DataFrame) -> tf.data.Dataset:
        """Reads features of rows of any of the folders, in their order.

        Args:
            rows: B rows of manifests, with whole paths as `shard`.

        Returns:
            As `FrozenFeatures.dataset`.
        """
        number_of_shard, shards = pd.factorize(rows["shard"])
        folder_of_shard = np.array([os.path.dirname(name) for name in shards])
        folders = folder_of_shard[number_of_shard]
        positions = rows.index.to_numpy()
        files, offsets = np.empty((2, len(rows)), np.int64)
        paths = []
        for folder, features in self.by_folder.items():
            own = folders == folder
            number, offsets[own] = features.where(positions[own])
            files[own] = len(paths) + number
            paths += features.paths
        return features.read(paths, files, offsets)


# What takes the place of records.
Features = FrozenFeatures | FolderFeatures


def images_used(
    trained: Sequence[Records], validated: Sequence[Records]
) -> list[tuple[Records, np.ndarray]]:
    """Returns the records of a run, each once, with the images it uses.

    Args:
        trained: folders that are trained on.
        validated: folders that are validated on.

    Returns:
        Records and ascending positions in their manifest. Where there is one
        folder, all images of its train and val splits.
    """
    roles = {}
    for split, folders in (("train", trained), ("val", validated)):
        for records in folders:
            _, splits = roles.setdefault(records.fingerprint, (records, set()))
            splits.add(split)
    if len(roles) == 1:
        ((records, splits),) = roles.values()
        splits |= {"train", "val"}
    return [
        (records, np.flatnonzero(records.manifest["split"].isin(splits)))
        for records, splits in roles.values()
    ]


def build(
    folder: Path,
    used: Sequence[tuple[Records, np.ndarray]],
    frozen: keras.Model,
    images_of: Callable[..., tf.data.Dataset],
    *,
    layers: Mapping[str, object],
    batch_size: int,
    bad: Collection[str],
) -> dict[str, FrozenFeatures]:
    """Opens the features of folders of records, and makes those not there.

    Args:
        folder: folder of features.
        used: records and the images that are used, see `images_used`.
        frozen: images [B, H, W, 3] -> features [B, F].
        images_of: makes the dataset of images of records, of rows of their
            manifest, with a batch size.
        layers: of `Origin`, what all folders have in common.
        batch_size: images of a batch.
        bad: image_id of images that cannot be read.

    Returns:
        Fingerprint of the records -> their features.

    Raises:
        BlockingIOError, ValueError: see `FrozenFeatures`; or the disk has too
            little room.
    """
    if len(used) > 1:
        _check_several(folder)
    opened, absent, images = {}, {}, 0
    for records, positions in used:
        origin = Origin(
            records=records.fingerprint,
            images=hashlib.sha256(
                positions.astype("<i8").tobytes()
            ).hexdigest(),
            **layers,
        )
        features = FrozenFeatures(
            folder / _name(origin) if len(used) > 1 else folder,
            records.manifest,
            positions,
            origin,
        )
        files = features.absent(bad)
        images += sum(map(len, files.values()))
        opened[records.fingerprint] = features
        absent[records.fingerprint] = files
    if not images:
        logging.info("Reading the features of %s.", folder)
        return opened
    frozen_features.check_space(
        folder, images, image_bytes=features.image_bytes
    )
    for records, _ in used:
        if absent[records.fingerprint]:
            opened[records.fingerprint].build(
                frozen,
                functools.partial(images_of, records),
                absent[records.fingerprint],
                batch_size=batch_size,
                bad=bad,
            )
    return opened


def of_folders(
    folders: Sequence[Records], features: Mapping[str, FrozenFeatures]
) -> Features:
    """Returns what rows of folders are read from, see `place_parts.train_rows`.

    Args:
        folders: opened records.
        features: of `build`.
    """
    by_folder = {
        str(records.path.absolute()): features[records.fingerprint]
        for records in folders
    }
    if len(folders) == 1:
        return next(iter(by_folder.values()))
    return FolderFeatures(by_folder)


def _name(origin: Origin) -> str:
    digest = hashlib.sha256(f"{origin.records} {origin.images}".encode())
    return digest.hexdigest()[:16]


def _check_several(folder: Path) -> None:
    """Refuses a folder that holds the features of one folder of records."""
    if (folder / frozen_features.NAME).is_file():
        raise ValueError(
            "Expected a new folder, or one of features of several folders of "
            f"records. Received: frozen_features={str(folder)!r}, which holds "
            "those of one. Choose another --frozen_features."
        )
