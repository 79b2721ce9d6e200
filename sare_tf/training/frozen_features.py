"""Features of the frozen layers, kept on disk and read instead of images.

    frozen.json               what the features were made of, see `Origin`
    features-00000.tfrecord   one record per image: its features, as bytes
    features-00000.json       the receipt of that file

Images of the train and val splits have a record each, in the order of the
manifest. A file is written in one piece, and its receipt after it, so a build
that was killed resumes with the files that are not whole. Each record has
checksums, which are compared whenever it is read. Features made of anything
else are refused, and never replaced: they may be those of another run.

Axis letters: F numbers of the features of an image.
"""

import dataclasses
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging

from sare_tf.distributed import strategies
from sare_tf.records import encoded_images, frames
from sare_tf.runtime import (
    disk_space,
    progress,
    run_lock,
    sealed_json,
    tfdata_threads,
)
from sare_tf.runtime.resumable_parts import ResumableParts

NAME = "frozen.json"
_COMMAND = "python -m sare_tf.train --flagfile=..."
# Bytes of a file: what a kill loses, and what is in memory while it is made.
_PART_BYTES = 1 << 27


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Everything that features depend on.

    Attributes:
        records: fingerprint of the records.
        images: digest of the positions of the images in them.
        backbone: name or file of the backbone.
        train_from: first layer that is trained.
        layers: digest of the frozen layers, their settings and weights.
        image_height: rows of an image.
        image_width: columns of an image.
        dtype: type of the features.
        numbers: F.
    """

    records: str
    images: str
    backbone: str
    train_from: str
    layers: str
    image_height: int
    image_width: int
    dtype: str
    numbers: int


class FrozenFeatures:
    """Features of images on disk: a source of datasets, as records are one.

    Args:
        folder: their folder.
        manifest: manifest of the records.
        positions: ascending positions in it of the images that have features.
        origin: what they are made of.

    Attributes:
        manifest: manifest of the records.
        image_bytes: size of the features of an image.
    """

    def __init__(
        self,
        folder: str | Path,
        manifest: pd.DataFrame,
        positions: np.ndarray,
        origin: Origin,
    ):
        self.manifest = manifest
        self._folder = Path(folder)
        self._positions = positions
        self._origin = origin
        self._dtype = tf.as_dtype(origin.dtype)
        self.image_bytes = origin.numbers * self._dtype.size
        self._per_part = max(1, _PART_BYTES // self.image_bytes)
        self._parts = ResumableParts(self._folder)

    def dataset(self, rows: pd.DataFrame) -> tf.data.Dataset:
        """Reads features of manifest rows, in their order.

        An iterator raises tf.errors.DataLossError where checksums do not hold.

        Args:
            rows: B rows of the manifest, repeated or not.

        Returns:
            Dataset of B vectors, [F].
        """
        return self.read(self.paths, *self.where(rows.index.to_numpy()))

    @property
    def paths(self) -> list[str]:
        """Paths of the files."""
        return [
            str(self._folder / f"{name}.tfrecord") for name in self._names()
        ]

    def where(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns where features lie.

        Args:
            positions: B positions of images in the manifest.

        Returns:
            The number of the file in `paths`, and the offset in it, int64 [B].
        """
        slots = np.searchsorted(self._positions, positions)
        files, within = np.divmod(slots, self._per_part)
        offsets = within * (self.image_bytes + frames.FRAME_BYTES)
        return files.astype(np.int64), offsets.astype(np.int64)

    def read(
        self, paths: Sequence[str], files: np.ndarray, offsets: np.ndarray
    ) -> tf.data.Dataset:
        """Reads features of this type and size from files.

        Args:
            paths: paths of files.
            files: int64 [B], numbers of files in `paths`.
            offsets: int64 [B], offsets in these files.

        Returns:
            As `dataset`.
        """
        paths = tf.constant(paths)

        @tf.autograph.experimental.do_not_convert
        def read(file: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
            record = encoded_images.record_at(paths[file], offset)
            features = tf.io.decode_raw(record, self._dtype)
            return tf.ensure_shape(features, (self._origin.numbers,))

        where = tf.data.Dataset.from_tensor_slices((files, offsets))
        return tfdata_threads.fixed(
            where.map(read, num_parallel_calls=tfdata_threads.THREADS)
        )

    def absent(self, bad: Collection[str]) -> dict[str, pd.DataFrame]:
        """Returns the files that are not whole, with their rows.

        A file without an image that can be read now is not whole, either.

        Args:
            bad: image_id of images that cannot be read.

        Raises:
            ValueError: the folder holds features of other things, or other
                files.
        """
        self._check_origin()
        absent = {}
        for number, name in enumerate(self._names()):
            part = self._parts.find(name)
            if part is None or not set(part.facts["left_out"]) <= set(bad):
                first = number * self._per_part
                absent[name] = self.manifest.iloc[
                    self._positions[first : first + self._per_part]
                ]
        return absent

    def build(
        self,
        frozen: keras.Model,
        images_of: Any,
        absent: Mapping[str, pd.DataFrame],
        *,
        batch_size: int,
        bad: Collection[str],
    ) -> None:
        """Makes the features that are not there.

        Args:
            frozen: images [B, H, W, 3] -> features [B, F].
            images_of: makes the dataset of images of manifest rows, with a
                batch size.
            absent: the files to make, of `absent`.
            batch_size: images of a batch.
            bad: image_id of images that cannot be read; they get zeros, which
                nothing reads.

        Raises:
            BlockingIOError: another run makes features there.
        """
        with run_lock.only_run(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            sealed_json.write(
                self._folder / NAME, dataclasses.asdict(self._origin)
            )
            # What a kill left of a file.
            self._parts.discard_others([*self._names(), Path(NAME).stem])
            with progress.over_images(
                "Features of frozen layers",
                total=sum(map(len, absent.values())),
            ) as shown:
                for name, rows in absent.items():
                    self._write(
                        name,
                        rows,
                        rows["image_id"].isin(bad).to_numpy(),
                        lambda readable: strategies.predict(
                            frozen, readable, images_of, batch_size=batch_size
                        ),
                    )
                    shown.advance(len(rows))

    def _names(self) -> list[str]:
        count = -(-len(self._positions) // self._per_part)
        return [f"features-{number:05d}" for number in range(count)]

    def _write(self, name, rows, is_bad, compute) -> None:
        features = np.zeros(
            (len(rows), self._origin.numbers), self._dtype.as_numpy_dtype
        )
        if not is_bad.all():
            features[~is_bad] = compute(rows[~is_bad])
        with self._parts.write(name, what="features") as part:
            part.facts["left_out"] = rows["image_id"][is_bad].tolist()
            with tf.io.TFRecordWriter(str(part.path(".tfrecord"))) as writer:
                for vector in features:
                    writer.write(vector.tobytes())

    def _check_origin(self) -> None:
        """Refuses a folder of other features, naming what differs."""
        if not (self._folder / NAME).is_file():
            if self._folder.is_dir() and any(self._folder.iterdir()):
                raise ValueError(
                    "Expected a new folder, or one of features. Received: "
                    f"frozen_features={str(self._folder)!r}, which holds other "
                    "files. Choose another --frozen_features."
                )
            return
        there = sealed_json.read(
            self._folder / NAME, made_by=_COMMAND, types={}
        )
        differences = [
            f"{name} {str(there.get(name)):.16} there, {str(value):.16} now"
            for name, value in dataclasses.asdict(self._origin).items()
            if there.get(name) != value
        ]
        if differences:
            raise ValueError(
                "Expected features of the same frozen layers and images. "
                f"Received: frozen_features={str(self._folder)!r} with "
                f"{'; '.join(differences)}. Choose another --frozen_features, "
                "or delete that folder."
            )


def check_space(folder: Path, images: int, *, image_bytes: int) -> None:
    """Reports the size of features, and refuses too full a disk.

    Args:
        folder: where they will be written.
        images: number of images.
        image_bytes: size of the features of an image.

    Raises:
        ValueError: the disk has too little room.
    """
    needed = images * (image_bytes + frames.FRAME_BYTES)
    logging.info(
        "Computing features of %d images once: %.1f MiB in %s.",
        images,
        needed / 2**20,
        folder,
    )
    free = disk_space.free_bytes(folder)
    if free < needed:
        raise ValueError(
            f"Expected {needed / 2**20:.1f} MiB of free space for features of "
            f"{images} images. Received: frozen_features={str(folder)!r}, "
            f"with {free / 2**20:.1f} MiB free. Make room, choose another "
            "--frozen_features, or leave --cache_frozen out."
        )


def remove_damaged(folder: str | Path) -> int:
    """Removes files whose checksums do not hold, so that they are made again.

    Args:
        folder: folder of features, or of such folders.

    Returns:
        The number of files removed.
    """
    count = 0
    for path in sorted(Path(folder).glob("**/features-*.tfrecord")):
        parts = ResumableParts(path.parent)
        try:
            for _ in tf.data.TFRecordDataset(str(path)):
                pass
            is_whole = parts.find(path.stem) is not None
        except tf.errors.OpError as error:
            logging.warning("%s", str(error).splitlines()[0])
            is_whole = False
        if not is_whole:
            logging.warning("Features of %s are made again.", path)
            parts.remove(path.stem)
            count += 1
    return count


def digest_of(layers: keras.Model) -> str:
    """Digests the settings and weights of all layers of a model.

    Names do not count: Keras numbers layers anew in each process.
    """
    digest = hashlib.sha256()
    for layer in layers._flatten_layers(include_self=False):
        if isinstance(layer, keras.Model | keras.layers.InputLayer):
            continue
        settings = {
            name: value
            for name, value in layer.get_config().items()
            # Of training, not of what the layer computes when it is frozen.
            if name not in ("name", "trainable", "drop_rate", "column")
        }
        digest.update(f"{type(layer).__name__} {settings}".encode())
        for weight in layer.weights:
            digest.update(keras.ops.convert_to_numpy(weight).tobytes())
    return digest.hexdigest()
