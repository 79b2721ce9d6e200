"""A baseline without a network: small pictures as descriptors."""

import io

import numpy as np
import pandas as pd
from PIL import Image

from sare_tf.evaluation.evaluate_descriptors import Task
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
