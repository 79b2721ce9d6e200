"""The whole flow on a rendered city, in one command: `make demo`.

    python -m sare_tf.demo --flagfile=configs/demo.flags

Every stage runs as its own command would, from the same flagfile. Beside the
trained network two others are evaluated on the same test district: `pixels`,
downsampled colour pixels, and `untrained`, the network of epoch 0.
"""

import io
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from absl import flags, logging
from PIL import Image

from sare_tf import (
    build_records,
    evaluate,
    export,
    index,
    synthetic_city,
    train,
)
from sare_tf import flags as stage_flags
from sare_tf.dataset import manifest
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files
from sare_tf.search import exact_search

FLAGS = flags.FLAGS
_PIXELS = (32, 24)


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
    positives = manifest.positives(
        queries, database, rule=rule, radius_m=radius_m
    )
    return exact_search.recall_at(neighbours, positives, ks)


def summarise(out: Path) -> str:
    """Evaluates pixels and epoch 0 beside the finished evaluation.

    Args:
        out: folder for `summary.json` and what the untrained network needs.

    Returns:
        The table to show.
    """
    untrained = out / "untrained"
    version = export.run(
        checkpoints=FLAGS.checkpoints,
        export=untrained / "export",
        epoch="epoch-0000",
    )
    ks = [int(k) for k in FLAGS.recall_at]
    index.run(
        records=FLAGS.records,
        export=version,
        out=untrained / "index",
        split=FLAGS.split,
        batch_size=FLAGS.batch_size,
    )
    evaluate.run(
        index=untrained / "index",
        records=FLAGS.records,
        export=version,
        out=untrained / "evaluation",
        split=FLAGS.split,
        recall_at=ks,
        positives=FLAGS.positives,
        positive_radius_m=FLAGS.positive_radius_m,
    )
    summary = {
        "pixels": {
            "recall_at": pixel_recall(
                Records(FLAGS.records),
                split=FLAGS.split,
                ks=ks,
                radius_m=FLAGS.positive_radius_m,
                rule=FLAGS.positives,
            )
        }
    }
    for name, folder in (
        ("untrained", untrained / "evaluation"),
        ("trained", Path(FLAGS.evaluation)),
    ):
        metrics = atomic_files.read_json(
            folder / "metrics.json", made_by="python -m sare_tf.evaluate"
        )
        summary[name] = {"recall_at": metrics["recall_at"]}
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


def main(argv) -> None:
    begin = time.monotonic()
    stage_flags.required(
        "dataset", "records", "checkpoints", "export", "index", "evaluation"
    )
    synthetic_city.run(
        out=Path(FLAGS.dataset),
        num_places=FLAGS.places,
        seed=FLAGS.seed,
        image_width=FLAGS.image_width,
        image_height=FLAGS.image_height,
        num_workers=FLAGS.num_workers,
    )
    for stage in (build_records, train, export, index, evaluate):
        logging.info("--- %s", stage.__name__)
        stage.main(argv)
    out = Path(FLAGS.evaluation).parent
    table = summarise(out)
    photo = min(Path(FLAGS.dataset).glob(f"images/{FLAGS.split}/queries/*"))
    command = f"{_shown(sys.executable)} -m sare_tf.locate"
    sys.stdout.write(
        f"{table}\n\n"
        f"Made in {(time.monotonic() - begin) / 60:.1f} minutes:\n"
        f"  the city        {FLAGS.dataset}\n"
        f"  the model       {FLAGS.export}\n"
        f"  the index       {FLAGS.index}\n"
        f"  summary         {out / 'summary.json'}\n"
        f"  look at this    {Path(FLAGS.evaluation) / 'report.html'}\n\n"
        "Next: find one photograph of the city,\n"
        f"  {command} {' '.join(sys.argv[1:])} {photo}\n"
        "or use your own: configs/own_photos.flags\n"
    )


if __name__ == "__main__":
    stage_flags.start(main)
