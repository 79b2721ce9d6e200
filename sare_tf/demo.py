"""The whole flow on a rendered city, in one command: `make demo`.

    python -m sare_tf.demo --flagfile=configs/demo.flags

Every stage runs as its own command would, from the same flagfile. Beside the
trained network two others are evaluated on the same test district: `pixels`,
downsampled colour pixels, and `untrained`, the network of epoch 0.
"""

import dataclasses
import io
import sys
import time
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from absl import logging
from PIL import Image

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
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files
from sare_tf.search import exact_search
from sare_tf.search.options import IndexOptions
from sare_tf.training.options import ExportOptions, TrainingOptions

_PIXELS = (32, 24)


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


def pixel_descriptors(records: Records, rows: pd.DataFrame) -> np.ndarray:
    """Downsampled colour pixels, mean removed, unit length.

    Args:
        records: opened records.
        rows: B rows of its manifest.

    Returns:
        float32 [B, 2304].
    """
    descriptors = []
    for encoded in records.read_images(rows):
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        pixels = np.asarray(image.resize(_PIXELS, Image.Resampling.BOX))
        pixels = pixels.astype(np.float32).reshape(-1)
        pixels -= pixels.mean()
        descriptors.append(pixels / max(np.linalg.norm(pixels), 1e-6))
    return np.stack(descriptors)


def pixel_recall(
    records: Records, *, split: str, ks: list[int], radius_m: float, rule: str
) -> dict[int, float]:
    """Recall@N of `pixel_descriptors`, by exact search."""
    queries = records.rows(split, "query")
    database = records.rows(split, "database")
    ks = [k for k in ks if k <= len(database)]
    neighbours, _ = exact_search.nearest(
        pixel_descriptors(records, queries),
        pixel_descriptors(records, database),
        max(ks),
    )
    positives = find_positives(queries, database, rule=rule, radius_m=radius_m)
    return metrics.recall_at(neighbours, positives, ks)


def summarise(options: DemoOptions, out: Path) -> str:
    """Evaluates pixels and epoch 0 beside the finished evaluation.

    Args:
        options: of the stages.
        out: folder for `summary.json` and what the untrained network needs.

    Returns:
        The table to show.
    """
    untrained = out / "untrained"
    version = export.run(
        dataclasses.replace(
            options.export, export=untrained / "export", epoch="epoch-0000"
        )
    )
    places = {"export": version, "index": untrained / "index"}
    index.run(dataclasses.replace(options.index, **places))
    evaluation = options.evaluation
    evaluate.run(
        dataclasses.replace(
            evaluation, **places, evaluation=untrained / "evaluation"
        )
    )
    ks = evaluation.recall_at
    summary = {
        "pixels": {
            "recall_at": pixel_recall(
                Records(evaluation.records),
                split=evaluation.split,
                ks=ks,
                radius_m=evaluation.positive_radius_m,
                rule=evaluation.positives,
            )
        }
    }
    for name, folder in (
        ("untrained", untrained / "evaluation"),
        ("trained", Path(evaluation.evaluation)),
    ):
        evaluated = atomic_files.read_json(
            folder / "metrics.json", made_by="python -m sare_tf.evaluate"
        )
        summary[name] = {"recall_at": evaluated["recall_at"]}
    atomic_files.write_json(out / "summary.json", summary)
    lines = ["", "recall at " + "".join(f"{k:>8}" for k in ks)]
    for name, values in summary.items():
        recall = {int(k): value for k, value in values["recall_at"].items()}
        lines.append(
            f"{name:<10}"
            + "".join(
                f"{recall[k]:>8.3f}" if k in recall else f"{'-':>8}" for k in ks
            )
        )
    return "\n".join(lines)


def _shown(path: str) -> Path:
    """The path as one would type it here."""
    path = Path(path)
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def run(options: DemoOptions) -> Path:
    """Runs all stages on a rendered city, and compares the result.

    Args:
        options: of the stages.

    Returns:
        The path of summary.json.

    Raises:
        FileNotFoundError, OSError, ValueError: as of the stages.
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
    for stage, of_stage in stages.items():
        logging.info("--- %s", stage.__name__)
        stage.run(of_stage)
    evaluation = Path(options.evaluation.evaluation)
    out = evaluation.parent
    table = summarise(options, out)
    photo = min(
        Path(options.city.out).glob(
            f"images/{options.evaluation.split}/queries/*"
        )
    )
    command = f"{_shown(sys.executable)} -m sare_tf.locate"
    sys.stdout.write(
        f"{table}\n\n"
        f"Made in {(time.monotonic() - begin) / 60:.1f} minutes:\n"
        f"  the city        {options.city.out}\n"
        f"  the model       {options.export.export}\n"
        f"  the index       {options.index.index}\n"
        f"  summary         {out / 'summary.json'}\n"
        f"  look at this    {evaluation / 'report.html'}\n\n"
        "Next: find one photograph of the city,\n"
        f"  {command} {' '.join(sys.argv[1:])} {photo}\n"
        "or use your own: configs/own_photos.flags\n"
    )
    return out / "summary.json"


def main(argv) -> None:
    del argv
    run(DemoOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
