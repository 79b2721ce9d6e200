"""index/ + the queries of records/ -> metrics.json, queries.csv, report.html.

    python -m sare_tf.evaluate --flagfile=sare_tf:demo

`--protocol` chooses what is measured; metrics and page put it into words.
Recall is measured by exact search, so that it depends only on the model. The
metrics also say what the index's ScaNN search loses against it. Descriptors of
the database are read in blocks, so that memory does not grow with it.
`--calibrate` measures how often answers of `locate` are right. With `--rerank`,
results are those in the new order, and `without_rerank` holds the others; with
`--sequence_length`, those of sequences, and `single_frames` the others.
"""

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from absl import logging

from sare_tf import flags, serving
from sare_tf.evaluation import (
    calibrating,
    evaluate_descriptors,
    metric_text,
    pixel_baseline,
    preparing,
    protocols,
    query_positions,
    reordering,
    reranking,
    search_comparison,
    sequences,
)
from sare_tf.evaluation.evaluate_descriptors import Task
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.evaluation.reranking import Reranked
from sare_tf.pages import evaluation_cases, evaluation_page, match_lines
from sare_tf.records.records import Records
from sare_tf.runtime import (
    atomic_files,
    file_digests,
    run_lock,
    sealed_json,
    stage_results,
    versions,
)
from sare_tf.search import calibration, embedding, position_files
from sare_tf.search.opened_index import Index
from sare_tf.serving import model_card

_FILES = {"metrics.json", "queries.csv", "report.html"}
# Of --write_positions, if they are in the same folder.
_POSITIONS = {"*.geojson", "*.kml", "*.gpx", "positions.csv"}


@run_lock.one_at_a_time("evaluation")
def run(options: EvaluationOptions) -> Path:
    """Evaluates an export on the queries of a split.

    Args:
        options: an index of that split, or of more than it, the records and
            the export that it was built from, and the protocol. Values of N
            above the number of database images are left out with a warning,
            and listed in the metrics.

    Returns:
        The path of metrics.json.

    Raises:
        FileNotFoundError: an input does not exist or is unfinished.
        ValueError: inputs that do not belong together or lack what the
            protocol needs, no query with a positive, or a folder of results
            that holds something else.
    """
    out = Path(options.evaluation)
    atomic_files.check_replaceable(out, names=_FILES | _POSITIONS)
    position_paths = position_files.paths_of(options.write_positions)
    _check_positions(position_paths, out)
    records, index, servable = _open(options)
    task = preparing.prepare(options, records, index)
    ks, left_out = preparing.choose_ks(options.recall_at, task.num_searched)
    began = time.perf_counter()
    frames, vectors, query_vectors = _embed(servable, records, task, options)
    embed_seconds = time.perf_counter() - began
    results = task.evaluate(
        query_vectors,
        index.descriptors,
        num_neighbours=max(evaluate_descriptors.NUM_NEIGHBOURS, *ks),
        place_radius_m=options.positive_radius_m,
    )
    compared, search_seconds = search_comparison.compare(
        index, query_vectors, results
    )
    reordered = reordering.reorder(
        results,
        options,
        task=task,
        queries=(frames, vectors),
        records=records,
        index=index,
        servable=servable,
    )
    if reordered is not None:
        results = reordered.after
    metrics = {
        **_describe(
            task,
            results,
            ks,
            left_out=left_out,
            splits=(options.split, index.metadata["split"]),
        ),
        "baselines": pixel_baseline.baselines(options, task, records, ks),
        **reordering.described(reordered, ks),
        "epoch_choice": _epoch_choice(servable),
        "search": compared,
        "speed": {
            "embed_seconds": embed_seconds,
            "exact_search_seconds": results.search_seconds,
            "search_seconds": search_seconds,
            "queries_per_second": len(vectors)
            / (embed_seconds + search_seconds),
        },
        "database_digest": _digest(task.database["image_id"]),
        **_made_with(records, servable),
    }
    _write(out, metrics, results, records, reordered)
    _write_positions(position_paths, results)
    calibrated = _calibrate(options, records, index, servable)
    if isinstance(reordered, Reranked):
        reranking.keep(reordered, index)
    _report(out, metrics, calibrated)
    return out / "metrics.json"


def _open(
    options: EvaluationOptions,
) -> tuple[Records, Index, serving.Servable | serving.RemoteServable]:
    """Opens records, index and model, and refuses those of others."""
    records = Records(options.records)
    index = Index.open(
        options.index_paths,
        exact=options.exact_search,
        check=options.check_index,
    )
    index.check_records(records, split=options.split)
    servable = serving.load(serving.named(options))
    index.check_export(servable)
    return records, index, servable


def _made_with(
    records: Records, servable: serving.Servable | serving.RemoteServable
) -> dict[str, Any]:
    """The model, and what else the figures were made with."""
    return {
        "model": model_card.describe(servable),
        "dimension": servable.dimension,
        "export_fingerprint": servable.fingerprint,
        "records_fingerprint": records.fingerprint,
        "versions": versions.of("tensorflow", "scann", "numpy"),
    }


def _calibrate(
    options: EvaluationOptions,
    records: Records,
    index: Index,
    servable: serving.Servable | serving.RemoteServable,
) -> tuple[Path, str] | None:
    """Keeps in the index how often answers of a confidence are right.

    Returns:
        The file and what was measured, in words; None if nothing was.
    """
    if not options.calibrate:
        return None
    folder = index.folders[0]
    with run_lock.only_run(folder):
        measured = calibrating.measure(
            options, records=records, index=index, servable=servable
        )
        if measured is None:
            return None
        measured.write(folder)
    return folder / calibration.NAME, measured.describe()


