"""index/ + the queries of records/ -> metrics.json, queries.csv, report.html.

    python -m sare_tf.evaluate --flagfile=sare_tf:demo

`--protocol` chooses what is measured; metrics and page put it into words.
Recall is measured by exact search, so that it depends only on the model. The
metrics also say what the index's ScaNN search loses against it. Descriptors of
the database are read in blocks, so that memory does not grow with it.
`--calibrate` measures how often answers of `locate` are right, and how far
their positions are from the truth. `--distractors` adds photographs from
elsewhere. With `--rerank`, results are those in the new order, and
`without_rerank` holds the others; with `--sequence_length`, those of sequences,
and `single_frames` the others.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from absl import logging

from sare_tf import flags, serving
from sare_tf.evaluation import (
    answering,
    doubt,
    evaluate_descriptors,
    metric_text,
    pixel_baseline,
    preparing,
    query_positions,
    reordering,
    run_metrics,
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
from sare_tf.search import embedding, position_files
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
    ks, left_out = run_metrics.choose_ks(options.recall_at, task.num_searched)
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
        index=index,
    )
    answers = answering.answer(
        results, options, records=records, index=index, servable=servable
    )
    results, reordered, doubted = _in_order(answers, reordered, options)
    metrics = {
        **run_metrics.describe(
            task,
            results,
            ks,
            left_out=left_out,
            splits=(options.split, index.metadata["split"]),
        ),
        "baselines": pixel_baseline.baselines(options, task, records, ks),
        **reordering.described(reordered, ks),
        **doubted.figures,
        "epoch_choice": _epoch_choice(servable),
        "search": compared,
        "speed": _speed(
            len(vectors), embed_seconds, results, search_seconds, reordered
        ),
        "database_digest": run_metrics.digest(task.database["image_id"]),
        **_made_with(records, servable),
    }
    table = results.table().assign(**doubted.columns)
    _write(out, metrics, results, table, records, reordered)
    if position_paths:
        position_files.write(
            position_paths, query_positions.of_results(results)
        )
    kept = answering.keep(answers, index)
    _report(out, metrics, kept and (kept, answers.calibration.describe()))
    return out / "metrics.json"


def _in_order(
    answers: answering.Answers,
    reordered: reordering.Reordered | None,
    options: EvaluationOptions,
) -> tuple[QueryResults, reordering.Reordered | None, doubt.Doubt]:
    """Returns the results that count, how they were ordered, and their doubt.

    How sure an answer is, is known of the order of retrieval and of local
    features only.
    """
    if reordered is not None:
        return reordered.after, reordered, doubt.Doubt(figures={}, columns={})
    doubted = doubt.measure(
        answers.results,
        answers.found,
        answers.elsewhere,
        calibration=answers.calibration,
        radius_m=options.positive_radius_m,
    )
    return answers.results, answers.reranked, doubted


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


def _speed(
    count: int,
    embed_seconds: float,
    results: QueryResults,
    search_seconds: float,
    reordered: reordering.Reordered | None,
) -> dict[str, float | None]:
    """Seconds of all queries, and queries per second of an answer."""
    rerank_seconds = 0.0
    if isinstance(reordered, Reranked):
        milliseconds = reordered.figures["ms_per_query"].values()
        rerank_seconds = sum(milliseconds) * len(results.queries) / 1000
    total = embed_seconds + search_seconds + rerank_seconds
    return {
        "embed_seconds": embed_seconds,
        "exact_search_seconds": results.search_seconds,
        "search_seconds": search_seconds,
        "rerank_seconds": rerank_seconds,
        "queries_per_second": count / total,
    }


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


def _write(
    out: Path,
    metrics: dict[str, Any],
    results: QueryResults,
    table: pd.DataFrame,
    records: Records,
    reordered: reordering.Reordered | None,
) -> None:
    pairs = ()
    if isinstance(reordered, Reranked):
        pairs = match_lines.make(reordered, records)
    with atomic_files.folder_in_one_piece(out) as folder:
        table.to_csv(folder / "queries.csv", index=False)
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
