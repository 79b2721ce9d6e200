"""Evaluations side by side, with what of their difference chance explains.

    python -m sare_tf.compare RUN_A RUN_B ... [--comparison=DIR]

A run is the folder of an evaluation. All must have looked up the same queries
in the same database by the same protocol. Every run is compared with the first:
the difference of means with an interval by paired bootstrap, and for recall@N
McNemar's exact test of the queries that one of the two finds alone. With many
runs, some small p-values come by chance.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from absl import logging

from sare_tf import flags
from sare_tf.evaluation import metrics
from sare_tf.evaluation.options import ComparisonOptions
from sare_tf.pages import evaluation_page
from sare_tf.runtime import atomic_files

_FILES = {"compare.json", "compare.html"}
_COMMAND = "python -m sare_tf.evaluate --flagfile=..."


class _Run:
    """An evaluation: its metrics, and each query's figures."""

    def __init__(self, path: Path):
        self.path = path
        self.metrics = atomic_files.read_json(
            path / "metrics.json", made_by=_COMMAND
        )
        try:
            self.table = pd.read_csv(
                path / "queries.csv", dtype={"image_id": str}
            )
            self.recall_at = [int(k) for k in self.metrics["recall_at"]]
            self.searched = len(self.metrics["recall_curve"]["recall"])
            self.precisions = list(self.metrics["precisions"])
            self.ranks = (
                self.table["first_correct_rank"].fillna(0).to_numpy(int)
            )
            self.counted = self.table["counted"].to_numpy(bool)
            # What must be the same in all runs.
            self.same = {
                "protocol": self.metrics["protocol"]["parameters"],
                "database": self.metrics["database_digest"],
                "queries": self.table["image_id"].tolist(),
                "positives of the queries": self.table["positives"].tolist(),
                "queries that count": self.counted.tolist(),
            }
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise ValueError(
                f"Expected a whole evaluation. Received: {str(path)!r} "
                f"({error!r}). Run {_COMMAND} again."
            ) from error

    def figures(self, ks: Sequence[int]) -> pd.DataFrame:
        """One column per figure, one row per query that counts."""
        found = metrics.within(self.ranks, ks)
        figures = {f"recall@{k}": found[:, at] for at, k in enumerate(ks)}
        figures |= {name: self.table[name] for name in self.precisions}
        return pd.DataFrame(figures)[self.counted]


def run(options: ComparisonOptions) -> Path:
    """Compares evaluations with the first of them.

    Args:
        options: folders of the evaluations, and of the comparison, which is
            replaced if it holds one.

    Returns:
        The path of compare.json.

    Raises:
        FileNotFoundError: a run is absent or unfinished.
        ValueError: runs that cannot be compared (names the difference), or a
            folder that holds something else.
    """
    out = Path(options.comparison)
    atomic_files.check_replaceable(out, names=_FILES)
    opened = [_Run(Path(path)) for path in options.runs]
    for other in opened[1:]:
        _check_comparable(opened[0], other)
    ks = sorted({k for run in opened for k in run.recall_at})
    ks = [k for k in ks if k <= min(run.searched for run in opened)]
    first = opened[0].figures(ks)
    comparison = {
        "protocol": opened[0].metrics["protocol"],
        "split": opened[0].metrics["split"],
        "queries": len(first),
        "confidence": metrics.CONFIDENCE,
        "runs": [
            _compare(run, run.figures(ks), None if at == 0 else first)
            for at, run in enumerate(opened)
        ],
    }
    with atomic_files.folder_in_one_piece(out) as folder:
        atomic_files.write_json(folder / "compare.json", comparison)
        page = evaluation_page.environment().get_template("compare.html")
        atomic_files.write_text(
            folder / "compare.html", page.render(comparison)
        )
    logging.info("Comparison in %s; look at %s", out, out / "compare.html")
    return out / "compare.json"


def describe(comparison: dict[str, Any]) -> str:
    """The comparison as a table: a run per column, a figure per line."""
    runs = comparison["runs"]
    lines = [
        f"{comparison['protocol']['name']}, {comparison['queries']} queries"
    ]
    lines += [f"{chr(65 + at)}  {run['path']}" for at, run in enumerate(runs)]
    for name, value in runs[0]["figures"].items():
        line = f"{name:<26}{100 * value['mean']:>6.1f}"
        for run in runs[1:]:
            figure = run["figures"][name]
            low, high = figure["difference_interval"]
            line += (
                f"  |{100 * figure['mean']:>6.1f} "
                f"{100 * figure['difference']:>+6.1f} "
                f"[{100 * low:+.1f}, {100 * high:+.1f}]"
            )
            if "mcnemar" in figure:
                line += f" p={figure['mcnemar']['p_value']:.2g}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _check_comparable(first: _Run, other: _Run) -> None:
    for name, expected in first.same.items():
        found = other.same[name]
        if found == expected:
            continue
        raise ValueError(
            f"Expected the same {name} in all runs. Received: "
            f"{str(first.path)!r} and {str(other.path)!r}, which differ: "
            f"{_difference(name, expected, found)}. Evaluate both with the "
            "same records and --protocol."
        )


def _difference(name: str, first: Any, other: Any) -> str:
    if name == "protocol":
        return ", ".join(
            f"{key} is {first.get(key)!r} and {other.get(key)!r}"
            for key in [*first, *(set(other) - set(first))]
            if first.get(key) != other.get(key) and key != "used_by"
        )
    if name == "database":
        return f"digest {first[:12]} and {other[:12]}"
    if len(first) != len(other):
        return f"{len(first)} and {len(other)}"
    at = next(at for at, value in enumerate(first) if value != other[at])
    return f"number {at + 1} is {first[at]!r} and {other[at]!r}"


def _compare(
    run: _Run, figures: pd.DataFrame, first: pd.DataFrame | None
) -> dict[str, Any]:
    """JSON: the run's means, and how they differ from those of the first."""
    ends = metrics.interval(figures.to_numpy(np.float64))
    found = {
        name: {
            "mean": float(figures[name].mean()),
            "interval": ends[:, at].tolist(),
        }
        for at, name in enumerate(figures)
    }
    if first is not None:
        change = figures.to_numpy(np.float64) - first.to_numpy(np.float64)
        ends = metrics.interval(change)
        for at, name in enumerate(figures):
            found[name] |= {
                "difference": float(change[:, at].mean()),
                "difference_interval": ends[:, at].tolist(),
            }
            if name.startswith("recall@"):
                found[name]["mcnemar"] = metrics.mcnemar(
                    first[name].to_numpy(bool), figures[name].to_numpy(bool)
                )
    return {
        "path": str(run.path),
        "export_fingerprint": run.metrics["export_fingerprint"],
        "dimension": run.metrics["dimension"],
        "queries_per_second": run.metrics["speed"]["queries_per_second"],
        "figures": found,
    }


def main(argv) -> None:
    path = run(ComparisonOptions.from_flags(runs=argv[1:]))
    comparison = atomic_files.read_json(
        path, made_by="python -m sare_tf.compare"
    )
    sys.stdout.write(describe(comparison))


if __name__ == "__main__":
    flags.start(main, takes_files=True)
