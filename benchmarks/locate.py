"""Measures the wall time of `locate` for one photograph, and of an earlier one.

    python -m benchmarks.locate --flagfile=configs/demo.flags \\
        --before=903ad6b --photo=PHOTO.jpg

Run `make demo` first: its model and index are searched. The sides take turns,
each as a process of its own, so that the load of the machine is the same for
all. Rows of the table:

- before: the code of the commit --before, taken out of git.
- cold: this code.
- keep_warm, first: this code with --keep_warm, whose process is not there yet.
- keep_warm, later: the same once it is there.

Seconds are of whole processes: by the clock, and of cores, without those of
the process that stays. Ratios are medians of those to `before` in the same
turn.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

import sare_tf.flags  # noqa: F401

FLAGS = flags.FLAGS
flags.DEFINE_string("before", "903ad6b", "Commit to compare with.")
flags.DEFINE_string("photo", None, "Photograph to look up.", required=True)
flags.DEFINE_integer("turns", 7, "Runs of each side, after one to warm up.", 1)

_ROOT = Path(__file__).parents[1]


def take_out(commit: str, folder: Path) -> None:
    """Writes the files of a commit into a folder."""
    archive = subprocess.run(
        ["git", "archive", commit], cwd=_ROOT, check=True, capture_output=True
    )
    subprocess.run(
        ["tar", "-x", "-C", folder], input=archive.stdout, check=True
    )


def seconds_of(
    code: Path, arguments: Sequence[str], runtime: Path
) -> tuple[float, float]:
    """Runs `locate` of some code once; returns seconds and core seconds."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(code),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "XDG_RUNTIME_DIR": str(runtime),
    }
    begin, cores = time.perf_counter(), _core_seconds()
    subprocess.run(
        [sys.executable, "-m", "sare_tf.locate", *arguments],
        env=environment,
        cwd=runtime,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - begin, _core_seconds() - cores


def _core_seconds() -> float:
    """Returns the core seconds of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def median_ratio(
    values: Sequence[tuple[float, float]],
    others: Sequence[tuple[float, float]],
    column: int,
) -> float:
    """Returns the median of the ratios turn by turn."""
    return statistics.median(
        value[column] / other[column]
        for value, other in zip(values, others, strict=True)
    )


def main(argv):
    del argv
    locate = [
        f"--index={os.path.abspath(FLAGS.index)}",
        f"--export={os.path.abspath(FLAGS.export)}",
        os.path.abspath(FLAGS.photo),
    ]
    warm = ["--keep_warm", *locate]
    # The process ends soon after the last turn.
    ending = ["--keep_warm", "--keep_warm_minutes=0.01", *locate]
    seconds = {
        name: []
        for name in ("before", "cold", "keep_warm, first", "keep_warm, later")
    }
    with tempfile.TemporaryDirectory(prefix="b") as folder:
        before = Path(folder) / "before"
        before.mkdir()
        take_out(FLAGS.before, before)
        for turn in range(FLAGS.turns + 1):
            runtime = Path(folder) / str(turn)
            runtime.mkdir()
            times = (
                seconds_of(before, locate, runtime),
                seconds_of(_ROOT, locate, runtime),
                seconds_of(_ROOT, warm, runtime),
                seconds_of(_ROOT, warm, runtime),
            )
            seconds_of(_ROOT, ending, runtime)
            time.sleep(1.5)
            shutil.rmtree(runtime)
            for name, value in zip(seconds, times, strict=True):
                if turn:  # The first turn reads the files from the disk.
                    seconds[name].append(value)
    print(
        f"{FLAGS.turns} turns, before: {FLAGS.before}.\n\n"
        "| | median s | ratio | median core s | ratio |\n"
        "|---|---:|---:|---:|---:|"
    )
    for name, values in seconds.items():
        cells = [name]
        for column in range(2):
            median = statistics.median(value[column] for value in values)
            ratio = median_ratio(values, seconds["before"], column)
            cells += [f"{median:.2f}", f"{ratio:.2f}"]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    app.run(main)
