"""Measures how often answers are right, on validation queries.

The queries are asked twice: as they are, and once more without their right
images, as photographs of places that are not in the database. If the index
holds the validation images, the queries are compared with all of its images;
otherwise with the validation images alone, which are embedded for this.
Photographs from elsewhere, if there are any, are asked with them.
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
    score_fitting,
)
from sare_tf.evaluation.distractors import Distractors
from sare_tf.evaluation.evaluate_descriptors import Task
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.records.records import Records
from sare_tf.search import calibration, confidence, embedding, placing
from sare_tf.search.answer_scores import Found, Scorer
from sare_tf.search.calibration import Calibration
from sare_tf.search.descriptor_arrays import GatheredRows
from sare_tf.search.opened_index import Index

# Ours: models by which out-of-fold scores are made.
_FOLDS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What the validation queries found.

    Args:
        results: of the queries.
        is_held: whether they were compared with the images of the index;
            otherwise with those of the split.
        num_searched: images that they were compared with.
        found: the images of each query, in the order of `results`.
        absent: the same without the right images.
        elsewhere: what photographs from elsewhere found; None without any.
        ranking: how the images were re-ranked; empty if they were not.
    """

    results: QueryResults
    is_held: bool
    num_searched: int
    found: Found
    absent: Found
    elsewhere: Found | None = None
    ranking: str = ""


def measure(
    asked: Asked, *, radius_m: float, index: Index, fingerprint: str | None
) -> Calibration | None:
    """Calibrates answers and positions.

    Args:
        asked: what the validation queries found.
        radius_m: images at most this far apart show the same place.
        index: the opened index.
        fingerprint: of the export.

    Returns:
        The calibration of this index; None, with a warning, if there are too
        few validation queries whose places are known.
    """
    results = asked.results
    positions = placing.PositionMap(results.database, radius_m=radius_m)
    counted = results.truth.counted
    found = asked.found.take(counted)
    placed = placing.fit(
        positions, found.rows, found.values, results.queries[counted]
    )
    scorer = Scorer(
        confidence.Places(results.database, radius_m=radius_m),
        positions,
        placed and placed.temperature,
    )
    scores = scorer(asked.found, count=len(results.database))
    is_known = counted & np.isfinite(scores["margin"])
    if is_known.sum() < calibration.LEAST_QUERIES:
        _warn(int(is_known.sum()), len(results.database))
        return None
    is_left = is_known & (asked.absent.rows[:, 0] >= 0)
    absent = scorer(
        asked.absent.take(is_left),
        count=(len(results.database) - results.positive_counts)[is_left],
    )
    elsewhere = None
    if asked.elsewhere is not None:
        elsewhere = scorer(asked.elsewhere, count=len(results.database))
    return Calibration(
        export_fingerprint=fingerprint,
        index_digest=index.digest,
        positive_radius_m=radius_m,
        split=calibration.SPLIT,
        queries=int(is_known.sum()),
        database=asked.num_searched,
        same_database=asked.is_held,
        protocol=protocols.describe(results.protocol),
        placing=placed,
        ranking=asked.ranking,
        **_calibrated(
            {name: one[is_known] for name, one in scores.items()},
            (results.ranks == 1)[is_known],
            absent,
            elsewhere,
            folds=_folds(results.queries),
            known=(is_known, is_left),
        ),
    )


def _calibrated(
    scores: dict[str, np.ndarray],
    right: np.ndarray,
    absent: dict[str, np.ndarray],
    elsewhere: dict[str, np.ndarray] | None,
    *,
    folds: np.ndarray,
    known: tuple[np.ndarray, np.ndarray],
) -> dict[str, object]:
    """The model of scores, and the groups of each score.

    The model is fitted to the queries as they are and without their right
    images. Groups are of the scores by models that were fitted to other
    queries, so that the share of right answers is not too high.

    Args:
        scores: of Q queries.
        right: bool [Q].
        absent: scores of queries without their right images.
        elsewhere: of photographs from elsewhere; they are counted only.
        folds: int [all queries].
        known: bool [all queries], those of `scores` and of `absent`.
    """
    both = {
        name: np.concatenate([values, absent[name]])
        for name, values in scores.items()
    }
    labels = np.concatenate([right, np.zeros(len(absent["margin"]), bool)])
    # An answer with no other place to compare with has no score.
    sure = np.isfinite(both["margin"])
    both = {name: values[sure] for name, values in both.items()}
    of_fold = np.concatenate([folds[one] for one in known])[sure]
    combined = score_fitting.out_of_fold(both, labels[sure], of_fold)
    model = score_fitting.fit(both, labels[sure])
    count = len(right)

    def group(values: np.ndarray, others: np.ndarray) -> list:
        return calibration.group(
            values[:count].tolist(),
            right.tolist(),
            values[count:].tolist(),
            distractors=others[np.isfinite(others)].tolist(),
        )

    others = {name: np.zeros(0) for name in [*scores, "combined"]}
    if elsewhere is not None:
        there = np.isfinite(elsewhere["margin"])
        others = {name: values[there] for name, values in elsewhere.items()}
        others["combined"] = score_fitting.apply(model, others)
    return {
        "model": model,
        "groups": group(combined, others["combined"]),
        "by_score": {
            name: group(values, others[name])
            for name, values in both.items()
            if np.isfinite(values).all()
        },
    }


def _folds(queries: pd.DataFrame) -> np.ndarray:
    """The fold of each query, int [Q]: those of one place are together."""
    order = np.lexsort(
        [
            queries["utm_north_m"],
            queries["utm_east_m"],
            queries["place_id"].to_numpy(str),
        ]
    )
    folds = np.empty(len(queries), np.int64)
    parts = np.array_split(order, min(_FOLDS, len(queries)))
    for number, part in enumerate(parts):
        folds[part] = number
    return folds


def ask(
    options: EvaluationOptions,
    *,
    records: Records,
    index: Index,
    servable: serving.Servable | serving.RemoteServable,
    elsewhere: Distractors | None = None,
) -> Asked | None:
    """Asks the validation queries.

    Args:
        options: protocol, radius and batches.
        records: the opened records of the index.
        index: the opened index.
        servable: the model of both.
        elsewhere: photographs from elsewhere.

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
    logging.info(
        "Calibrating on %d queries of %s.",
        len(task.queries),
        calibration.SPLIT,
    )
    with tempfile.TemporaryDirectory(prefix="sare_tf-") as folder:
        vectors = index.descriptors
        if not is_held:
            vectors = _embed_to_disk(
                servable, records, task.database, options, Path(folder)
            )
        results = _ask(options, records, task, servable, vectors)
        others = None
        if elsewhere is not None:
            others = elsewhere.search(
                vectors, results.rows.shape[1], allowed=task.truth.allowed
            )
    found = Found.retrieved(results.rows, results.squared_distances)
    return Asked(
        results=results,
        is_held=is_held,
        num_searched=task.num_searched,
        found=found,
        absent=found.without(results.hits),
        elsewhere=others,
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
    vectors: np.ndarray | GatheredRows,
) -> QueryResults:
    """Searches for the queries, deep enough to do without their positives."""
    query_vectors = embedding.embed(
        servable,
        records.read_images(task.queries),
        task.queries["image_id"].tolist(),
        batch_size=options.batch_size,
    )
    most = max(len(rows) for rows in task.truth.positives)
    depth = max(
        confidence.DEPTH, options.rerank_top if options.reranks_features else 0
    )
    return task.evaluate(
        query_vectors,
        vectors,
        num_neighbours=depth + most,
        place_radius_m=options.positive_radius_m,
    )


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
