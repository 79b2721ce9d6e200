"""Evaluation of descriptors by a protocol, from vectors to QueryResults.

`evaluate_descriptors` takes both steps at once. The stage `evaluate` takes them
one after the other, `prepare` and `Task.evaluate`: it embeds only the queries
that the protocol asks, and none if the protocol cannot be followed.
"""

import dataclasses
import time

import numpy as np
import pandas as pd

from sare_tf.dataset import manifest
from sare_tf.evaluation import (
    ground_truth,
    metrics,
    protocols,
    sequence_truth,
)
from sare_tf.evaluation.ground_truth import GroundTruth
from sare_tf.evaluation.protocols import Protocol
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.search import confidence, exact_search

# Neighbours of each query, unless a protocol or the caller wants more: recall@N
# is measured for every N up to it. Ours.
NUM_NEIGHBOURS = 100


def evaluate_descriptors(
    protocol: str | Protocol,
    *,
    queries: pd.DataFrame,
    database: pd.DataFrame,
    query_vectors: np.ndarray,
    database_vectors: np.ndarray,
    relations: pd.DataFrame | None = None,
    num_neighbours: int = NUM_NEIGHBOURS,
) -> QueryResults:
    """Evaluates descriptors by a protocol, with exact search.

    Args:
        protocol: a name in `protocols.PROTOCOLS`, such as "pitts30k", "msls"
            or "roxford5k_medium"; or a Protocol, such as
            `protocols.choose("radius", radius_m=10)`.
        queries: Q rows of a manifest. Queries that the protocol does not ask
            are left out of the results.
        database: N rows of a manifest.
        query_vectors: float32 [Q, D], one descriptor for each query.
        database_vectors: float32 or float16 [N, D]; may be a memory map or
            `Index.descriptors`, and is read in blocks.
        relations: which images are related to which query, as of
            `Records.relations`, for protocols of listed pairs.
        num_neighbours: neighbours to keep for each query; at most as many as
            are searched. Protocols that measure mAP@N keep at least N.

    Returns:
        The results of each query, with `recall_at([1, 5])`,
        `mean_average_precision`, `figures([1, 5])` and `table()`.

    Raises:
        ValueError: no such protocol, tables that lack what it needs, arrays
            that do not fit the tables, or no query with a positive.

    Example:

        results = evaluate_descriptors(
            "msls",
            queries=records.rows("val", "query"),
            database=records.rows("val", "database"),
            query_vectors=query_vectors,
            database_vectors=database_vectors,
        )
        results.recall_at([1, 5, 10])
    """
    if isinstance(protocol, str):
        protocol = protocols.choose(protocol)
    _check_fits("queries", queries, query_vectors)
    _check_fits("database", database, database_vectors)
    task = prepare(protocol, queries, database, relations=relations)
    return task.evaluate(
        np.asarray(query_vectors)[task.asked],
        database_vectors,
        num_neighbours=num_neighbours,
        place_radius_m=protocol.radius_m,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """Queries that a protocol asks, and the right database images of each.

    Attributes:
        protocol: the protocol.
        asked: bool [given queries], the queries that the protocol asks.
        queries: Q rows of a manifest, these queries.
        database: N rows of a manifest.
        truth: their ground truth.
    """

    protocol: Protocol
    asked: np.ndarray
    queries: pd.DataFrame
    database: pd.DataFrame
    truth: GroundTruth

    @property
    def num_searched(self) -> int:
        """Number of database images that are searched."""
        if self.truth.allowed is None:
            return len(self.database)
        return int(self.truth.allowed.sum())

    def evaluate(
        self,
        query_vectors: np.ndarray,
        database_vectors: np.ndarray,
        *,
        num_neighbours: int = NUM_NEIGHBOURS,
        place_radius_m: float = 25.0,
    ) -> QueryResults:
        """Searches exactly, and compares the neighbours with the ground truth.

        Args:
            query_vectors: float32 [Q, D].
            database_vectors: [N, D].
            num_neighbours: neighbours to keep for each query.
            place_radius_m: for the confidence in the first neighbour, images
                at most this far apart show the same place.

        Raises:
            ValueError: shapes that do not fit, or values that are not finite.
        """
        protocol, truth = self.protocol, self.truth
        wanted = max((num_neighbours, *protocol.mean_average_precision_at))
        k = min(self.num_searched, wanted)
        began = time.perf_counter()
        exact_rows, exact_distances = exact_search.nearest(
            query_vectors,
            database_vectors,
            min(self.num_searched, ground_truth.depth(protocol, truth, k)),
            allowed=truth.allowed,
        )
        seconds = time.perf_counter() - began
        rows, distances = ground_truth.rank(
            truth, exact_rows, exact_distances, k
        )
        hits = metrics.hits(rows, truth.positives)
        nearest_positives = ground_truth.nearest_positives(
            query_vectors,
            database_vectors,
            truth.positives,
            rows=rows,
            distances=distances,
        )
        return QueryResults(
            protocol=protocol,
            queries=self.queries,
            database=self.database,
            truth=truth,
            rows=rows,
            squared_distances=distances,
            hits=hits,
            ranks=metrics.first_rank(hits),
            metres=ground_truth.metres(self.queries, self.database, rows),
            confidence=self._confidence(rows, distances, place_radius_m),
            nearest_positives=nearest_positives[0],
            nearest_positive_distances=nearest_positives[1],
            precisions=self._precisions(query_vectors, database_vectors, hits),
            exact_distances=exact_distances,
            search_seconds=seconds,
        )

    def _confidence(
        self, rows: np.ndarray, distances: np.ndarray, radius_m: float
    ) -> np.ndarray:
        places = confidence.Places(self.database, radius_m=radius_m)
        near = slice(confidence.DEPTH)
        return confidence.of_neighbours(
            distances[:, near],
            places.same_as_first(rows[:, near]),
            count=len(self.database),
        )

    def _precisions(
        self,
        query_vectors: np.ndarray,
        database_vectors: np.ndarray,
        hits: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """The precisions of each query that the protocol measures."""
        truth = self.truth
        counts = np.array([len(rows) for rows in truth.positives], np.int64)
        precisions = {
            f"average_precision_at_{k}": metrics.average_precision_at(
                hits, counts, k
            )
            for k in self.protocol.mean_average_precision_at
        }
        if self.protocol.full_ranking:
            ranks = metrics.ranks_without_junk(
                query_vectors,
                database_vectors,
                positives=truth.positives,
                junk=truth.junk,
            )
            precisions |= metrics.full_ranking_precisions(ranks)
        return precisions


def prepare(
    protocol: Protocol,
    queries: pd.DataFrame,
    database: pd.DataFrame,
    *,
    relations: pd.DataFrame | None = None,
) -> Task:
    """Finds the queries that a protocol asks, and their ground truth.

    Args:
        protocol: the protocol.
        queries: rows of a manifest.
        database: N rows of a manifest.
        relations: listed pairs of image ids, or None.

    Raises:
        ValueError: the tables lack what the protocol needs, or no query has a
            positive.
    """
    asked = ground_truth.asked(protocol, queries)
    given, queries = queries, queries[asked]
    if protocol.sequences:
        asked &= sequence_truth.middles(
            given, sequence_truth.lengths(protocol)[0]
        )
        queries = given[asked]
        truth = sequence_truth.judge(protocol, given, database, asked=asked)
    else:
        truth = ground_truth.judge(
            protocol, queries, database, relations=relations
        )
    if not any(len(rows) for rows in truth.positives):
        raise ValueError(
            "Expected queries with positives in the database. Received: none "
            f"of {len(queries)} queries has one. Check --protocol, "
            "--positives, --positive_radius_m and the places or coordinates "
            "of the images."
        )
    return Task(
        protocol=protocol,
        asked=asked,
        queries=queries,
        database=database,
        truth=truth,
    )


def _check_fits(name: str, table: pd.DataFrame, vectors: np.ndarray) -> None:
    missing = [column for column in manifest.COLUMNS if column not in table]
    if missing:
        raise ValueError(
            f"Expected {name} as a manifest, with all of its columns. "
            f"Received: a table without {', '.join(missing)}. Make it with "
            "manifest.make, which fills in unknown values."
        )
    shape = np.shape(vectors)
    if len(shape) != 2 or shape[0] != len(table):
        raise ValueError(
            f"Expected one descriptor for each of the {len(table)} rows of "
            f"{name}, [{len(table)}, D]. Received: vectors of shape {shape}."
        )
