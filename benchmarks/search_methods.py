"""Exact and approximate search by sare_tf, FAISS and ScaNN, for `search`."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import threadpoolctl

from sare_tf.search import exact_search, scann_searcher

K = 10
# FAISS uses at most so many rows of a list in training.
_TRAINED_OF_A_LIST = 256
# Rows that are added to lists at a time.
_ADDED = 500_000
_REORDERED = (20, 40, 80, 160, 320, 640)


@dataclasses.dataclass
class Method:
    """A way to search.

    Attributes:
        name: name of the rows in the table.
        build_s: seconds to build it.
        search: (queries, setting) -> rows [Q, 10], -1 where there is none.
        set_threads: sets the number of threads that search.
        settings: from fast to slow, in groups; a group ends once recall is
            full. None: search is exact.
    """

    name: str
    build_s: float
    search: Callable[[np.ndarray, Any], np.ndarray]
    # Sets every OpenMP and BLAS that is loaded: FAISS's and numpy's.
    set_threads: Callable[[int], Any] = threadpoolctl.threadpool_limits
    settings: list[list[Any]] | None = None


def methods(
    database: np.ndarray,
    *,
    trees: tuple[tuple[float, ...], ...],
    lists: tuple[tuple[float, ...], ...],
) -> Iterator[Method]:
    """Builds one method after the other.

    Args:
        database: float32 [N, D].
        trees: ScaNN's trees, (leaves by sqrt(N), SOAR, dimensions of a code).
        lists: FAISS's lists, (lists by sqrt(N), dimensions of a code).
    """
    yield Method(
        "exact, sare_tf (numpy)",
        0.0,
        lambda queries, _: exact_search.nearest(queries, database, K)[0],
    )
    yield from _faiss_exact_and_lists(database, lists)
    yield _faiss_graph(database)
    yield from _scann_methods(database, trees)


def _faiss_exact_and_lists(
    database: np.ndarray, lists: tuple[tuple[float, ...], ...]
) -> Iterator[Method]:
    import faiss

    flat = faiss.IndexFlatIP(database.shape[1])
    flat.add(database)
    yield Method(
        "exact, FAISS Flat", 0.0, lambda queries, _: flat.search(queries, K)[1]
    )
    for times, codes in lists:
        began = time.perf_counter()
        name, inverted = build_lists(database, times, codes)
        yield lists_method(name, time.perf_counter() - began, inverted)


def build_lists(database: np.ndarray, times: float, codes: float):
    """Builds FAISS's lists with fast-scan codes and exact reordering.

    Args:
        database: float32 [N, D]; may be a memory map.
        times: lists, times sqrt(N).
        codes: dimensions of a code.

    Returns:
        Name and index.
    """
    import faiss

    count, dimension = database.shape
    lists = round(times * math.sqrt(count))
    factory = f"IVF{lists},PQ{dimension // int(codes)}x4fsr,RFlat"
    inverted = faiss.index_factory(
        dimension, factory, faiss.METRIC_INNER_PRODUCT
    )
    # More rows would not be used.
    step = max(1, count // (_TRAINED_OF_A_LIST * lists))
    inverted.train(np.ascontiguousarray(database[::step]))
    for start in range(0, count, _ADDED):
        inverted.add(database[start : start + _ADDED])
    return f"FAISS {factory}", inverted


def lists_method(name: str, build_s: float, inverted) -> Method:
    """Makes a method of an index of `build_lists`."""
    import faiss

    def search_lists(queries, setting):
        probed, reordered = setting
        parameters = faiss.IndexRefineSearchParameters(
            k_factor=reordered / K,
            base_index_params=faiss.IVFSearchParameters(nprobe=probed),
        )
        return inverted.search(queries, K, params=parameters)[1]

    lists = int(name.split("IVF")[1].split(",")[0])
    return Method(name, build_s, search_lists, settings=_by_reordered(lists))


def _faiss_graph(database: np.ndarray) -> Method:
    began = time.perf_counter()
    name, graph = build_graph(database)
    return graph_method(name, time.perf_counter() - began, graph)


def build_graph(database: np.ndarray):
    """Builds FAISS's graph of float32 [N, D]; returns name and index."""
    import faiss

    graph = faiss.IndexHNSWFlat(
        database.shape[1], 32, faiss.METRIC_INNER_PRODUCT
    )
    graph.hnsw.efConstruction = 100
    graph.add(database)
    return "FAISS HNSW32, efConstruction 100", graph


