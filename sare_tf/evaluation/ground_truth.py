"""Truth of an evaluation: which database images are right, and which stand.

    asked     a protocol and a manifest -> the queries that it asks
    judge     a protocol, manifests and relations -> Truth
    depth     how many neighbours to search for
    rank      neighbours found -> those that the protocol lets stand

Rows are positions in the two manifests given. Relations are a DataFrame with
the columns query and database, image ids, and relation, one of "positive",
"easy", "hard" and "junk".
"""

import dataclasses

import numpy as np
import pandas as pd

from sare_tf.dataset.positives import find_positives
from sare_tf.evaluation.protocols import (
    PANORAMA_CUTOUTS,
    TIMESTAMP_DEPTH,
    Protocol,
)
from sare_tf.search import exact_search


@dataclasses.dataclass(frozen=True)
class Truth:
    """What a protocol makes of queries and database.

    Attributes:
        positives: for each query, right database rows, int64, ascending.
        junk: for each query, rows that are taken out of its ranking.
        counted: bool [Q], the queries that count.
        allowed: bool [N], the database rows that are searched; None: all.
        panoramas: int64 [N], the panorama of each database row, of which one
            image stands; None: all do.
        timestamps: object [Q] and [N]; equal ones are taken out of the
            ranking. None: none is.
    """

    positives: list[np.ndarray]
    junk: list[np.ndarray]
    counted: np.ndarray
    allowed: np.ndarray | None
    panoramas: np.ndarray | None
    timestamps: tuple[np.ndarray, np.ndarray] | None


def asked(protocol: Protocol, queries: pd.DataFrame) -> np.ndarray:
    """Marks the queries that the protocol asks: of its frames or subtask.

    Args:
        protocol: the protocol.
        queries: Q rows of a manifest.

    Returns:
        bool [Q].

    Raises:
        ValueError: no query is of the subtask.
    """
    chosen = np.ones(len(queries), bool)
    if protocol.every > 1:
        frames = queries["frame"].to_numpy()
        chosen &= (frames - frames.min()) % protocol.every == 0
    if protocol.subtask:
        chosen &= _of_subtask(queries, protocol.subtask)
    return chosen


def judge(
    protocol: Protocol,
    queries: pd.DataFrame,
    database: pd.DataFrame,
    *,
    relations: pd.DataFrame | None = None,
) -> Truth:
    """Finds out which database images are right for each query.

    Args:
        protocol: the protocol.
        queries: Q rows of a manifest, all of them `asked`.
        database: N rows of a manifest.
        relations: listed pairs of image ids, or None.

    Raises:
        ValueError: the manifests or relations lack what the protocol needs.
    """
    none = np.zeros(0, np.int64)
    junk = [none] * len(queries)
    if protocol.rule == "list":
        if relations is None:
            raise ValueError(
                f"Expected listed pairs for the protocol {protocol.name}. "
                "Received: records without relations. Build them with a "
                "reader that reads the list, or choose another --protocol."
            )
        positives = _listed(queries, database, relations, protocol.right)
        junk = _listed(queries, database, relations, protocol.junk)
    elif protocol.rule == "frames":
        if relations is not None:
            raise ValueError(
                "Expected images that are the same frame where their numbers "
                f"are, for the protocol {protocol.name}. Received: records "
                "that list which images match. Use --protocol=list."
            )
        positives = _frames(queries, database, protocol.frames)
    else:
        positives = find_positives(
            queries, database, rule=protocol.rule, radius_m=protocol.radius_m
        )
    if protocol.heading_deg:
        positives = _looking_alike(
            queries, database, positives, protocol.heading_deg
        )
    timestamps = None
    if protocol.other_timestamp:
        _check_given((queries, database), "timestamp", protocol)
        timestamps = tuple(
            some["timestamp"].to_numpy(object) for some in (queries, database)
        )
        positives = [
            rows[timestamps[1][rows] != own]
            for rows, own in zip(positives, timestamps[0], strict=True)
        ]
    allowed = None
    if protocol.subtask:
        allowed = _of_subtask(database, protocol.subtask)
        positives = [rows[allowed[rows]] for rows in positives]
    counted = np.ones(len(queries), bool)
    if protocol.leaves_out:
        counted = np.array([len(rows) > 0 for rows in positives], bool)
    panoramas = None
    if protocol.one_per_panorama:
        _check_given((database,), "panorama_id", protocol)
        panoramas = pd.factorize(database["panorama_id"])[0]
    return Truth(positives, junk, counted, allowed, panoramas, timestamps)


def depth(protocol: Protocol, truth: Truth, k: int) -> int:
    """How many neighbours must be searched for so that k may stand.

    Args:
        protocol: the protocol.
        truth: its judgement.
        k: neighbours wanted in the end.

    Returns:
        It may be more than the database has.
    """
    if protocol.one_per_panorama:
        return PANORAMA_CUTOUTS * k
    if protocol.other_timestamp:
        return TIMESTAMP_DEPTH * k
    return k + max((len(rows) for rows in truth.junk), default=0)


