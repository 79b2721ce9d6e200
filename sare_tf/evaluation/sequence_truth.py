"""Ground truth of sequences, as Mapillary SLS defines it.

A sequence is L images of one `sequence_id` whose frames follow each other
without a gap, and stands for the image in its middle. A sequence of the
database is right if one of its images is a positive of one of the images of the
query. With single images on one side, each is a sequence of length 1. Source:
`arange_as_seq` and `MSLS` of mapillary_sls.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sare_tf.evaluation import ground_truth
from sare_tf.evaluation.ground_truth import GroundTruth
from sare_tf.evaluation.protocols import Protocol


def lengths(protocol: Protocol) -> tuple[int, int]:
    """Returns the images of a query, and of an entry of the database.

    Args:
        protocol: the protocol.
    """
    queries, _, database = protocol.sequences.partition("2")
    return tuple(
        protocol.sequence_length if side == "seq" else 1
        for side in (queries, database)
    )


def judge(
    protocol: Protocol,
    queries: pd.DataFrame,
    database: pd.DataFrame,
    *,
    asked: np.ndarray,
) -> GroundTruth:
    """Finds the right sequences of the database for each query.

    Args:
        protocol: of sequences.
        queries: rows of a manifest, with all images of the sequences.
        database: N rows of a manifest.
        asked: bool [queries], those in the middle of a query.

    Returns:
        The ground truth of the queries that are asked. Its rows are those of
        the middles of sequences.

    Raises:
        ValueError: the manifests lack what the protocol needs.
    """
    of_images = dataclasses.replace(protocol, subtask="", sequences="")
    truth = ground_truth.judge(of_images, queries, database)
    allowed = middles(database, lengths(protocol)[1])
    allowed &= ground_truth.of_subtask(database, protocol.subtask)
    right = positives(truth.positives, queries, database, protocol)
    right = [right[row][allowed[right[row]]] for row in np.flatnonzero(asked)]
    counted = np.array([len(rows) > 0 for rows in right], bool)
    return dataclasses.replace(
        truth,
        positives=right,
        junk=[np.zeros(0, np.int64)] * len(right),
        counted=counted,
        allowed=allowed,
    )


def middles(images: pd.DataFrame, length: int) -> np.ndarray:
    """Marks the images around which there is a sequence.

    Args:
        images: N rows of a manifest.
        length: L, odd.

    Returns:
        bool [N].

    Raises:
        ValueError: sequence or frame of an image is unknown.
    """
    around = windows(images, length)
    marked = np.zeros(len(images), bool)
    marked[around[:, length // 2]] = True
    return marked


def windows(images: pd.DataFrame, length: int) -> np.ndarray:
    """Returns the rows of every sequence, int64 [M, L].

    Args:
        images: N rows of a manifest.
        length: L.

    Raises:
        ValueError: sequence or frame of an image is unknown.
    """
    rows = np.arange(len(images))
    if length == 1:
        return rows[:, None]
    names = images["sequence_id"].to_numpy(object)
    frames = images["frame"].to_numpy()
    unknown = int(((names == "") | (frames < 0)).sum())
    if unknown:
        raise ValueError(
            "Expected sequence_id and frame of every image for a protocol of "
            f"sequences. Received: {unknown} of {len(images)} images without. "
            "Build the records with a reader that reads seq_info.csv, or use "
            "another --protocol."
        )
    order = np.lexsort((frames, names.astype(str)))
    follows = (names[order][1:] == names[order][:-1]) & (
        np.diff(frames[order]) == 1
    )
    # A window starts where the next L - 1 images follow.
    count = len(order) - length + 1
    if count < 1:
        return np.zeros((0, length), np.int64)
    is_whole = np.ones(count, bool)
    for shift in range(length - 1):
        is_whole &= follows[shift : shift + count]
    starts = np.flatnonzero(is_whole)
    return order[starts[:, None] + np.arange(length)]


def positives(
    of_images: Sequence[np.ndarray],
    queries: pd.DataFrame,
    database: pd.DataFrame,
    protocol: Protocol,
) -> list[np.ndarray]:
    """Returns the right sequences of the query around each image.

    Args:
        of_images: for each query image, its positives' database rows.
        queries: Q rows of a manifest.
        database: N rows of a manifest.
        protocol: of sequences.

    Returns:
        For each query image, rows of the middles of database sequences, int64,
        ascending; none where there is no sequence around it.
    """
    of_query, of_database = lengths(protocol)
    around = windows(database, of_database)
    # Which sequences each database image belongs to.
    order = np.argsort(around, axis=None, kind="stable")
    members = around.reshape(-1)[order]
    middle = around[order // of_database, of_database // 2]
    right = [np.zeros(0, np.int64)] * len(queries)
    for window in windows(queries, of_query):
        images = np.unique(np.concatenate([of_images[row] for row in window]))
        first = np.searchsorted(members, images)
        last = np.searchsorted(members, images, "right")
        right[window[of_query // 2]] = np.unique(
            np.concatenate(
                [
                    np.zeros(0, np.int64),
                    *(
                        middle[a:b]
                        for a, b in zip(first, last, strict=True)
                        if a < b
                    ),
                ]
            )
        )
    return right