def graph_method(name: str, build_s: float, graph) -> Method:
    """Makes a method of an index of `build_graph`."""
    import faiss

    def search_graph(queries, ef_search):
        parameters = faiss.SearchParametersHNSW(efSearch=ef_search)
        return graph.search(queries, K, params=parameters)[1]

    return Method(
        name,
        build_s,
        search_graph,
        settings=[
            [10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 1280]
        ],
    )


def _scann_methods(
    database: np.ndarray, trees: tuple[tuple[float, ...], ...]
) -> Iterator[Method]:
    scann = scann_searcher.scann_module()
    brute_force = scann_searcher.Searcher.build(
        scann, database, {"searcher": "brute_force"}
    )
    yield Method(
        "exact, ScaNN brute force",
        0.0,
        lambda queries, _: brute_force.search(queries, K)[0],
        brute_force.set_num_threads,
    )
    for tree in trees:
        began = time.perf_counter()
        name, searcher = build_tree(database, *tree)
        yield tree_method(name, time.perf_counter() - began, searcher)


def build_tree(
    database: np.ndarray,
    times: float,
    soar_lambda: float,
    codes: float,
    reorder_from: str = "memory",
) -> tuple[str, scann_searcher.Searcher]:
    """Builds ScaNN's tree.

    Args:
        database: float32 [N, D]; may be a memory map.
        times: leaves, times sqrt(N).
        soar_lambda: of SOAR; 0: none.
        codes: dimensions of a code.
        reorder_from: see `scann_searcher`.

    Returns:
        Name and searcher.
    """
    count, dimension = database.shape
    leaves = round(times * math.sqrt(count))
    rules = scann_searcher.rules(
        # Smaller databases have a tree here, too.
        count=max(count, scann_searcher.TREE_FROM),
        dimension=dimension,
        reorder_from=reorder_from,
    )
    rules |= {
        "num_leaves": leaves,
        "soar_lambda": soar_lambda or None,
        "dimensions_per_block": int(codes),
        "training_sample_size": scann_searcher.training_sample_size(
            count=count,
            dimension=dimension,
            num_leaves=leaves,
            reorder_from=reorder_from,
        ),
    }
    searcher = scann_searcher.Searcher.build(
        scann_searcher.scann_module(), database, rules
    )
    soar = f"SOAR {soar_lambda:g}" if soar_lambda else "no SOAR"
    disk = ", reordered from disk" if reorder_from == "disk" else ""
    name = f"ScaNN, {leaves} leaves, {soar}, {codes:g} dimensions a code{disk}"
    return name, searcher


def tree_method(
    name: str, build_s: float, searcher: scann_searcher.Searcher
) -> Method:
    """Makes a method of a searcher of `build_tree`."""

    def search(queries, setting):
        searcher.parameters["num_leaves_to_search"] = setting[0]
        searcher.parameters["reordering_num_neighbors"] = setting[1]
        return searcher.search(queries, K)[0]

    return Method(
        name,
        build_s,
        search,
        searcher.set_num_threads,
        _by_reordered(searcher.parameters["num_leaves"]),
    )


def _by_reordered(partitions: int) -> list[list[tuple[int, int]]]:
    """Groups of (lists or leaves searched, rows reordered)."""
    steps = sorted({round(1.3**power) for power in range(40)})
    return [
        [(searched, reordered) for searched in steps if searched <= partitions]
        for reordered in _REORDERED
    ]