def _check_positions(paths: Sequence[str], out: Path) -> None:
    """Refuses files that are, or look like, others of an evaluation."""
    for path in map(Path, paths):
        is_inside = path.resolve().parent == out.resolve()
        if is_inside and not any(map(path.match, _POSITIONS)):
            raise ValueError(
                f"Expected one of {', '.join(sorted(_POSITIONS))} in the "
                "folder of the evaluation. Received: write_positions="
                f"{str(path)!r}. Choose another name, or another folder."
            )


def _embed(
    servable: serving.Servable | serving.RemoteServable,
    records: Records,
    task: Task,
    options: EvaluationOptions,
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Embeds the queries; where sequences are asked, all those of the split.

    Returns:
        Rows of the images that were embedded, their descriptors, and those of
        the queries that the protocol asks.
    """
    are_asked = sequences.are_asked(task, options)
    frames = task.queries
    if are_asked:
        frames = records.rows(options.split, "query")
    logging.info("Embedding %d queries.", len(frames))
    vectors = embedding.embed(
        servable,
        records.read_images(frames),
        frames["image_id"].tolist(),
        batch_size=options.batch_size,
    )
    return frames, vectors, vectors[task.asked] if are_asked else vectors


def _describe(
    task: Task,
    results: QueryResults,
    ks: Sequence[int],
    *,
    left_out: Sequence[int],
    splits: tuple[str, str],
) -> dict[str, Any]:
    """The figures, and what they were measured on.

    Args:
        task: the queries and their ground truth.
        results: of the queries.
        ks: N of recall@N.
        left_out: those that the database is too small for.
        splits: of the queries, and of the database.
    """
    protocol = task.protocol
    figures = results.figures(ks)
    queried, searched = splits
    return {
        "recall_at": figures.pop("recall_at"),
        "recall_at_left_out": left_out,
        "split": queried,
        **({} if searched == queried else {"database_split": searched}),
        "protocol": {
            "name": protocol.name,
            "definition": protocols.describe(protocol),
            "used_by": protocol.used_by,
            "parameters": dataclasses.asdict(protocol),
        },
        "counts": {
            "queries": len(results.queries),
            "queries_without_positive": int(
                (results.positive_counts == 0).sum()
            ),
            "queries_counted": int(task.truth.counted.sum()),
            "database": task.num_searched,
        },
        **figures,
    }


def _epoch_choice(
    servable: serving.Servable | serving.RemoteServable,
) -> dict[str, Any] | None:
    """How validation chose the exported epoch; None where it is not known."""
    if not isinstance(servable, serving.Servable):
        return None
    choice = servable.metadata.get("epoch_choice")
    for warning in choice["warnings"] if choice else ():
        logging.warning("%s", warning)
    return choice


def _digest(image_ids: pd.Series) -> str:
    """Identifies the set of database images, for comparisons."""
    digest = hashlib.sha256()
    for name in sorted(image_ids):
        digest.update(name.encode() + b"\0")
    return digest.hexdigest()


def _write(
    out: Path,
    metrics: dict[str, Any],
    results: QueryResults,
    records: Records,
    reordered: reordering.Reordered | None,
) -> None:
    pairs = ()
    if isinstance(reordered, Reranked):
        pairs = match_lines.make(reordered, records)
    with atomic_files.folder_in_one_piece(out) as folder:
        results.table().to_csv(folder / "queries.csv", index=False)
        digests = file_digests.of(folder, ["queries.csv"])
        sealed_json.write(
            folder / "metrics.json", {**metrics, "digests": digests}
        )
        evaluation_page.write(
            folder / "report.html",
            metrics=metrics,
            places=evaluation_page.places_of(results),
            cases=evaluation_cases.make(results, records),
            pairs=pairs,
        )


def _write_positions(paths: Sequence[str], results: QueryResults) -> None:
    if paths:
        position_files.write(paths, query_positions.of_results(results))


def _report(
    out: Path, metrics: dict[str, Any], calibrated: tuple[Path, str] | None
) -> None:
    lines = [
        f"{name}: {metric_text.recall(baseline['recall_at'])}."
        for name, baseline in metrics["baselines"].items()
    ]
    lines.append(
        f"{metric_text.recall(metrics['recall_at'])}. Metrics in "
        f"{out / 'metrics.json'}; look at {out / 'report.html'}. To compare "
        f"with another evaluation: python -m sare_tf.compare ANOTHER {out}"
    )
    lines[-1:-1] = reordering.describe(metrics)
    if calibrated:
        path, measured = calibrated
        lines.append(f"{measured} locate uses it: {path}.")
    stage_results.report(
        "evaluate",
        "\n".join(lines),
        path=out / "metrics.json",
        page=out / "report.html",
        protocol=metrics["protocol"]["name"],
        recall_at=metrics["recall_at"],
        baselines={
            name: {"recall_at": baseline["recall_at"]}
            for name, baseline in metrics["baselines"].items()
        },
        counts=metrics["counts"],
        recall_at_without_rerank=metrics.get("without_rerank", {}).get(
            "recall_at"
        ),
        recall_at_single_frames=metrics.get("single_frames", {}).get(
            "recall_at"
        ),
        calibration=calibrated and calibrated[0],
    )


def main(argv) -> None:
    del argv
    run(EvaluationOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
