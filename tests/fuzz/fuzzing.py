"""Fuzzes the formats: damaged files end in a sentence, or change nothing.

    python tests/fuzz/fuzzing.py [MUTATIONS [TARGET ...]]
    python tests/fuzz/fuzzing.py FIRST-END [TARGET ...]

Each mutation follows from its number; the first form begins with 0. A failure
is printed with it, and

    python tests/fuzz/fuzzing.py --only NUMBER TARGET

repeats it. A process of its own runs each target, so that a crash of a library
is reported, too; its memory must not grow by more than 2 GiB.
"""

import collections
import multiprocessing
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from targets import TARGETS  # noqa: E402

_MOST_MEBIBYTES = 2048


def fuzz(
    name: str, numbers, root: Path, report=sys.stderr.write
) -> collections.Counter:
    """Tries mutations of a target.

    Returns:
        Outcomes: same, refused, changed, failed.
    """
    target = TARGETS[name](root)
    outcomes = collections.Counter()
    for number in numbers:
        rng = np.random.default_rng([len(name), number])
        try:
            outcome = target.attempt(rng)
        except Exception:
            outcome = "failed"
            report(f"{name} {number}: {traceback.format_exc()[-1500:]}\n")
        if outcome == "changed" and not target.silent:
            report(f"{name} {number}: a change that nothing noticed\n")
        outcomes[outcome] += 1
    return outcomes


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def peak_mebibytes() -> int:
    """Returns the most memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _in_process(name, numbers, connection):
    with tempfile.TemporaryDirectory() as folder:
        before = peak_mebibytes()
        outcomes = fuzz(name, numbers, Path(folder))
        connection.send((outcomes, peak_mebibytes() - before))


def run(name: str, numbers) -> bool:
    """Fuzzes a target in a process of its own; returns whether it held."""
    begin = time.monotonic()
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_in_process, args=(name, numbers, sender))
    process.start()
    sender.close()
    try:
        outcomes, mebibytes = receiver.recv()
    except EOFError:
        process.join()
        _say(f"{name}: the process ended with {process.exitcode}")
        return False
    process.join()
    _say(
        f"{name}: {dict(outcomes)}, {mebibytes} MiB more, "
        f"{time.monotonic() - begin:.0f} s"
    )
    silent = TARGETS[name].silent
    return (
        not outcomes["failed"]
        and (silent or not outcomes["changed"])
        and mebibytes < _MOST_MEBIBYTES
    )


def main(arguments) -> None:
    if arguments[:1] == ["--only"]:
        numbers, names = [int(arguments[1])], arguments[2:]
    else:
        first, _, end = (arguments[0] if arguments else "10000").partition("-")
        numbers = range(int(first), int(end)) if end else range(int(first))
        names = arguments[1:]
    held = [run(name, numbers) for name in names or TARGETS]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