def rank(
    truth: Truth, found: np.ndarray, distances: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Takes out of a ranking what the protocol does not let stand.

    Args:
        truth: the judgement of a protocol.
        found: int64 [Q, depth], database rows, nearest first.
        distances: float32 [Q, depth].
        k: neighbours wanted.

    Returns:
        int64 [Q, k] and float32 [Q, k], padded with -1 and infinity.
    """
    stands = ~exact_search.hits(found, truth.junk)
    if truth.panoramas is not None:
        stands &= _first_of_each(truth.panoramas[found])
    if truth.timestamps is not None:
        of_query, of_database = truth.timestamps
        stands &= of_query[:, None] != of_database[found]
    # Those that stand come first, in their order.
    order = np.argsort(~stands, axis=1, kind="stable")[:, :k]
    fallen = ~np.take_along_axis(stands, order, axis=1)
    rows = np.take_along_axis(found, order, axis=1)
    distances = np.take_along_axis(distances, order, axis=1)
    rows[fallen], distances[fallen] = -1, np.inf
    return rows, distances


def _frames(
    queries: pd.DataFrame, database: pd.DataFrame, window: int
) -> list[np.ndarray]:
    unknown = sum(
        int((some["frame"] < 0).sum()) for some in (queries, database)
    )
    if unknown:
        raise ValueError(
            "Expected a frame of every image for positives by frame. "
            f"Received: {unknown} images without. Use another --protocol, or "
            "a reader that knows frames."
        )
    found = [np.zeros(0, np.int64)] * len(queries)
    members = database.groupby("sequence_id").indices
    frames = database["frame"].to_numpy()
    for sequence, rows in queries.groupby("sequence_id").indices.items():
        there = members.get(sequence, np.zeros(0, np.int64))
        there = there[np.argsort(frames[there], kind="stable")]
        wanted = queries["frame"].to_numpy()[rows]
        first = np.searchsorted(frames[there], wanted - window)
        last = np.searchsorted(frames[there], wanted + window, "right")
        for row, a, b in zip(rows, first, last, strict=True):
            found[row] = np.sort(there[a:b])
    return found


def _listed(
    queries: pd.DataFrame,
    database: pd.DataFrame,
    relations: pd.DataFrame,
    kinds: tuple[str, ...],
) -> list[np.ndarray]:
    chosen = relations[relations["relation"].isin(kinds)]
    # Other splits are listed, too.
    query = pd.Index(queries["image_id"]).get_indexer(chosen["query"])
    row = pd.Index(database["image_id"]).get_indexer(chosen["database"])
    known = (query >= 0) & (row >= 0)
    pairs = np.unique(np.stack([query[known], row[known]], axis=1), axis=0)
    counts = np.bincount(pairs[:, 0], minlength=len(queries))
    return np.split(pairs[:, 1].astype(np.int64), np.cumsum(counts)[:-1])


def _looking_alike(
    queries: pd.DataFrame,
    database: pd.DataFrame,
    positives: list[np.ndarray],
    heading_deg: float,
) -> list[np.ndarray]:
    """Positives that look at most so far from where the query looks."""
    own, others = (
        some["heading_deg"].to_numpy(np.float64) for some in (queries, database)
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


def _check_given(
    manifests: tuple[pd.DataFrame, ...], column: str, protocol: Protocol
) -> None:
    unknown = sum(int((some[column] == "").sum()) for some in manifests)
    if unknown:
        raise ValueError(
            f"Expected {column} of every image for the protocol "
            f"{protocol.name}. Received: {unknown} images without. Use "
            "another --protocol, or a reader that knows it."
        )


def _of_subtask(rows: pd.DataFrame, subtask: str) -> np.ndarray:
    """bool [rows]; a manifest that tells of no subtask is all of "all"."""
    told = rows["subtasks"]
    if subtask == "all" and (told == "").all():
        return np.ones(len(rows), bool)
    chosen = np.array([subtask in names.split() for names in told], bool)
    if not chosen.any():
        raise ValueError(
            f"Expected images of the subtask {subtask} in the manifest. "
            f"Received: none of {len(rows)}. Build the records with a reader "
            "that reads subtask_index.csv, or use --msls_subtask=all."
        )
    return chosen


def _first_of_each(groups: np.ndarray) -> np.ndarray:
    """Marks the first of each group in every line of [Q, k]."""
    order = np.argsort(groups, axis=1, kind="stable")
    ordered = np.take_along_axis(groups, order, axis=1)
    new = np.ones(groups.shape, bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty_like(new)
    np.put_along_axis(first, order, new, axis=1)
    return first
