"""Compares search of large databases with FAISS: speed, latency and memory.

    pip install "sare_tf[bench]"
    python -m benchmarks.search_scale --sizes=1000000x512 --folder=DIR
    python -m benchmarks.search_scale --folder=DIR --print

Descriptors, queries and settings are those of `benchmarks.search`, but every
method has processes of its own, so that its memory can be told: one builds the
index and writes it, another one loads it and searches. `--folder` needs room
for three times the descriptors. What is there is not made again, and each
measurement is a line of results.jsonl in it.

Methods: "lists", FAISS's lists with fast-scan codes and exact reordering;
"graph", its HNSW; "tree", ScaNN as sare_tf builds it; "disk", the same with
--reorder_from=disk. The first of --lists and --trees counts.

Columns: seconds of all cores together, and by the clock, to build; the most
memory while building; memory of the process that has searched; queries per
second of one core, of batches, by the time of the core, at the fastest setting
whose recall@10 against exact search is at least the one above; median and 99th
percentile of milliseconds of queries one by one, by the clock and on one
thread, at the setting for 0.99. Pages of the mapped descriptors count as
memory as far as they are read, and so do some 0.5 GiB of Python, TensorFlow
and ScaNN.

The last table tells the growth with the number of rows, by sizes of the same
dimension: the exponent that fits seconds of a query.
"""

import json
import shutil
import time
from pathlib import Path

import numpy as np
from absl import app, flags, logging

from benchmarks import measure, search, search_methods
from benchmarks.search_methods import K

# Those of `search`, with other defaults.
FLAGS = flags.FLAGS
flags.DEFINE_string("folder", "runs/benchmarks/search_scale", "Folder.")
flags.DEFINE_list("methods", ["lists", "tree", "disk", "graph"], "Methods.")
flags.DEFINE_boolean("print", False, "Only print the tables.")
flags.DEFINE_boolean("build_only", False, "Whether not to search.")

_RECALLS = (0.9, 0.95, 0.99, 0.999)
_ONE_BY_ONE = 500
# The chosen settings are timed again, so many times.
_TIMES = 3
_GIBIBYTE = 2**30


def draw(folder: Path, count: int, dimension: int, spread: float, queries: int):
    """Writes descriptors, queries, and the distances of exact search."""
    from sare_tf.search import exact_search

    rows = search.descriptors(count + queries, dimension, spread)
    np.save(folder / "queries.npy", rows[count:])
    np.save(folder / "rows.npy", rows[:count])
    rows, asked = _arrays(folder)
    np.save(folder / "exact.npy", exact_search.nearest(asked, rows, K)[1])


def _arrays(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.load(folder / "rows.npy", mmap_mode="r"),
        np.load(folder / "queries.npy"),
    )


def build(folder: Path, kind: str, setting: tuple) -> dict:
    """Builds an index and writes it; returns what that took."""
    rows, _ = _arrays(folder)
    # Loaded now, which is not to count.
    if kind in ("tree", "disk"):
        import scann  # noqa: F401
    else:
        import faiss
    measure.reset_peak()
    began, began_cores = time.perf_counter(), time.process_time()
    if kind == "lists":
        name, index = search_methods.build_lists(rows, *setting)
    elif kind == "graph":
        name, index = search_methods.build_graph(rows)
    else:
        name, index = search_methods.build_tree(
            rows, *setting, reorder_from="disk" if kind == "disk" else "memory"
        )
    built = {
        "name": name,
        "build_s": time.perf_counter() - began,
        "build_core_s": time.process_time() - began_cores,
        "build_gib": measure.peak_bytes() / _GIBIBYTE,
    }
    if kind in ("tree", "disk"):
        # What is left of a build that was stopped.
        shutil.rmtree(folder / kind, ignore_errors=True)
        index.write(folder / kind)
        built["parameters"] = index.parameters
    else:
        faiss.write_index(index, str(folder / kind))
    return built


def load(folder: Path, kind: str, built: dict) -> search_methods.Method:
    """Loads what `build` wrote."""
    if kind in ("tree", "disk"):
        from sare_tf.search import scann_searcher

        searcher = scann_searcher.Searcher.load(
            scann_searcher.scann_module(),
            folder / kind,
            built["parameters"],
            stored=_arrays(folder)[0],
        )
        return search_methods.tree_method(built["name"], 0, searcher)
    import faiss

    index = faiss.read_index(str(folder / kind))
    if kind == "graph":
        return search_methods.graph_method(built["name"], 0, index)
    return search_methods.lists_method(built["name"], 0, index)


