"""Comparison of evaluations, with a test of what chance explains.

Every run is compared with the first one: by the difference of means with an
interval by paired bootstrap, and for recall@N by McNemar's exact test of the
queries that only one of the two finds. McNemar's test decides on recall@N, the
interval on every other figure.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sare_tf.evaluation import metrics, summaries
from sare_tf.evaluation.protocols import Protocol
from sare_tf.runtime import file_digests, sealed_json

_COMMAND = "python -m sare_tf.evaluate --flagfile=..."
# What a protocol does unless it says otherwise, as metrics.json has it.
_PARAMETERS = {
    field.name: list(field.default)
    if isinstance(field.default, tuple)
    else field.default
    for field in dataclasses.fields(Protocol)
    if field.default is not dataclasses.MISSING
}


class FinishedRun:
    """A finished evaluation: its metrics, and the figures of each query.

    Args:
        path: its folder.

    Attributes:
        path: its folder.
        metrics: metrics.json.
        recall_at: the N of its recall@N.
        num_neighbours: how many neighbours of each query it ranked.
        queries: a row per query: `image_id`, `counted`, `rank` of the first
            positive or 0, and `nearest_image_id` and `positive_image_id`, empty
            in evaluations that do not state them.
        same: name -> what must be the same in all runs.

    Raises:
        FileNotFoundError: the folder has no metrics.
        ValueError: the evaluation is damaged.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.metrics = sealed_json.read(
            self.path / "metrics.json", made_by=_COMMAND, types={}
        )
        try:
            # An evaluation of an earlier version has no digests.
            file_digests.check(self.path, self.metrics.get("digests", {}))
            queries = self.path / "queries.csv"
            table = pd.read_csv(queries, dtype={"image_id": str})
            # A query may be named NA, which pandas takes for a missing value.
            names = pd.read_csv(queries, dtype=str, keep_default_na=False)
            self.recall_at = [int(k) for k in self.metrics["recall_at"]]
            self.num_neighbours = len(self.metrics["recall_curve"]["recall"])
            self._precisions = table[list(self.metrics["precisions"])]
            self.queries = pd.DataFrame(
                {
                    "image_id": names["image_id"],
                    "counted": table["counted"].astype(bool),
                    "rank": table["first_correct_rank"].fillna(0).astype(int),
                    **{
                        name: names.get(name, "")
                        for name in ("nearest_image_id", "positive_image_id")
                    },
                }
            )
            self.same = {
                # Those of earlier versions name fewer.
                "protocol": _PARAMETERS
                | self.metrics["protocol"]["parameters"],
                "database": self.metrics["database_digest"],
                "queries": self.queries["image_id"].tolist(),
                "positives of the queries": table["positives"].tolist(),
                "queries that count": self.queries["counted"].tolist(),
            }
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise ValueError(
                f"Expected a whole evaluation. Received: {str(path)!r} "
                f"({error!r}). Run {_COMMAND} again."
            ) from error

    def figures(self, ks: Sequence[int]) -> pd.DataFrame:
        """Returns a column per figure and a row per query that counts."""
        within = metrics.within(self.queries["rank"].to_numpy(), ks)
        recalls = pd.DataFrame(within, columns=[f"recall@{k}" for k in ks])
        figures = pd.concat([recalls, self._precisions], axis=1)
        return figures[self.queries["counted"]]


def compare(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    """Compares evaluations with the first of them.

    Args:
        runs: at least one.

    Returns:
        JSON, the content of compare.json.

    Raises:
        ValueError: runs that differ in what must be the same; names it.
    """
    for other in runs[1:]:
        _check_comparable(runs[0], other)
    ks = common_ks(runs)
    searched = slice(min(run.num_neighbours for run in runs))
    figures = [run.figures(ks) for run in runs]
    # Re-ranking measures no precision of the full ranking.
    shared = [
        name for name in figures[0] if all(name in one for one in figures)
    ]
    figures = [one[shared] for one in figures]
    first = figures[0]
    return {
        "protocol": runs[0].metrics["protocol"],
        "split": runs[0].metrics["split"],
        "queries": len(first),
        "confidence": summaries.CONFIDENCE,
        "runs": [
            _as_json(run, one, first if number else None)
            | {"recall_curve": run.metrics["recall_curve"]["recall"][searched]}
            for number, (run, one) in enumerate(zip(runs, figures, strict=True))
        ],
    }


def common_ks(runs: Sequence[FinishedRun]) -> list[int]:
    """Returns the N of recall@N of any run that all runs have searched."""
    searched = min(run.num_neighbours for run in runs)
    return sorted({k for run in runs for k in run.recall_at if k <= searched})


def as_text(comparison: dict[str, Any]) -> str:
    """Returns a comparison as a table: a run per column, a figure per line."""
    runs = comparison["runs"]
    lines = [
        f"{comparison['protocol']['name']}, {comparison['queries']} queries"
    ]
    lines += [
        f"{chr(65 + number)}  {run['path']}" for number, run in enumerate(runs)
    ]
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
            line += f" {figure['verdict']}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _check_comparable(first: FinishedRun, other: FinishedRun) -> None:
    for name, expected in first.same.items():
        if other.same[name] != expected:
            raise ValueError(
                f"Expected the same {name} in all runs. Received: "
                f"{str(first.path)!r} and {str(other.path)!r}, which differ: "
                f"{_difference(name, expected, other.same[name])}. Evaluate "
                "both with the same records and --protocol."
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
    number = next(i for i, value in enumerate(first) if value != other[i])
    return f"number {number + 1} is {first[number]!r} and {other[number]!r}"


def _verdict(figure: dict[str, Any]) -> str:
    """Whether a figure differs from the first run's by more than chance."""
    if "mcnemar" in figure:
        differs = figure["mcnemar"]["p_value"] < 1 - summaries.CONFIDENCE
    else:
        low, high = figure["difference_interval"]
        differs = low > 0 or high < 0
    if not differs:
        return "no clear difference"
    return "better" if figure["difference"] > 0 else "worse"


def _as_json(
    run: FinishedRun, figures: pd.DataFrame, first: pd.DataFrame | None
) -> dict[str, Any]:
    """The run's means, and how they differ from those of the first."""
    ends = summaries.interval(figures.to_numpy(np.float64))
    result = {
        name: {
            "mean": float(figures[name].mean()),
            "interval": ends[:, column].tolist(),
        }
        for column, name in enumerate(figures)
    }
    if first is not None:
        change = figures.to_numpy(np.float64) - first.to_numpy(np.float64)
        ends = summaries.interval(change)
        for column, name in enumerate(figures):
            result[name] |= {
                "difference": float(change[:, column].mean()),
                "difference_interval": ends[:, column].tolist(),
            }
            if name.startswith("recall@"):
                result[name]["mcnemar"] = summaries.mcnemar(
                    first[name].to_numpy(bool), figures[name].to_numpy(bool)
                )
            result[name]["verdict"] = _verdict(result[name])
    return {
        "path": str(run.path),
        "export_fingerprint": run.metrics["export_fingerprint"],
        "dimension": run.metrics["dimension"],
        "queries_per_second": run.metrics["speed"]["queries_per_second"],
        "figures": result,
    }
