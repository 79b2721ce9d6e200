"""Compares approximate search with exact search: recall@10 against speed.

    pip install "sare_tf[bench]"
    python -m benchmarks.search

ScaNN as sare_tf builds it, and FAISS: Flat, IVF with fast-scan PQ and exact
reordering, HNSW. All search the same queries in one batch, in one process, with
the same number of --threads. Every setting of a method is timed with the first
number of threads. For each recall the fastest setting that reaches it is timed
again, in turns with the other methods and with every number of threads. The
fastest pass counts, because other work disturbs the others. Recall compares
distances with those of exact search.

Speed is queries per second by the clock, so little else should run on the
machine. The last column is milliseconds per query, one by one, at the setting
for recall 0.99. Everything is built with all cores.

Descriptors are clustered: a city has a district for every 1,000 images, a
district has places of 20 images, and an image differs from its place. All three
are Gaussian. Images have --spread times the deviation of places and districts.
Later dimensions are weaker, as in descriptors after PCA. All have unit length.
Queries are further images of these places.
"""

import dataclasses
import itertools
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks import measure
from benchmarks.search_methods import K, Method, methods
from sare_tf.runtime import tfdata_threads
from sare_tf.search import exact_search

FLAGS = flags.FLAGS
flags.DEFINE_list("sizes", ["250000x512", "50000x4096"], "Rows x dimension.")
flags.DEFINE_integer("queries", 1000, "Queries of a batch.", 1)
flags.DEFINE_integer("repeats", 5, "Turns of the chosen settings.", 1)
flags.DEFINE_list("threads", ["1", "2"], "Numbers of threads.")
flags.DEFINE_float(
    "spread", 1.5, "Deviation of a place's images, relative to places.", 0
)
flags.DEFINE_list(
    "trees",
    ["1:1.5:2", "1:0:2", "2:0:2"],
    "ScaNN: leaves, times sqrt(rows); SOAR, 0: none; dimensions of a code.",
)
flags.DEFINE_list(
    "lists",
    ["1:2", "2:2"],
    "FAISS: lists, times sqrt(rows); dimensions of a code.",
)

_RECALLS = (0.9, 0.95, 0.99, 0.999)
_ONE_BY_ONE = 200
# Passes that choose a setting, and passes of a turn. Exact search has one.
_SWEEPS = 2
_PASSES_OF_A_TURN = 3


