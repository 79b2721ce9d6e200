"""Approximate search beside exact search: recall@10 against speed.

    pip install "sare_tf[bench]"
    python -m benchmarks.search

ScaNN as sare_tf builds it, and FAISS: Flat, IVF with fast-scan PQ and exact
reordering, HNSW. Every one searches the same queries in one batch, in one
process, with as many --threads. Every setting of every method is timed with the
first number of threads; of those that reach a recall the fastest one is timed
again, by turns with the others' and with every number of threads. The fastest
pass counts: others were disturbed. Recall is by distance, against exact search.

Speed is queries per second by the clock, so little else should run on the
machine. Milliseconds, too, of queries one by one, at the settings for recall
0.99. Everything is built with all cores.

Descriptors are clustered: a city has a district for every 1,000 images, a
district has places of 20 images, an image differs from its place. The three
are Gaussian, the last with --spread times the deviation of the others, and
weaker in later dimensions as descriptors are after PCA. All are of unit length.
Queries are further images of these places.
"""

import concurrent.futures
import dataclasses
import itertools
import math
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import threadpoolctl
from absl import app, flags

from sare_tf.runtime import tfdata_threads
from sare_tf.search import exact_search, scann_searcher

FLAGS = flags.FLAGS
flags.DEFINE_list("sizes", ["250000x512", "50000x4096"], "Rows x dimension.")
flags.DEFINE_integer("queries", 1000, "Queries of a batch.", 1)
flags.DEFINE_integer("repeats", 5, "Timed passes of what is compared.", 1)
flags.DEFINE_list("threads", ["1", "2"], "Threads of every method.")
flags.DEFINE_float("spread", 1.5, "Of a place's images, relative.", 0)
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

_K = 10
_RECALLS = (0.9, 0.95, 0.99, 0.999)
_ONE_BY_ONE = 200
# Passes by which a setting is chosen, and those of a turn; one of exact search.
_SWEEPS = 2
_OF_A_TURN = 3
# Rows that train ScaNN's trees, as about those that train FAISS's lists.
_TRAINED = 100_000
_REORDERED = (20, 40, 80, 160, 320, 640)


@dataclasses.dataclass
class Method:
    """A way to search.

    Attributes:
        name: for the table.
        build_s: seconds of building it.
        search: (queries, setting) -> rows [Q, 10], -1 where there is none.
        set_threads: makes it search with so many.
        settings: from fast to slow, in groups; a group ends once recall is
            full. None: search is exact.
    """

    name: str
    build_s: float
    search: Callable[[np.ndarray, Any], np.ndarray]
    # Of every OpenMP and BLAS that is loaded: FAISS's, numpy's.
    set_threads: Callable[[int], Any] = threadpoolctl.threadpool_limits
    settings: list[list[Any]] | None = None


