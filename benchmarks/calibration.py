"""Compares what a calibration promises with the answers of other queries.

    python -m sare_tf.evaluate --flagfile=configs/demo.flags --calibrate
    python -m benchmarks.calibration --index=runs/demo/index \
        --queries=runs/demo/evaluation/queries.csv

The calibration in an index is of its validation queries; the queries of the
evaluation are of another split. A row is a group of confidence: the share of
right answers that `locate` states, with its 95 % interval, and the share of the
evaluation's queries that were answered right, both with the number of queries.
Below, the mean of each over the evaluation's queries; their Brier score (mean
squared error of the share, 0 is perfect) beside that of one share for all; and
what --reject_below rejects and accepts, as stated and as found.
"""

import csv
import json
from pathlib import Path

import numpy as np
from absl import app, flags

from sare_tf.search import calibration

FLAGS = flags.FLAGS
flags.DEFINE_string("index", None, "An index with a calibration.")
flags.DEFINE_string("queries", None, "queries.csv of an evaluation of it.")
flags.DEFINE_multi_float("reject_below", [0.5, 0.9], "Limits to compare.")


def read_calibration(folder: str) -> calibration.Calibration:
    """Returns the calibration of an index, whatever it is bound to."""
    path = Path(folder) / calibration.NAME
    bound = json.loads(path.read_text(encoding="utf-8"))
    found, why = calibration.read(
        [Path(folder)],
        export_fingerprint=bound["export_fingerprint"],
        index_digest=bound["index_digest"],
        positive_radius_m=bound["positive_radius_m"],
    )
    if found is None:
        raise app.UsageError(f"Expected a calibration. Received: {why}.")
    return found


def read_queries(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns confidence and whether it is right, of every counted query."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["counted"] == "True" and row["confidence"]
        ]
    return (
        np.array([float(row["confidence"]) for row in rows]),
        np.array([row["first_correct_rank"] == "1" for row in rows]),
    )


def main(argv):
    """Prints the tables."""
    del argv
    measured = read_calibration(FLAGS.index)
    confidence, right = read_queries(FLAGS.queries)
    stated = [measured.reliability_of(value) for value in confidence]
    shares = np.array([one.right for one in stated])
    print(
        "| confidence from | stated | 95 % interval | n | found | n |\n"
        "|---:|---:|---:|---:|---:|---:|"
    )
    for group in measured.groups:
        one = measured.reliability_of(group.start)
        inside = shares == one.right
        found = f"{right[inside].mean():.2f}" if inside.any() else "-"
        print(
            f"| {group.start:.3f} | {one.right:.2f} "
            f"| {one.low:.2f} to {one.high:.2f} | {one.queries} "
            f"| {found} | {inside.sum()} |"
        )
    print(
        f"\nMean: stated {shares.mean():.3f}, found {right.mean():.3f}. Brier "
        f"score {np.mean((shares - right) ** 2):.3f}, of one share for all "
        f"{right.mean() * (1 - right.mean()):.3f}.\n"
    )
    for limit in FLAGS.reject_below:
        rates = measured.rejection(limit)
        accepted = shares >= limit
        print(
            f"--reject_below={limit:g}: right answers rejected, stated "
            f"{rates.right_rejected / max(rates.right, 1):.2f}, found "
            f"{np.mean(~accepted[right]):.2f}; wrong answers accepted, stated "
            f"{rates.wrong_accepted / max(rates.wrong, 1):.2f}, found "
            f"{accepted[~right].mean() if (~right).any() else 0:.2f}."
        )


if __name__ == "__main__":
    flags.mark_flags_as_required(["index", "queries"])
    app.run(main)