@dataclasses.dataclass(frozen=True)
class Timed:
    """A setting, its recall and its speed."""

    setting: Any
    recall: float
    queries_per_second: float


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of these names."""

    queries: int
    repeats: int
    threads: tuple[int, ...]
    spread: float
    trees: tuple[tuple[float, ...], ...]
    lists: tuple[tuple[float, ...], ...]


# Name of a method, number of threads, recall.
Key = tuple[str, int, float]


def descriptors(count: int, dimension: int, spread: float) -> np.ndarray:
    """Draws clustered unit vectors, float32 [count, dimension]."""
    rng = np.random.default_rng(0)
    scale = (1 + np.arange(dimension, dtype=np.float32)) ** -0.25
    districts = rng.standard_normal(
        (max(1, count // 1000), dimension), np.float32
    )
    places = rng.standard_normal((max(1, count // 20), dimension), np.float32)
    places += districts[rng.integers(0, len(districts), len(places))]
    rows = np.empty((count, dimension), np.float32)
    for start in range(0, count, 4096):
        block = rows[start : start + 4096]
        block[:] = rng.standard_normal(block.shape, np.float32)
        block *= spread
        block += places[rng.integers(0, len(places), len(block))]
        block *= scale
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return rows


def measure_size(count: int, dimension: int, options: Options) -> str:
    """Measures all methods on one size of database; returns the table."""
    database = descriptors(count + options.queries, dimension, options.spread)
    # The last rows are further images of the same places.
    database, queries = database[:count], database[count:].copy()
    _, truth = exact_search.nearest(queries, database, K)

    recall_of = recall_against(truth, queries, database)
    built, best = [], {}
    for method in methods(database, trees=options.trees, lists=options.lists):
        built.append(method)
        method.set_threads(options.threads[0])
        tried = sweep(method, queries, recall_of)
        for recall in _RECALLS:
            reaching = [timed for timed in tried if timed.recall >= recall]
            if reaching:
                fastest = max(reaching, key=lambda t: t.queries_per_second)
                for threads in options.threads:
                    best[method.name, threads, recall] = fastest
        # The next method is built with all cores.
        method.set_threads(tfdata_threads.CORES)
    best = time_by_turns(built, best, queries, options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return "\n".join(
        [
            f"{count:,} x {dimension:,}, {options.queries:,} queries, "
            f"recall@{K}. Queries per second (and the setting) at a recall of "
            "at least:",
            "",
            *table(built, best, queries, options),
            "",
            f"Peak memory of all together: {peak:.1f} GiB.",
        ]
    )


def recall_against(
    truth: np.ndarray, queries: np.ndarray, database: np.ndarray
) -> Callable[[np.ndarray], float]:
    """Returns a function of found rows, with the distances that are exact."""

    def recall_of(rows):
        distances = np.stack(
            exact_search.distances_to(queries, database, list(abs(rows)))
        )
        return exact_search.recall_of_search(
            np.where(rows < 0, np.inf, distances), truth
        )

    return recall_of


def sweep(
    method: Method,
    queries: np.ndarray,
    recall_of: Callable,
    clock: Callable[[], float] = time.perf_counter,
    times: int = _SWEEPS,
) -> list[Timed]:
    """Times every setting, in each group until recall is full."""
    tried: list[Timed] = []
    for group in method.settings or [[None]]:
        fastest = max(
            (t.queries_per_second for t in tried if t.recall >= _RECALLS[-1]),
            default=0,
        )
        for setting in group:
            rows, seconds = time_of(method.search, queries, setting, clock)
            for _ in range(times - 1 if method.settings else 0):
                again = time_of(method.search, queries, setting, clock)[1]
                seconds = min(seconds, again)
            last = Timed(setting, recall_of(rows), len(queries) / seconds)
            tried.append(last)
            if (
                last.recall >= _RECALLS[-1]
                or 2 * last.queries_per_second < fastest
            ):
                break
    return tried


def time_by_turns(
    built: list[Method],
    best: dict[Key, Timed],
    queries: np.ndarray,
    options: Options,
) -> dict[Key, Timed]:
    """Times the best settings again; returns them with their new speed."""
    seconds = {key: [] for key in best}
    for _ in range(options.repeats):
        for method, threads in itertools.product(built, options.threads):
            method.set_threads(threads)
            for recall in _RECALLS[: None if method.settings else 1]:
                key = method.name, threads, recall
                if key in best:
                    seconds[key] += [
                        time_of(method.search, queries, best[key].setting)[1]
                        for _ in range(
                            _PASSES_OF_A_TURN if method.settings else 1
                        )
                    ]
    return {
        key: dataclasses.replace(
            timed,
            queries_per_second=len(queries)
            # Exact search is timed once for all recalls.
            / min(seconds[key] or seconds[*key[:2], _RECALLS[0]]),
        )
        for key, timed in best.items()
    }


def table(
    built: list[Method],
    best: dict[Key, Timed],
    queries: np.ndarray,
    options: Options,
) -> list[str]:
    """Returns the lines of the table; times queries one by one."""
    lines = [
        "| | threads | build s | "
        + " | ".join(f"{recall:g}" for recall in _RECALLS)
        + " | at 0.99, times the fastest exact | ms one by one |",
        "|---|---:|---:|" + "---:|" * (len(_RECALLS) + 2),
    ]
    for method, threads in itertools.product(built, options.threads):
        cells = [method.name, str(threads), f"{method.build_s:.0f}"]
        for recall in _RECALLS:
            timed = best.get((method.name, threads, recall))
            cells.append(
                f"{timed.queries_per_second:,.0f}{_words(timed.setting)}"
                if timed
                else "-"
            )
        timed = best.get((method.name, threads, 0.99))
        if timed:
            exact_speed = max(
                best[exact.name, threads, 0.99].queries_per_second
                for exact in built
                if not exact.settings
            )
            cells.append(f"{timed.queries_per_second / exact_speed:.1f}")
            method.set_threads(threads)
            cells.append(f"{_one_by_one(method, queries, timed.setting):.2f}")
        else:
            cells += ["-", "-"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def time_of(
    search, queries, setting, clock=time.perf_counter
) -> tuple[np.ndarray, float]:
    """Searches; returns the rows, and seconds by the clock."""
    began = clock()
    rows = search(queries, setting)
    return rows, clock() - began


def _words(setting: Any) -> str:
    if setting is None:
        return ""
    if isinstance(setting, tuple):
        return f" ({setting[0]}, {setting[1]})"
    return f" ({setting})"


def _one_by_one(method: Method, queries: np.ndarray, setting: Any) -> float:
    """Median milliseconds of a single query."""
    return 1000 * statistics.median(
        time_of(method.search, queries[row : row + 1], setting)[1]
        for row in range(min(_ONE_BY_ONE, len(queries)))
    )


def numbers(words: list[str]) -> tuple[tuple[float, ...], ...]:
    """Parses words of numbers with colons between them."""
    return tuple(tuple(map(float, word.split(":"))) for word in words)


def main(argv):
    del argv
    options = Options(
        queries=FLAGS.queries,
        repeats=FLAGS.repeats,
        threads=tuple(map(int, FLAGS.threads)),
        spread=FLAGS.spread,
        trees=numbers(FLAGS.trees),
        lists=numbers(FLAGS.lists),
    )
    for size in FLAGS.sizes:
        count, dimension = map(int, size.split("x"))
        table_of_size = measure.in_a_process(
            measure_size, count, dimension, options
        )
        print(table_of_size + "\n", flush=True)


if __name__ == "__main__":
    app.run(main)