@dataclasses.dataclass
class Timed:
    """A setting that was searched with."""

    setting: Any
    recall: float
    queries_per_second: float


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured; the flags of these names."""

    queries: int
    repeats: int
    threads: tuple[int, ...]
    spread: float
    trees: tuple[tuple[float, ...], ...]
    lists: tuple[tuple[float, ...], ...]


def descriptors(count: int, dimension: int, spread: float) -> np.ndarray:
    """Clustered unit vectors, float32 [count, dimension]."""
    rng = np.random.default_rng(0)
    scale = (1 + np.arange(dimension, dtype=np.float32)) ** -0.25
    districts = rng.standard_normal(
        (max(1, count // 1000), dimension), np.float32
    )
    places = rng.standard_normal((max(1, count // 20), dimension), np.float32)
    places += districts[rng.integers(0, len(districts), len(places))]
    rows = np.empty((count, dimension), np.float32)
    for start in range(0, count, 4096):
        some = rows[start : start + 4096]
        some[:] = rng.standard_normal(some.shape, np.float32)
        some *= spread
        some += places[rng.integers(0, len(places), len(some))]
        some *= scale
        some /= np.linalg.norm(some, axis=1, keepdims=True)
    return rows


def methods(database: np.ndarray, options: Options) -> Iterator[Method]:
    """Builds every method over database [N, D]."""
    yield Method(
        "exact, sare_tf (numpy)",
        0.0,
        lambda queries, _: exact_search.nearest(queries, database, _K)[0],
    )
    yield from _faiss_methods(database, options)
    yield from _scann_methods(database, options)


def _faiss_methods(database: np.ndarray, options: Options) -> Iterator[Method]:
    import faiss

    count, dimension = database.shape
    flat = faiss.IndexFlatIP(dimension)
    flat.add(database)
    yield Method(
        "exact, FAISS Flat", 0.0, lambda queries, _: flat.search(queries, _K)[1]
    )
    root = math.sqrt(count)
    for times, codes in options.lists:
        lists = round(times * root)
        factory = f"IVF{lists},PQ{dimension // int(codes)}x4fsr,RFlat"
        began = time.perf_counter()
        inverted = faiss.index_factory(
            dimension, factory, faiss.METRIC_INNER_PRODUCT
        )
        inverted.train(database)
        inverted.add(database)

        def search_lists(queries, setting, inverted=inverted):
            probed, reordered = setting
            parameters = faiss.IndexRefineSearchParameters(
                k_factor=reordered / _K,
                base_index_params=faiss.IVFSearchParameters(nprobe=probed),
            )
            return inverted.search(queries, _K, params=parameters)[1]

        yield Method(
            f"FAISS {factory}",
            time.perf_counter() - began,
            search_lists,
            settings=[
                [(probed, reordered) for probed in _geometric(lists)]
                for reordered in _REORDERED
            ],
        )
    began = time.perf_counter()
    graph = faiss.IndexHNSWFlat(dimension, 32, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 100
    graph.add(database)

    def search_graph(queries, ef_search):
        parameters = faiss.SearchParametersHNSW(efSearch=ef_search)
        return graph.search(queries, _K, params=parameters)[1]

    yield Method(
        "FAISS HNSW32, efConstruction 100",
        time.perf_counter() - began,
        search_graph,
        settings=[
            [10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 1280]
        ],
    )


def _scann_methods(database: np.ndarray, options: Options) -> Iterator[Method]:
    scann = scann_searcher.scann_module()
    rules = scann_searcher.rules(count=_TRAINED, dimension=database.shape[1])
    brute_force = scann_searcher.Searcher.build(
        scann, database, {"searcher": "brute_force"}
    )
    yield Method(
        "exact, ScaNN brute force",
        0.0,
        lambda queries, _: brute_force.search(queries, _K)[0],
        brute_force.set_num_threads,
    )
    root = math.sqrt(len(database))
    for times, soar_lambda, codes in options.trees:
        leaves = round(times * root)
        began = time.perf_counter()
        searcher = scann_searcher.Searcher.build(
            scann,
            database,
            {
                **rules,
                "num_leaves": leaves,
                "soar_lambda": soar_lambda or None,
                "dimensions_per_block": int(codes),
                "training_sample_size": min(
                    len(database), rules["training_sample_size"]
                ),
            },
        )

        def search(queries, setting, searcher=searcher):
            searcher.parameters["num_leaves_to_search"] = setting[0]
            searcher.parameters["reordering_num_neighbors"] = setting[1]
            return searcher.search(queries, _K)[0]

        yield Method(
            f"ScaNN, {leaves} leaves, "
            + (f"SOAR {soar_lambda:g}" if soar_lambda else "no SOAR")
            + f", {codes:g} dimensions a code",
            time.perf_counter() - began,
            search,
            searcher.set_num_threads,
            [
                [(searched, reordered) for searched in _geometric(leaves)]
                for reordered in _REORDERED
            ],
        )


def _geometric(most: int) -> list[int]:
    steps = {round(1.3**power) for power in range(40)}
    return sorted(step for step in steps if step <= most)


def _time(search, queries, setting) -> tuple[np.ndarray, float]:
    began = time.perf_counter()
    rows = search(queries, setting)
    return rows, time.perf_counter() - began


def sweep(
    method: Method, queries: np.ndarray, recall_of: Callable
) -> list[Timed]:
    """Times every setting, in each group until recall is full."""
    tried: list[Timed] = []
    for group in method.settings or [[None]]:
        fastest = max(
            (t.queries_per_second for t in tried if t.recall >= _RECALLS[-1]),
            default=0,
        )
        for setting in group:
            rows, seconds = _time(method.search, queries, setting)
            if method.settings:
                again = [
                    _time(method.search, queries, setting)[1]
                    for _ in range(_SWEEPS - 1)
                ]
                seconds = min(seconds, *again)
            tried.append(
                Timed(setting, recall_of(rows), len(queries) / seconds)
            )
            last = tried[-1]
            if (
                last.recall >= _RECALLS[-1]
                or 2 * last.queries_per_second < fastest
            ):
                break
    return tried


def measure(count: int, dimension: int, options: Options) -> str:
    """The table of one size."""
    num_queries = options.queries
    database = descriptors(count + num_queries, dimension, options.spread)
    # The last rows are further images of the same places.
    database, queries = database[:count], database[count:].copy()
    _, truth = exact_search.nearest(queries, database, _K)

    def recall_of(rows):
        distances = np.stack(
            exact_search.distances_to(queries, database, list(abs(rows)))
        )
        return exact_search.recall_of_search(
            np.where(rows < 0, np.inf, distances), truth
        )

    every, chosen = [], {}
    for method in methods(database, options):
        every.append(method)
        method.set_threads(options.threads[0])
        tried = sweep(method, queries, recall_of)
        for recall in _RECALLS:
            good = [timed for timed in tried if timed.recall >= recall]
            if good:
                best = max(good, key=lambda timed: timed.queries_per_second)
                for threads in options.threads:
                    chosen[method.name, threads, recall] = dataclasses.replace(
                        best
                    )
        # The next one is built with all cores.
        method.set_threads(tfdata_threads.CORES)
    seconds = {key: [] for key in chosen}
    for _ in range(options.repeats):
        for method, threads in itertools.product(every, options.threads):
            method.set_threads(threads)
            for recall in _RECALLS[: None if method.settings else 1]:
                key = method.name, threads, recall
                if key in chosen:
                    seconds[key] += [
                        _time(method.search, queries, chosen[key].setting)[1]
                        for _ in range(_OF_A_TURN if method.settings else 1)
                    ]
    for key, took in seconds.items():
        # Exact: one time for all recalls.
        took = took or seconds[*key[:2], _RECALLS[0]]
        chosen[key].queries_per_second = num_queries / min(took)
    lines = [
        f"{count:,} x {dimension:,}, {num_queries:,} queries, recall@{_K}. "
        "Queries per second (and the setting) at a recall of at least:",
        "",
        "| | threads | build s | "
        + " | ".join(f"{recall:g}" for recall in _RECALLS)
        + " | at 0.99, times the fastest exact | ms one by one |",
        "|---|---:|---:|" + "---:|" * (len(_RECALLS) + 2),
    ]
    for method, threads in itertools.product(every, options.threads):
        cells = [method.name, str(threads), f"{method.build_s:.0f}"]
        for recall in _RECALLS:
            timed = chosen.get((method.name, threads, recall))
            cells.append(
                f"{timed.queries_per_second:,.0f}{_words(timed.setting)}"
                if timed
                else "-"
            )
        timed = chosen.get((method.name, threads, 0.99))
        if timed:
            exact_speed = max(
                chosen[exact.name, threads, 0.99].queries_per_second
                for exact in every
                if not exact.settings
            )
            cells.append(f"{timed.queries_per_second / exact_speed:.1f}")
            method.set_threads(threads)
            cells.append(f"{_one_by_one(method, queries, timed.setting):.2f}")
        else:
            cells += ["-", "-"]
        lines.append("| " + " | ".join(cells) + " |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines += ["", f"Peak memory of all together: {peak:.1f} GiB."]
    return "\n".join(lines)


def _numbers(words: list[str]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, word.split(":"))) for word in words)


def _words(setting: Any) -> str:
    if setting is None:
        return ""
    if isinstance(setting, tuple):
        return f" ({setting[0]}, {setting[1]})"
    return f" ({setting})"


def _one_by_one(method: Method, queries: np.ndarray, setting: Any) -> float:
    """Median milliseconds of a single query."""
    took = [
        _time(method.search, queries[row : row + 1], setting)[1]
        for row in range(min(_ONE_BY_ONE, len(queries)))
    ]
    return 1000 * statistics.median(took)


def main(argv):
    del argv
    options = Options(
        queries=FLAGS.queries,
        repeats=FLAGS.repeats,
        threads=tuple(map(int, FLAGS.threads)),
        spread=FLAGS.spread,
        trees=_numbers(FLAGS.trees),
        lists=_numbers(FLAGS.lists),
    )
    spawn = multiprocessing.get_context("spawn")
    for size in FLAGS.sizes:
        count, dimension = map(int, size.split("x"))
        with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
            table = pool.submit(measure, count, dimension, options).result()
        print(table + "\n", flush=True)


if __name__ == "__main__":
    app.run(main)
