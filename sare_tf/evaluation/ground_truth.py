"""Ground truth of an evaluation: which database images are right for a query.

    asked               marks the queries that a protocol asks
    judge               makes the GroundTruth of queries and database
    depth               says how many neighbours to search for
    rank                takes neighbours out that the protocol does not count
    nearest_positives   finds the positive nearest to each query's descriptor
    metres              measures how far from the queries rows were taken

Rows are positions in the two manifests given. Relations are a DataFrame with
the columns query and database, image ids, and relation, one of "positive",
"easy", "hard" and "junk". Axis letters: Q queries, N database, D descriptor
length, k neighbours.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sare_tf.dataset import manifest
from sare_tf.dataset.positives import find_positives
from sare_tf.evaluation import metrics
from sare_tf.evaluation.protocols import (
    PANORAMA_CUTOUTS,
    TIMESTAMP_DEPTH,
    Protocol,
)
from sare_tf.search import exact_search


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """Which database images are right for each query, by a protocol.

    Attributes:
        positives: for each query, right database rows, int64, ascending.
        junk: for each query, rows that are taken out of its ranking.
        counted: bool [Q], the queries that count.
        allowed: bool [N], the database rows that are searched; None: all.
        panoramas: int64 [N], the panorama of each database row, of which only
            the first image is ranked; None: every image is ranked.
        timestamps: object [Q] and [N]; images of the query's timestamp are
            taken out of its ranking. None: no image is.
    """

    positives: list[np.ndarray]
    junk: list[np.ndarray]
    counted: np.ndarray
    allowed: np.ndarray | None
    panoramas: np.ndarray | None
    timestamps: tuple[np.ndarray, np.ndarray] | None


def asked(protocol: Protocol, queries: pd.DataFrame) -> np.ndarray:
    """Marks the queries that the protocol asks, by its frames or subtask.

    Args:
        protocol: the protocol.
        queries: Q rows of a manifest.

    Returns:
        bool [Q].

    Raises:
        ValueError: no query is of the subtask.
    """
    is_asked = np.ones(len(queries), bool)
    if protocol.every > 1:
        frames = queries["frame"].to_numpy()
        is_asked &= (frames - frames.min()) % protocol.every == 0
    if protocol.subtask:
        is_asked &= of_subtask(queries, protocol.subtask)
    return is_asked


def judge(
    protocol: Protocol,
    queries: pd.DataFrame,
    database: pd.DataFrame,
    *,
    relations: pd.DataFrame | None = None,
) -> GroundTruth:
    """Finds the database images that are right for each query.

    Args:
        protocol: the protocol.
        queries: Q rows of a manifest, all of them `asked`.
        database: N rows of a manifest.
        relations: listed pairs of image ids, or None.

    Raises:
        ValueError: the manifests or relations lack what the protocol needs.
    """
    positives = _positives(protocol, queries, database, relations)
    junk = [np.zeros(0, np.int64)] * len(queries)
    if protocol.rule == "list":
        junk = _listed(queries, database, relations, protocol.junk)
    if protocol.heading_deg:
        positives = _of_same_heading(
            queries, database, positives, protocol.heading_deg
        )
    if protocol.other_sequence:
        own = _of_own_sequence(queries, database, protocol)
        positives = list(map(np.setdiff1d, positives, own))
        junk = list(map(np.union1d, junk, own))
    timestamps = None
    if protocol.other_timestamp:
        _check_given((queries, database), "timestamp", protocol)
        timestamps = tuple(
            table["timestamp"].to_numpy(object) for table in (queries, database)
        )
        positives = [
            rows[timestamps[1][rows] != own]
            for rows, own in zip(positives, timestamps[0], strict=True)
        ]
    allowed = None
    if protocol.subtask:
        allowed = of_subtask(database, protocol.subtask)
        positives = [rows[allowed[rows]] for rows in positives]
    counted = np.ones(len(queries), bool)
    if protocol.leaves_out:
        counted = np.array([len(rows) > 0 for rows in positives], bool)
    panoramas = None
    if protocol.one_per_panorama:
        _check_given((database,), "panorama_id", protocol)
        panoramas = pd.factorize(database["panorama_id"])[0]
    return GroundTruth(positives, junk, counted, allowed, panoramas, timestamps)


def depth(protocol: Protocol, truth: GroundTruth, k: int) -> int:
    """Returns how many neighbours to search for so that k may be left.

    Args:
        protocol: the protocol.
        truth: its ground truth.
        k: neighbours wanted after `rank`.

    Returns:
        The number; it may be more than the database has.
    """
    if protocol.one_per_panorama:
        return PANORAMA_CUTOUTS * k
    if protocol.other_timestamp:
        return TIMESTAMP_DEPTH * k
    return k + max((len(rows) for rows in truth.junk), default=0)


def rank(
    truth: GroundTruth, rows: np.ndarray, distances: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Takes the images out of a ranking that the protocol does not count.

    Args:
        truth: the ground truth.
        rows: int64 [Q, depth], database rows, nearest first.
        distances: float32 [Q, depth].
        k: neighbours wanted.

    Returns:
        int64 [Q, k] and float32 [Q, k], padded with -1 and infinity.
    """
    is_kept = ~metrics.hits(rows, truth.junk)
    if truth.panoramas is not None:
        is_kept &= _first_of_each(truth.panoramas[rows])
    if truth.timestamps is not None:
        of_query, of_database = truth.timestamps
        is_kept &= of_query[:, None] != of_database[rows]
    # Kept rows come first, in their order.
    order = np.argsort(~is_kept, axis=1, kind="stable")[:, :k]
    is_padding = ~np.take_along_axis(is_kept, order, axis=1)
    rows = np.take_along_axis(rows, order, axis=1)
    distances = np.take_along_axis(distances, order, axis=1)
    rows[is_padding], distances[is_padding] = -1, np.inf
    return rows, distances


