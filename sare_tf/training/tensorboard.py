"""Curves, histograms and pictures of a training run, for TensorBoard.

    tensorboard/
      events.out.tfevents.*.epoch-NNNN   curves, histograms, pictures
      projector_config.pbtxt, projector/ descriptors of the best epoch

The horizontal axis is the number of steps since the start of the run. Each
epoch has a file of its own. A run that is resumed removes the files of epochs
that were not finished, so that no value is ever there twice.

Distances are squared; axis letters as in `hard_negatives`.
"""

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from tensorboard.plugins import projector

from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files
from sare_tf.training import datasets, tensorboard_pictures
from sare_tf.training.hard_negatives import Mined

# Points of the projector: more than some thousand make it slow.
PROJECTOR_IMAGES = 1000
# The projector itself reduces to 200 before t-SNE.
_PROJECTOR_DIMENSION = 200
_PROFILE_AFTER = 5
_PROFILE_STEPS = 10


class TrainingLog:
    """The event files of a run.

    Args:
        folder: folder of the files; made when there is something to write.
        epochs: number of finished epochs; files of later ones are removed.
    """

    def __init__(self, folder: str | Path, *, epochs: int):
        self.folder = Path(folder)
        self._writer = None
        for path in self.folder.glob("events.out.tfevents.*.epoch-*"):
            if int(path.name.rpartition("-")[2]) >= epochs:
                path.unlink()

    def begin(self, epoch: int) -> None:
        """Opens the file of an epoch."""
        self._writer = tf.summary.create_file_writer(
            str(self.folder), filename_suffix=f".epoch-{epoch:04d}"
        )

    def end(self) -> None:
        """Closes the file of the epoch; all of it is on disk then."""
        self._writer.close()

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Writes a point of each curve, by its name."""
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def mined(self, step: int, mined: Mined) -> None:
        """Writes shares and distances of a mining pass."""
        with self._writer.as_default(step=step):
            tf.summary.scalar("mining/violating", mined.violating)
            for name in ("positive", "negative"):
                distances = getattr(mined, f"{name}_distances").reshape(-1)
                tf.summary.histogram(f"mining/{name}_distance", distances)
        self._writer.flush()

    def hardest(
        self,
        step: int,
        records: Records,
        tuples: np.ndarray,
        mined: Mined,
        *,
        height: int,
        width: int,
    ) -> None:
        """Writes a picture of the hardest tuples, see `tensorboard_pictures`.

        Args:
            step: step of the run.
            records: opened records.
            tuples: int [M, T], positions in the records' manifest.
            mined: rows and distances of the tuples, in the same order.
            height: rows of the network's input, whose shape the pictures keep.
            width: columns of it.
        """
        picture = tensorboard_pictures.hardest_tuples(
            records, tuples, mined, height=height, width=width
        )
        with self._writer.as_default(step=step):
            tf.summary.image("mining/hardest_tuples", picture[None])
        self._writer.flush()

    def projector(
        self,
        records: Records,
        rows: pd.DataFrame,
        descriptors: np.ndarray,
        *,
        height: int,
        width: int,
    ) -> None:
        """Writes descriptors with thumbnails; replaces those that are there.

        Args:
            records: opened records.
            rows: B rows of their manifest.
            descriptors: [B, D], of these rows. Longer ones are shown by their
                first 200 principal components.
            height: rows of the network's input, whose shape thumbnails keep.
            width: columns of it.
        """
        height, width = tensorboard_pictures.fit(height, width, longest=48)
        with atomic_files.folder_in_one_piece(
            self.folder / "projector"
        ) as folder:
            np.savetxt(
                folder / "descriptors.tsv",
                _shortened(descriptors.astype(np.float32)),
                fmt="%.6g",
                delimiter="\t",
            )
            shown = rows[["image_id", "place_id", "role"]]
            # TensorBoard splits at every tab, quotes or not.
            shown = shown.replace(r"\s", " ", regex=True)
            shown.to_csv(folder / "metadata.tsv", sep="\t", index=False)
            tensorboard_pictures.sprite(
                datasets.image_dataset(
                    records, rows, height=height, width=width
                ),
                count=len(rows),
            ).save(folder / "sprite.png")
        config = projector.ProjectorConfig()
        embedding = config.embeddings.add(
            tensor_name="descriptors of the best epoch",
            tensor_path="projector/descriptors.tsv",
            metadata_path="projector/metadata.tsv",
        )
        embedding.sprite.image_path = "projector/sprite.png"
        embedding.sprite.single_image_dim.extend([width, height])
        atomic_files.write_text(
            self.folder / "projector_config.pbtxt", str(config)
        )


class Profile(keras.callbacks.Callback):
    """Profiles some steps of the first `fit` that it takes part in.

    The first steps, in which functions are traced, are left out if there are
    enough steps.

    Args:
        folder: folder of TensorBoard's files.
    """

    def __init__(self, folder: Path):
        super().__init__()
        self._folder = folder
        self._first = self._last = None
        self._running = False

    def on_train_begin(self, logs=None):
        if self._first is None:
            self._first = min(_PROFILE_AFTER, self.params["steps"] - 1)
            self._last = self._first + _PROFILE_STEPS - 1
        else:
            self._first = self._last = -1  # it is done

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self._first:
            tf.profiler.experimental.start(str(self._folder))
            self._running = True

    def on_train_batch_end(self, batch, logs=None):
        if batch == self._last:
            self._stop()

    def on_train_end(self, logs=None):
        self._stop()

    def _stop(self) -> None:
        if self._running:
            tf.profiler.experimental.stop()
            self._running = False


def _shortened(descriptors: np.ndarray) -> np.ndarray:
    """Projects [B, D] to [B, d], d <= 200, with nearly the same distances."""
    if descriptors.shape[1] <= _PROJECTOR_DIMENSION:
        return descriptors
    centred = descriptors - descriptors.mean(axis=0)
    # By the products of the images with each other: B is the shorter side.
    values, vectors = np.linalg.eigh(centred @ centred.T)
    scale = np.sqrt(np.maximum(values, 0.0))
    return (vectors * scale)[:, ::-1][:, :_PROJECTOR_DIMENSION]
