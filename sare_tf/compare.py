"""Evaluations side by side, and whether chance explains their difference.

    python -m sare_tf.compare RUN_A RUN_B ... [--comparison=DIR]

A run is the folder of an evaluation. All runs must have looked up the same
queries in the same database by the same protocol. With many runs, some small
p-values come by chance. `evaluation.comparison` says what is computed.
"""

from pathlib import Path

from sare_tf import flags
from sare_tf.evaluation import comparison
from sare_tf.evaluation.options import ComparisonOptions
from sare_tf.pages import comparison_page
from sare_tf.runtime import atomic_files, run_lock, stage_results

_FILES = {"compare.json", "compare.html"}


@run_lock.one_at_a_time("comparison")
def run(options: ComparisonOptions) -> Path:
    """Compares evaluations with the first of them.

    Args:
        options: folders of the evaluations, and of the comparison, which is
            replaced if it holds one.

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
    with atomic_files.folder_in_one_piece(out) as folder:
        atomic_files.write_json(folder / "compare.json", compared)
        comparison_page.write(folder / "compare.html", compared)
    stage_results.report(
        "compare",
        f"{comparison.as_text(compared)}"
        f"Comparison in {out}; look at {out / 'compare.html'}",
        path=out / "compare.json",
        page=out / "compare.html",
        **compared,
    )
    return out / "compare.json"


def main(argv) -> None:
    run(ComparisonOptions.from_flags(runs=argv[1:]))


if __name__ == "__main__":
    flags.start(main, takes_files=True)
