"""The whole flow on a rendered city, in one command: `make demo`.

    python -m sare_tf.demo --flagfile=sare_tf:demo

Every stage runs as its own command would, from the same flagfile. Two baselines
are evaluated on the same test district as the trained network: `pixels`, small
colour pictures as descriptors, and `untrained`, the network of epoch 0.
"""

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from absl import logging

from sare_tf import (
    build_records,
    evaluate,
    export,
    flags,
    index,
    synthetic_city,
    train,
)
from sare_tf.city.options import CityOptions
from sare_tf.dataset.positives import find_positives
from sare_tf.evaluation import metrics
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.evaluation.pixel_baseline import pixel_descriptors
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files, stage_results
from sare_tf.search import exact_search
from sare_tf.search.options import IndexOptions
from sare_tf.training.options import ExportOptions, TrainingOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of the stages that the demo runs."""

    city: CityOptions
    records: RecordOptions
    training: TrainingOptions
    export: ExportOptions
    index: IndexOptions
    evaluation: EvaluationOptions

    @classmethod
    def from_flags(cls) -> Self:
        """Takes the values of the flags; the city is --dataset."""
        records = RecordOptions.from_flags()
        return cls(
            city=CityOptions.from_flags(out=records.dataset),
            records=records,
            training=TrainingOptions.from_flags(),
            export=ExportOptions.from_flags(),
            index=IndexOptions.from_flags(),
            evaluation=EvaluationOptions.from_flags(),
        )


def run(options: DemoOptions) -> Path:
    """Runs all stages on a rendered city, and compares the trained network.

    Args:
        options: of the stages.

    Returns:
        The path of `summary.json`.

    Raises:
        FileNotFoundError, OSError, ValueError: as the stages do.
    """
    begin = time.monotonic()
    stages = {
        synthetic_city: options.city,
        build_records: options.records,
        train: options.training,
        export: options.export,
        index: options.index,
        evaluate: options.evaluation,
    }
    out = Path(options.evaluation.evaluation).parent
    for stage, of_stage in stages.items():
        logging.info("--- %s", stage.__name__)
        stage.run(of_stage)
    recall = summarise(options, out)
    minutes = (time.monotonic() - begin) / 60
    stage_results.report(
        "demo",
        _closing_text(options, out, recall, minutes),
        path=out / "summary.json",
        page=Path(options.evaluation.evaluation) / "report.html",
        minutes=minutes,
        recall_at=recall,
    )
    return out / "summary.json"


def summarise(options: DemoOptions, out: Path) -> dict[str, dict[int, float]]:
    """Compares the trained network with pixels and with epoch 0.

    Args:
        options: of the stages, whose `evaluate` has run.
        out: folder of `summary.json` and of the untrained network's results.

    Returns:
        Recall@N by N, of pixels, of the untrained and of the trained network.
    """
    evaluation = options.evaluation
    untrained = _evaluate_untrained(options, out / "untrained")
    recall = {
        "pixels": baseline_recall(evaluation, pixel_descriptors),
        "untrained": _recall_of_evaluation(untrained),
        "trained": _recall_of_evaluation(Path(evaluation.evaluation)),
    }
    atomic_files.write_json(
        out / "summary.json",
        {name: {"recall_at": values} for name, values in recall.items()},
    )
    return recall


def _table(recall: dict[str, dict[int, float]], ks: Sequence[int]) -> str:
    lines = ["recall at " + "".join(f"{k:>8}" for k in ks)]
    for name, values in recall.items():
        cells = (f"{values[k]:.3f}" if k in values else "-" for k in ks)
        lines.append(f"{name:<10}" + "".join(f"{cell:>8}" for cell in cells))
    return "\n".join(lines)


def baseline_recall(
    options: EvaluationOptions,
    descriptors_of: Callable[[Records, pd.DataFrame], np.ndarray],
) -> dict[int, float]:
    """Computes recall@N of descriptors without a network, by exact search.

    Args:
        options: records, split, rule of positives, and N of recall@N; an N
            above the size of the database is left out.
        descriptors_of: takes opened records and B rows of their manifest, and
            returns float32 [B, D].

    Returns:
        N -> recall, from 0 to 1.
    """
    records = Records(options.records)
    queries = records.rows(options.split, "query")
    database = records.rows(options.split, "database")
    ks = [k for k in options.recall_at if k <= len(database)]
    neighbours, _ = exact_search.nearest(
        descriptors_of(records, queries),
        descriptors_of(records, database),
        max(ks),
    )
    positives = find_positives(
        queries,
        database,
        rule=options.positives,
        radius_m=options.positive_radius_m,
    )
    return metrics.recall_at(neighbours, positives, ks)


def _evaluate_untrained(options: DemoOptions, out: Path) -> Path:
    """Exports, indexes and evaluates epoch 0; returns the evaluation."""
    version = export.run(
        dataclasses.replace(
            options.export, export=out / "export", epoch="epoch-0000"
        )
    )
    folders = {"export": version, "index": out / "index"}
    index.run(dataclasses.replace(options.index, **folders))
    evaluation = out / "evaluation"
    evaluate.run(
        dataclasses.replace(
            options.evaluation,
            **folders,
            evaluation=evaluation,
            calibrate=False,
        )
    )
    return evaluation


def _recall_of_evaluation(folder: Path) -> dict[int, float]:
    written = atomic_files.read_json(
        folder / "metrics.json", made_by="python -m sare_tf.evaluate"
    )
    return {int(k): value for k, value in written["recall_at"].items()}


def _closing_text(
    options: DemoOptions,
    out: Path,
    recall: dict[str, dict[int, float]],
    minutes: float,
) -> str:
    """The table, where the results are, and the next command."""
    evaluation = options.evaluation
    table = _table(recall, evaluation.recall_at)
    photo = min(
        Path(options.city.out).glob(f"images/{evaluation.split}/queries/*")
    )
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    command = f"{python} -m sare_tf.locate {' '.join(sys.argv[1:])} {photo}"
    return (
        f"{table}\n\n"
        f"Made in {minutes:.1f} minutes:\n"
        f"  the city        {options.city.out}\n"
        f"  the model       {options.export.export}\n"
        f"  the index       {options.index.index}\n"
        f"  summary         {out / 'summary.json'}\n"
        f"  look at this    {Path(evaluation.evaluation) / 'report.html'}\n\n"
        "Next: find one photograph of the city,\n"
        f"  {command}\n"
        "or use your own: sare-tf init --help"
    )


def main(argv) -> None:
    del argv
    run(DemoOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
