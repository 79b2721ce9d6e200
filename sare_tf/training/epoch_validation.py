"""Validation after an epoch, and what TensorBoard shows of it."""

from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from sare_tf.distributed import workers
from sare_tf.runtime import progress
from sare_tf.training import epoch_loop, tensorboard
from sare_tf.training.run_folder import RunFolder
from sare_tf.training.tensorboard import TrainingLog
from sare_tf.training.training_data import TrainingData
from sare_tf.training.validation import FolderValidations


def validate(
    network: keras.Model,
    data: TrainingData,
    measured: dict,
    *,
    folder: RunFolder,
    log: TrainingLog,
) -> dict[str, Any]:
    """Measures an epoch on the val splits, and logs the values.

    The projector shows descriptors of the best epoch, of the first folder.

    Args:
        network: the network that was trained.
        data: data of the run.
        measured: values of the epoch so far.
        folder: folder of the run.
        log: log of curves and pictures.

    Returns:
        Values of `FolderValidations.measure`; `recall_at` is None without
        a val split.
    """
    step = epoch_loop.steps_taken(network)
    log.values(step, {"epoch": measured["epoch"]})
    if data.val is None:
        return {"recall_at": None}
    validated, descriptors = embed_and_measure(
        network.get_layer("embedder"),
        data.val,
        f"Validation of epoch {measured['epoch']}",
    )
    values = {"mean_reciprocal_rank": validated["mean_reciprocal_rank"]}
    recalls = {"": validated["recall_at"]}
    for name, recall in validated.get("recall_by_folder", {}).items():
        recalls[f"{name}/"] = recall
    for prefix, recall in recalls.items():
        values |= {f"{prefix}recall_at_{k}": v for k, v in recall.items()}
    log.values(step, {f"val/{name}": value for name, value in values.items()})
    if folder.would_be_best({**measured, **validated}):
        _show(data, descriptors[0], log)
    return validated


def embed_and_measure(
    embedder: keras.Model, val: FolderValidations, title: str
) -> tuple[dict[str, Any], list[tuple[np.ndarray, np.ndarray]]]:
    """Measures a network on the val splits.

    Args:
        embedder: [B, H, W, 3] -> [B, D].
        val: the val splits.
        title: title of the progress.

    Returns:
        Values of `FolderValidations.measure`, the chief's on all workers, so
        that all choose the same best epoch; and the descriptors.
    """
    total = val.num_queries + val.num_database
    with progress.over_images(title, total=total) as shown:
        descriptors = val.embed(embedder, shown=shown)
    measured = val.measure(descriptors)
    own = tf.nest.map_structure(np.float64, measured)
    flat = np.array(tf.nest.flatten(own))
    flat = workers.from_chief(embedder.distribute_strategy, flat).tolist()
    measured = tf.nest.pack_sequence_as(own, flat)
    measured["val_queries"] = int(measured["val_queries"])
    return measured, descriptors


def _show(
    data: TrainingData,
    descriptors: tuple[np.ndarray, np.ndarray],
    log: TrainingLog,
) -> None:
    """Shows queries with their positives in the projector."""
    val, (queries, database) = data.val.first, descriptors
    sample, positives = val.sample(tensorboard.PROJECTOR_IMAGES)
    if len(sample):
        log.projector(
            data.val.folders[0],
            pd.concat([val.queries.iloc[sample], val.database.iloc[positives]]),
            np.concatenate([queries[sample], database[positives]]),
            height=data.options.image_height,
            width=data.options.image_width,
        )
