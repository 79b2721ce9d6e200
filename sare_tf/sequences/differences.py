"""How queries of a sequence differ from the images of a database.

    d_tn    the distance between the descriptors of query t and image n
    c_tn    (d_tn - mean) / standard deviation, over the R + 1 images around n

The second is SeqSLAM's local contrast: an image counts that is nearer than its
neighbours on the drive. Axis letters: T queries, N images of the database in
the order of their clips, D descriptor length.
"""

from collections.abc import Sequence

import numpy as np

# Rows of the database that are read at a time. Ours.
_BLOCK = 8192


def distances(
    queries: np.ndarray, database: np.ndarray, order: np.ndarray
) -> np.ndarray:
    """Returns the distances between unit vectors.

    Args:
        queries: [T, D].
        database: [M, D]; may be a memory map, which is read in blocks.
        order: int64 [N], rows of it.

    Returns:
        float32 [T, N], from 0 to 2.
    """
    queries = np.asarray(queries, np.float32)
    result = np.empty((len(queries), len(order)), np.float32)
    for start in range(0, len(order), _BLOCK):
        rows = np.asarray(database[order[start : start + _BLOCK]], np.float32)
        result[:, start : start + len(rows)] = queries @ rows.T
    return np.sqrt(np.maximum(2 - 2 * result, 0, out=result), out=result)


def local_contrast(
    differences: np.ndarray, spans: Sequence[slice], window: int
) -> np.ndarray:
    """Normalises each row of differences among its neighbours of a clip.

    The window is cut at the ends of a clip. A window of one image, or of equal
    differences, gives 0. Source: SeqSLAM (Milford and Wyeth, ICRA 2012),
    section III B; the standard deviation is that of a sample, as in its code.

    Args:
        differences: [T, N].
        spans: the places of each clip.
        window: R, of which half lies on either side.

    Returns:
        float32 [T, N].
    """
    half = window // 2
    result = np.zeros(differences.shape, np.float32)
    for span in spans:
        values = np.asarray(differences[:, span], np.float64)
        count = values.shape[1]
        first = np.maximum(np.arange(count) - half, 0)
        last = np.minimum(np.arange(count) + half + 1, count)
        size = last - first
        sums = _sums(values)
        mean = (sums[:, last] - sums[:, first]) / size
        # Sums of squares around the clip's mean, so that no digits are lost.
        centre = values.mean(axis=1, keepdims=True)
        sums = _sums((values - centre) ** 2)
        squares = sums[:, last] - sums[:, first]
        squares -= size * (mean - centre) ** 2
        deviation = np.sqrt(np.maximum(squares, 0) / np.maximum(size - 1, 1))
        np.divide(
            values - mean,
            deviation,
            out=result[:, span],
            where=deviation > 1e-9,
            casting="same_kind",
        )
    return result


def _sums(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, ... columns."""
    return np.pad(np.cumsum(values, axis=1), ((0, 0), (1, 0)))
