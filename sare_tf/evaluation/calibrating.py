"""Measures how often answers of a confidence are right, on validation queries.

The queries are asked twice: as they are, and once more without their right
images, as photographs of places that are not in the database. If the index
holds the validation images, the queries are compared with all of its images;
otherwise with the validation images alone, which are embedded for this.
"""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from absl import logging

from sare_tf import serving
from sare_tf.dataset import names
from sare_tf.dataset.positives import choose_rule
from sare_tf.evaluation import (
    evaluate_descriptors,
    protocol_choice,
    protocols,
)
from sare_tf.evaluation.evaluate_descriptors import Task
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.records.records import Records
from sare_tf.search import calibration, confidence, embedding
from sare_tf.search.calibration import Calibration
from sare_tf.search.descriptor_arrays import GatheredRows
from sare_tf.search.opened_index import Index


def measure(
    options: EvaluationOptions,
    *,
    records: Records,
    index: Index,
    servable: serving.Servable | serving.RemoteServable,
) -> Calibration | None:
    """Asks the validation queries, and calibrates the confidence of answers.

    Args:
        options: protocol, radius and batches.
        records: the opened records of the index.
        index: the opened index.
        servable: the model of both.

    Returns:
        The calibration of this index; None, with a warning, if the records
        have too few validation queries whose places are known.
    """
    asked = ask(options, records=records, index=index, servable=servable)
    if asked is None:
        return None
    results = asked.results
    is_known = results.truth.counted & np.isfinite(results.confidence)
    if is_known.sum() < calibration.LEAST_QUERIES:
        _warn(int(is_known.sum()), len(results.database))
        return None
    absent = confidence_without_positives(
        results, radius_m=options.positive_radius_m
    )[is_known]
    return Calibration(
        export_fingerprint=servable.fingerprint,
        index_digest=index.digest,
        positive_radius_m=options.positive_radius_m,
        split=calibration.SPLIT,
        queries=int(is_known.sum()),
        database=asked.num_searched,
        same_database=asked.is_held,
        protocol=protocols.describe(results.protocol),
        groups=calibration.group(
            results.confidence[is_known].tolist(),
            (results.ranks == 1)[is_known].tolist(),
            absent[np.isfinite(absent)].tolist(),
        ),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What the validation queries found.

    Args:
        results: of the queries.
        is_held: whether they were compared with the images of the index;
            otherwise with those of the split.
        num_searched: images that they were compared with.
    """

    results: QueryResults
    is_held: bool
    num_searched: int


def ask(
    options: EvaluationOptions,
    *,
    records: Records,
    index: Index,
    servable: serving.Servable | serving.RemoteServable,
) -> Asked | None:
    """Asks the validation queries.

    Args:
        options: protocol, radius and batches.
        records: the opened records of the index.
        index: the opened index.
        servable: the model of both.

    Returns:
        None, with a warning, if there are too few.
    """
    rows = records.manifest[records.manifest["split"] == calibration.SPLIT]
    queries = rows[rows["role"] == "query"]
    is_held = calibration.SPLIT in names.splits_of(index.metadata["split"])
    database = index.manifest if is_held else rows[rows["role"] == "database"]
    if len(queries) < calibration.LEAST_QUERIES or not len(database):
        _warn(len(queries), len(database))
        return None
    task = _prepare(options, records, queries, database)
    results = _ask(
        options, records, task, servable, index.descriptors if is_held else None
    )
    return Asked(
        results=results, is_held=is_held, num_searched=task.num_searched
    )


def _prepare(
    options: EvaluationOptions,
    records: Records,
    queries: pd.DataFrame,
    database: pd.DataFrame,
) -> Task:
    rule = choose_rule(
        queries, database, rule=options.positives, relations=records.relations
    )
    return evaluate_descriptors.prepare(
        protocol_choice.choose(options, rule),
        queries,
        database,
        relations=records.relations,
    )


def _ask(
    options: EvaluationOptions,
    records: Records,
    task: Task,
    servable: serving.Servable | serving.RemoteServable,
    vectors: np.ndarray | GatheredRows | None,
) -> QueryResults:
    """Searches for the queries, deep enough to do without their positives."""
    logging.info(
        "Calibrating on %d queries of %s.",
        len(task.queries),
        calibration.SPLIT,
    )
    query_vectors = embedding.embed(
        servable,
        records.read_images(task.queries),
        task.queries["image_id"].tolist(),
        batch_size=options.batch_size,
    )
    most = max(len(rows) for rows in task.truth.positives)
    with tempfile.TemporaryDirectory(prefix="sare_tf-") as folder:
        if vectors is None:
            vectors = _embed_to_disk(
                servable, records, task.database, options, Path(folder)
            )
        return task.evaluate(
            query_vectors,
            vectors,
            num_neighbours=confidence.DEPTH + most,
            place_radius_m=options.positive_radius_m,
        )


def confidence_without_positives(
    results: QueryResults, *, radius_m: float
) -> np.ndarray:
    """Returns the confidence of each query once its positives are taken out.

    Args:
        results: of Q queries, with `confidence.DEPTH` neighbours more than any
            of them has positives, or the whole database.
        radius_m: images at most this far apart show the same place.

    Returns:
        float64 [Q]; NaN where no image, or only one place, is left.
    """
    depth = min(confidence.DEPTH, results.rows.shape[1])
    # Other images first, in their order.
    order = np.argsort(results.hits, axis=1, kind="stable")[:, :depth]
    is_other = ~np.take_along_axis(results.hits, order, axis=1)
    rows = np.take_along_axis(results.rows, order, axis=1)
    squared = np.take_along_axis(results.squared_distances, order, axis=1)
    rows = np.where(is_other, rows, -1)
    squared = np.where(is_other, squared, np.inf)
    places = confidence.Places(results.database, radius_m=radius_m)
    left = rows[:, 0] >= 0
    values = np.full(len(rows), np.nan)
    values[left] = confidence.of_neighbours(
        squared[left],
        places.same_as_first(rows[left]),
        count=len(results.database) - results.positive_counts[left],
    )
    return values


def _embed_to_disk(
    servable: serving.Servable | serving.RemoteServable,
    records: Records,
    rows: pd.DataFrame,
    options: EvaluationOptions,
    folder: Path,
) -> np.ndarray:
    """Embeds images into a file, so that memory does not grow with them."""
    vectors = np.lib.format.open_memmap(
        folder / "descriptors.npy",
        mode="w+",
        dtype=np.float32,
        shape=(len(rows), servable.dimension),
    )
    start = 0
    for batch in embedding.embed_batches(
        servable,
        records.read_images(rows),
        rows["image_id"].tolist(),
        batch_size=options.batch_size,
    ):
        vectors[start : start + len(batch)] = batch
        start += len(batch)
    return vectors


def _warn(num_queries: int, num_images: int) -> None:
    logging.warning(
        "Nothing is calibrated: the split %s has %d queries whose "
        "places are known, of at least %d, and %d database images.",
        calibration.SPLIT,
        num_queries,
        calibration.LEAST_QUERIES,
        num_images,
    )