def measure_search(folder: Path, kind: str, built: dict) -> dict:
    """Loads an index and searches; returns speed, latency and memory."""
    rows, queries = _arrays(folder)
    method = load(folder, kind, built)
    method.set_threads(1)
    recall_of = search.recall_against(
        np.load(folder / "exact.npy"), queries, rows
    )
    clock = time.process_time
    tried = search.sweep(method, queries, recall_of, clock, times=1)
    speeds, fastest = {}, None
    for recall in _RECALLS:
        reaching = [timed for timed in tried if timed.recall >= recall]
        if not reaching:
            continue
        best = max(reaching, key=lambda timed: timed.queries_per_second)
        seconds = min(
            search.time_of(method.search, queries, best.setting, clock)[1]
            for _ in range(_TIMES)
        )
        speeds[str(recall)] = len(queries) / seconds, best.setting
        if recall <= 0.99:
            fastest = best
    milliseconds = [
        1000
        * search.time_of(
            method.search, queries[row : row + 1], fastest.setting
        )[1]
        for row in range(min(_ONE_BY_ONE, len(queries)))
    ]
    return {
        "speeds": speeds,
        "p50_ms": float(np.percentile(milliseconds, 50)),
        "p99_ms": float(np.percentile(milliseconds, 99)),
        "search_gib": measure.resident_bytes() / _GIBIBYTE,
        "mapped_gib": measure.resident_file_bytes() / _GIBIBYTE,
    }


class Results:
    """What was measured: a JSON object per line."""

    def __init__(self, path: Path):
        self._path = path
        self.of = {}
        for line in path.read_text().splitlines() if path.is_file() else []:
            one = json.loads(line)
            self.of[one["size"], one["kind"], one["what"]] = one["measured"]

    def get(self, size: str, kind: str, what: str, function, *arguments):
        """Returns what is there, or calls the function in a process."""
        if (size, kind, what) not in self.of:
            measured = measure.in_a_process(function, *arguments)
            line = dict(size=size, kind=kind, what=what, measured=measured)
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            self.of[size, kind, what] = measured
            logging.info("%s %s %s: %s", size, kind, what, measured)
        return self.of[size, kind, what]


def measure_all(results: Results) -> None:
    """Measures what is not there yet."""
    settings = {
        "lists": search.numbers(FLAGS.lists)[0],
        "graph": (),
        "tree": search.numbers(FLAGS.trees)[0],
        "disk": search.numbers(FLAGS.trees)[0],
    }
    for size in FLAGS.sizes:
        count, dimension = map(int, size.split("x"))
        folder = Path(FLAGS.folder) / size
        folder.mkdir(parents=True, exist_ok=True)
        results.get(
            *(size, "data", "drawn"),
            *(draw, folder, count, dimension, FLAGS.spread, FLAGS.queries),
        )
        for kind in FLAGS.methods:
            key = size, kind
            built = results.get(
                *key, "built", build, folder, kind, settings[kind]
            )
            if not FLAGS.build_only:
                results.get(*key, "search", measure_search, folder, kind, built)


def tables(results: Results) -> list[str]:
    """Returns the lines of a table for each size, and of the growth."""
    lines, seconds = [], {}
    for size in dict.fromkeys(size for size, _, _ in results.of):
        count, dimension = map(int, size.split("x"))
        lines += [
            f"{count:,} x {dimension:,} "
            f"({4 * count * dimension / _GIBIBYTE:.2f} GiB):",
            "",
            "| | build core s | build s | build GiB | search GiB (of files) | "
            + " | ".join(map(str, _RECALLS))
            + " | p50 ms | p99 ms |",
            "|---|" + "---:|" * (6 + len(_RECALLS)),
        ]
        for key, found in results.of.items():
            if key[0] != size or key[2] != "search":
                continue
            built = results.of[size, key[1], "built"]
            speeds = found["speeds"]
            cells = [
                built["name"],
                f"{built['build_core_s']:,.0f}",
                f"{built['build_s']:,.0f}",
                f"{built['build_gib']:.2f}",
                f"{found['search_gib']:.2f} ({found['mapped_gib']:.2f})",
                *(_speed(speeds.get(str(recall))) for recall in _RECALLS),
                f"{found['p50_ms']:.2f}",
                f"{found['p99_ms']:.2f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
            for recall, (speed, _) in speeds.items():
                grown = seconds.setdefault((key[1], dimension, recall), {})
                grown[count] = 1 / speed
        lines.append("")
    return lines + _growth(seconds)


def _speed(found) -> str:
    if found is None:
        return "-"
    speed, setting = found
    words = ", ".join(map(str, np.ravel(setting)))
    return f"{speed:,.0f} ({words})"


def _growth(seconds: dict) -> list[str]:
    lines = [
        "| | dimension | recall | microseconds of a query | exponent |",
        "|---|---:|---:|---|---:|",
    ]
    for (kind, dimension, recall), of_counts in seconds.items():
        if len(of_counts) < 2:
            continue
        counts = sorted(of_counts)
        slope, _ = np.polyfit(
            np.log(counts), np.log([of_counts[c] for c in counts]), 1
        )
        told = ", ".join(f"{c:,}: {1e6 * of_counts[c]:.0f}" for c in counts)
        lines.append(
            f"| {kind} | {dimension} | {recall} | {told} | {slope:.2f} |"
        )
    return lines if len(lines) > 2 else []


def main(argv):
    del argv
    Path(FLAGS.folder).mkdir(parents=True, exist_ok=True)
    results = Results(Path(FLAGS.folder) / "results.jsonl")
    if not FLAGS.print:
        measure_all(results)
    print("\n".join(tables(results)))


if __name__ == "__main__":
    app.run(main)
