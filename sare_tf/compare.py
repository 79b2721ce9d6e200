"""Evaluations side by side, and whether chance explains their difference.

    python -m sare_tf.compare RUN_A RUN_B ... [--comparison=DIR] [--records=DIR]

A run is the folder of an evaluation. All runs must have looked up the same
queries in the same database by the same protocol. With the records that were
evaluated, the page shows the queries on which runs differ; differences.csv has
all of them. With many runs, some small
p-values come by chance. `evaluation.comparison` says what is computed.
"""

from pathlib import Path

from absl import logging

from sare_tf import flags
from sare_tf.evaluation import comparison, run_differences
from sare_tf.evaluation.options import ComparisonOptions
from sare_tf.pages import comparison_page
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files, run_lock, stage_results

_FILES = {"compare.json", "compare.html", "differences.csv"}


@run_lock.one_at_a_time("comparison")
def run(options: ComparisonOptions) -> Path:
    """Compares evaluations with the first of them.

    Args:
        options: folders of the evaluations, and of the comparison, which is
            replaced if it holds one; and the records that were evaluated, for
            pictures.

    Returns:
        The path of compare.json.

    Raises:
        FileNotFoundError: a run does not exist or is unfinished.
        ValueError: the runs cannot be compared (names the difference), or the
            folder of the comparison holds something else.
    """
    out = Path(options.comparison)
    atomic_files.check_replaceable(out, names=_FILES)
    runs = [comparison.FinishedRun(path) for path in options.runs]
    compared = comparison.compare(runs)
    k = comparison.common_ks(runs)[0]
    differing = [
        (str(run.path), run_differences.differences(runs[0], run, k))
        for run in runs[1:]
    ]
    records = _records(options.records, runs[0])
    with atomic_files.folder_in_one_piece(out) as folder:
        atomic_files.write_json(folder / "compare.json", compared)
        run_differences.table(differing).to_csv(
            folder / "differences.csv", index=False
        )
        comparison_page.write(
            folder / "compare.html",
            compared,
            at=k,
            differing=differing,
            records=records,
        )
    stage_results.report(
        "compare",
        f"{comparison.as_text(compared)}"
        f"Comparison in {out}; look at {out / 'compare.html'}",
        path=out / "compare.json",
        page=out / "compare.html",
        differences=out / "differences.csv",
        **compared,
    )
    return out / "compare.json"


def _records(path: str | None, run: comparison.FinishedRun) -> Records | None:
    """The records that were evaluated, for pictures; None without them."""
    if path is None:
        logging.info(
            "Give --records, the evaluated records, to see pictures of the "
            "queries on which the runs differ."
        )
        return None
    if not Path(path).is_dir():
        logging.warning("No pictures: --records=%s does not exist.", path)
        return None
    records = Records(path)
    expected = run.metrics.get("records_fingerprint")
    if records.fingerprint != expected:
        logging.warning(
            "No pictures: --records=%s has the fingerprint %s, and %s was "
            "evaluated on %s.",
            path,
            records.fingerprint[:12],
            run.path,
            str(expected)[:12],
        )
        return None
    return records


def main(argv) -> None:
    run(ComparisonOptions.from_flags(runs=argv[1:]))


if __name__ == "__main__":
    flags.start(main, takes_files=True)
