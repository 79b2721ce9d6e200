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
# Rows that train ScaNN's trees, about as many as train FAISS's lists.
_TRAINED = 100_000
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

    count, dimension = database.shape
    flat = faiss.IndexFlatIP(dimension)
    flat.add(database)
    yield Method(
        "exact, FAISS Flat", 0.0, lambda queries, _: flat.search(queries, K)[1]
    )
    for times, codes in lists:
        num_lists = round(times * math.sqrt(count))
        factory = f"IVF{num_lists},PQ{dimension // int(codes)}x4fsr,RFlat"
        began = time.perf_counter()
        inverted = faiss.index_factory(
            dimension, factory, faiss.METRIC_INNER_PRODUCT
        )
        inverted.train(database)
        inverted.add(database)

        def search_lists(queries, setting, inverted=inverted):
            probed, reordered = setting
            parameters = faiss.IndexRefineSearchParameters(
                k_factor=reordered / K,
                base_index_params=faiss.IVFSearchParameters(nprobe=probed),
            )
            return inverted.search(queries, K, params=parameters)[1]

        yield Method(
            f"FAISS {factory}",
            time.perf_counter() - began,
            search_lists,
            settings=_by_reordered(num_lists),
        )


def _faiss_graph(database: np.ndarray) -> Method:
    import faiss

    began = time.perf_counter()
    graph = faiss.IndexHNSWFlat(
        database.shape[1], 32, faiss.METRIC_INNER_PRODUCT
    )
    graph.hnsw.efConstruction = 100
    graph.add(database)

    def search_graph(queries, ef_search):
        parameters = faiss.SearchParametersHNSW(efSearch=ef_search)
        return graph.search(queries, K, params=parameters)[1]

    return Method(
        "FAISS HNSW32, efConstruction 100",
        time.perf_counter() - began,
        search_graph,
        settings=[
            [10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 1280]
        ],
    )


def _scann_methods(
    database: np.ndarray, trees: tuple[tuple[float, ...], ...]
) -> Iterator[Method]:
    scann = scann_searcher.scann_module()
    rules = scann_searcher.rules(count=_TRAINED, dimension=database.shape[1])
    brute_force = scann_searcher.Searcher.build(
        scann, database, {"searcher": "brute_force"}
    )
    yield Method(
        "exact, ScaNN brute force",
        0.0,
        lambda queries, _: brute_force.search(queries, K)[0],
        brute_force.set_num_threads,
    )
    for times, soar_lambda, codes in trees:
        leaves = round(times * math.sqrt(len(database)))
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
            return searcher.search(queries, K)[0]

        soar = f"SOAR {soar_lambda:g}" if soar_lambda else "no SOAR"
        yield Method(
            f"ScaNN, {leaves} leaves, {soar}, {codes:g} dimensions a code",
            time.perf_counter() - began,
            search,
            searcher.set_num_threads,
            _by_reordered(leaves),
        )


def _by_reordered(partitions: int) -> list[list[tuple[int, int]]]:
    """Groups of (lists or leaves searched, rows reordered)."""
    steps = sorted({round(1.3**power) for power in range(40)})
    return [
        [(searched, reordered) for searched in steps if searched <= partitions]
        for reordered in _REORDERED
    ]