def nearest_positives(
    query_vectors: np.ndarray,
    database_vectors: np.ndarray,
    positives: Sequence[np.ndarray],
    *,
    rows: np.ndarray,
    distances: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the positive nearest to each query's descriptor.

    Args:
        query_vectors: float32 [Q, D].
        database_vectors: [N, D]; may be a memory map.
        positives: for each query, its positives' database rows.
        rows: int64 [Q, k] of `rank`. Other rows of the database are read only
            for queries whose positives are not among these.
        distances: float32 [Q, k], their squared distances.

    Returns:
        int64 [Q] database rows, -1 for a query without positives, and float32
        [Q] squared distances, NaN for those.
    """
    ranks = metrics.first_rank(metrics.hits(rows, positives))
    every, first = np.arange(len(rows)), np.maximum(ranks - 1, 0)
    nearest = np.where(ranks > 0, rows[every, first], -1)
    squared = np.where(ranks > 0, distances[every, first], np.float32(np.nan))
    counts = np.array([len(right) for right in positives], np.int64)
    missed = np.flatnonzero((ranks == 0) & (counts > 0))
    candidates = [positives[query] for query in missed]
    measured = exact_search.distances_to(
        query_vectors[missed], database_vectors, candidates
    )
    for query, right, far in zip(missed, candidates, measured, strict=True):
        nearest[query], squared[query] = right[np.argmin(far)], far.min()
    return nearest, squared


def metres(
    queries: pd.DataFrame, database: pd.DataFrame, rows: np.ndarray
) -> np.ndarray:
    """Distances on the ground between queries and database rows.

    Args:
        queries: Q rows of a manifest.
        database: N rows of a manifest.
        rows: int64 [Q, k], -1 for no image.

    Returns:
        float64 [Q, k] metres; NaN where a position is unknown, infinite where
        there is no image or it lies in another UTM zone.
    """
    here = manifest.coordinates(queries)[:, None]
    there = manifest.coordinates(database)[rows]
    far = np.linalg.norm(here - there, axis=2)
    is_other = (
        manifest.grids(queries)[:, None] != manifest.grids(database)[rows]
    )
    far[(is_other & np.isfinite(far)) | (rows < 0)] = np.inf
    return far


def _positives(
    protocol: Protocol,
    queries: pd.DataFrame,
    database: pd.DataFrame,
    relations: pd.DataFrame | None,
) -> list[np.ndarray]:
    """Positives by the protocol's rule only."""
    if protocol.rule == "list":
        if relations is None:
            raise ValueError(
                f"Expected listed pairs for the protocol {protocol.name}. "
                "Received: records without relations. Build them with a "
                "reader that reads the list, or choose another --protocol."
            )
        return _listed(queries, database, relations, protocol.right)
    if protocol.rule == "frames":
        if relations is not None:
            raise ValueError(
                "Expected images that match by the numbers of their frames, "
                f"for the protocol {protocol.name}. Received: records that "
                "list which images match. Use --protocol=list."
            )
        return _frames(queries, database, protocol.frames)
    return find_positives(
        queries, database, rule=protocol.rule, radius_m=protocol.radius_m
    )


def _frames(
    queries: pd.DataFrame, database: pd.DataFrame, window: int
) -> list[np.ndarray]:
    unknown = sum(
        int((table["frame"] < 0).sum()) for table in (queries, database)
    )
    if unknown:
        raise ValueError(
            "Expected a frame of every image for positives by frame. "
            f"Received: {unknown} images without. Use another --protocol, or "
            "a reader that knows frames."
        )
    positives = [np.zeros(0, np.int64)] * len(queries)
    members = database.groupby("sequence_id").indices
    frames = database["frame"].to_numpy()
    for sequence, rows in queries.groupby("sequence_id").indices.items():
        there = members.get(sequence, np.zeros(0, np.int64))
        there = there[np.argsort(frames[there], kind="stable")]
        wanted = queries["frame"].to_numpy()[rows]
        first = np.searchsorted(frames[there], wanted - window)
        last = np.searchsorted(frames[there], wanted + window, "right")
        for row, a, b in zip(rows, first, last, strict=True):
            positives[row] = np.sort(there[a:b])
    return positives


def _listed(
    queries: pd.DataFrame,
    database: pd.DataFrame,
    relations: pd.DataFrame,
    kinds: tuple[str, ...],
) -> list[np.ndarray]:
    """Database rows that are related to each query in one of these ways."""
    listed = relations[relations["relation"].isin(kinds)]
    # The list also holds other splits.
    query = pd.Index(queries["image_id"]).get_indexer(listed["query"])
    row = pd.Index(database["image_id"]).get_indexer(listed["database"])
    known = (query >= 0) & (row >= 0)
    pairs = np.unique(np.stack([query[known], row[known]], axis=1), axis=0)
    counts = np.bincount(pairs[:, 0], minlength=len(queries))
    return np.split(pairs[:, 1].astype(np.int64), np.cumsum(counts)[:-1])


def _of_same_heading(
    queries: pd.DataFrame,
    database: pd.DataFrame,
    positives: list[np.ndarray],
    heading_deg: float,
) -> list[np.ndarray]:
    """Positives whose heading is within `heading_deg` of the query's."""
    own, others = (
        table["heading_deg"].to_numpy(np.float64)
        for table in (queries, database)
    )
    unknown = int(np.isnan(own).sum() + np.isnan(others).sum())
    if unknown:
        raise ValueError(
            "Expected heading_deg of every image for positives by heading. "
            f"Received: {unknown} images without. Set --positive_heading_deg "
            "to 0."
        )
    return [
        # -180 to 180 degrees.
        rows[np.abs((others[rows] - mine + 180) % 360 - 180) <= heading_deg]
        for rows, mine in zip(positives, own, strict=True)
    ]


def _of_own_sequence(
    queries: pd.DataFrame, database: pd.DataFrame, protocol: Protocol
) -> list[np.ndarray]:
    """Database rows of the sequence of each query."""
    _check_given((queries, database), "sequence_id", protocol)
    members = database.groupby("sequence_id").indices
    nothing = np.zeros(0, np.int64)
    return [members.get(name, nothing) for name in queries["sequence_id"]]


def _check_given(
    manifests: tuple[pd.DataFrame, ...], column: str, protocol: Protocol
) -> None:
    unknown = sum(int((table[column] == "").sum()) for table in manifests)
    if unknown:
        raise ValueError(
            f"Expected {column} of every image for the protocol "
            f"{protocol.name}. Received: {unknown} images without. Use "
            "another --protocol, or a reader that knows it."
        )


def of_subtask(rows: pd.DataFrame, subtask: str) -> np.ndarray:
    """Marks the images of a subtask.

    Without any subtask in the manifest, all images are of "all".

    Args:
        rows: N rows of a manifest.
        subtask: one of `names.SUBTASKS`.

    Returns:
        bool [N].

    Raises:
        ValueError: no image is of the subtask.
    """
    subtasks = rows["subtasks"]
    if subtask == "all" and (subtasks == "").all():
        return np.ones(len(rows), bool)
    is_of = np.array([subtask in names.split() for names in subtasks], bool)
    if not is_of.any():
        raise ValueError(
            f"Expected images of the subtask {subtask} in the manifest. "
            f"Received: none of {len(rows)}. Build the records with a reader "
            "that reads subtask_index.csv, or use --msls_subtask=all."
        )
    return is_of


def _first_of_each(groups: np.ndarray) -> np.ndarray:
    """Marks the first of each group in every line of [Q, k]."""
    order = np.argsort(groups, axis=1, kind="stable")
    ordered = np.take_along_axis(groups, order, axis=1)
    new = np.ones(groups.shape, bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty_like(new)
    np.put_along_axis(first, order, new, axis=1)
    return first
