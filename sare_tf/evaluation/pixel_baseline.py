"""A baseline without a network: small pictures as descriptors."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from absl import logging
from PIL import Image

from sare_tf.evaluation import evaluate_descriptors
from sare_tf.evaluation.evaluate_descriptors import Task
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.records.records import Records

# Columns and rows of a picture as a descriptor. Ours.
_PIXELS = (32, 24)


def evaluate(
    task: Task, records: Records, *, num_neighbours: int
) -> QueryResults:
    """Evaluates small pictures as descriptors, with exact search.

    Every image is decoded, which takes some 3 s of a core for 1,000 images of
    640 x 480.

    Args:
        task: queries and database, images of `records`.
        records: opened records.
        num_neighbours: neighbours to keep for each query.
    """
    rows = records.manifest.set_index("image_id", drop=False)
    query_vectors, database_vectors = (
        pixel_descriptors(records, rows.loc[images["image_id"]])
        for images in (task.queries, task.database)
    )
    return task.evaluate(
        query_vectors, database_vectors, num_neighbours=num_neighbours
    )


def pixel_descriptors(records: Records, rows: pd.DataFrame) -> np.ndarray:
    """Returns small pictures as descriptors: mean removed, of unit length.

    Args:
        records: opened records.
        rows: B rows of their manifest.

    Returns:
        float32 [B, 2304].
    """
    descriptors = np.empty((len(rows), 3 * _PIXELS[0] * _PIXELS[1]), np.float32)
    for row, encoded in enumerate(records.read_images(rows)):
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        pixels = np.asarray(image.resize(_PIXELS, Image.Resampling.BOX))
        pixels = pixels.astype(np.float32).reshape(-1)
        pixels -= pixels.mean()
        descriptors[row] = pixels / max(np.linalg.norm(pixels), 1e-6)
    return descriptors


def baselines(
    options: EvaluationOptions, task: Task, records: Records, ks: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Measures recall of small pictures, unless there are many images.

    Args:
        options: how many images are many.
        task: the queries and their ground truth.
        records: have the images.
        ks: the values of N of recall@N.

    Returns:
        JSON, empty if there are many.
    """
    count = len(task.queries) + len(task.database)
    is_of_records = task.database["image_id"].isin(records.manifest["image_id"])
    if count > options.baseline_images or not is_of_records.all():
        logging.info(
            "Skipped the baseline of small pictures: %d images, %d of them not "
            "in these records, --baseline_images=%d.",
            count,
            (~is_of_records).sum(),
            options.baseline_images,
        )
        return {}
    results = evaluate(
        task,
        records,
        num_neighbours=max(evaluate_descriptors.NUM_NEIGHBOURS, *ks),
    )
    every = range(1, results.rows.shape[1] + 1)
    curve = results.recall_at(every)
    return {
        "pixels": {
            "recall_at": {str(k): curve[k] for k in ks},
            "recall_curve": list(curve.values()),
        }
    }
