"""How well scores of answers separate right ones from others.

Precision is the share of right answers among those that a limit accepts, recall
their share among all queries that have a right answer in the database. All
answers of one score are accepted together. Axis letter: A answers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

# Ours: points of a curve that metrics.json holds, at most, and bins of a
# reliability diagram.
_MOST_POINTS = 200
_BINS = 10


def precision_recall(
    scores: np.ndarray, right: np.ndarray, possible: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns precision and recall for each limit, from the strictest on.

    Args:
        scores: float [A], the higher the surer. Unknown ones, NaN, are the
            least sure.
        right: bool [A].
        possible: number of queries that have a right answer.

    Returns:
        float64 [L] each, recall ascending.
    """
    scores = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(-scores, kind="stable")
    # The last answer of each score.
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits = np.cumsum(right[order])[last]
    return hits / (last + 1), hits / max(possible, 1)


def average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """Returns the area under a curve, as a sum over its steps of recall.

    Args:
        precision: [L] of `precision_recall`.
        recall: [L].
    """
    return float((np.diff(recall, prepend=0) * precision).sum())


def recall_at_precision(
    precision: np.ndarray, recall: np.ndarray, least: float
) -> float:
    """Returns the largest recall at a precision of at least this; 0 if none.

    Args:
        precision: [L] of `precision_recall`.
        recall: [L].
        least: precision from 0 to 1.
    """
    return float(recall[precision >= least].max(initial=0))


def extended_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """Returns (P_R0 + R_P100) / 2 (Ferrarini et al., RA-L 5, 2020).

    P_R0 is the precision at the least recall above 0, R_P100 the largest
    recall at a precision of 1.

    Args:
        precision: [L] of `precision_recall`.
        recall: [L].
    """
    some = np.flatnonzero(recall > 0)
    first = float(precision[some[0]]) if len(some) else 0.0
    return (first + recall_at_precision(precision, recall, 1.0)) / 2


def reliability_diagram(
    stated: np.ndarray, right: np.ndarray
) -> list[dict[str, Any]]:
    """Compares stated shares of right answers with those that were right.

    Args:
        stated: float [A], the share that was stated with each answer.
        right: bool [A].

    Returns:
        JSON: for each tenth of shares that occurs, least first: stated, the
        mean that was stated; right, the share of right answers; answers, their
        number.
    """
    bins = np.minimum((stated * _BINS).astype(int), _BINS - 1)
    return [
        {
            "stated": float(stated[bins == number].mean()),
            "right": float(right[bins == number].mean()),
            "answers": int((bins == number).sum()),
        }
        for number in np.unique(bins)
    ]


def expected_calibration_error(diagram: Sequence[dict[str, Any]]) -> float:
    """Returns the mean difference of stated and true shares over answers.

    Naeini et al., "Obtaining well calibrated probabilities using Bayesian
    binning", AAAI 2015.

    Args:
        diagram: of `reliability_diagram`.
    """
    count = sum(one["answers"] for one in diagram)
    return (
        sum(
            one["answers"] * abs(one["stated"] - one["right"])
            for one in diagram
        )
        / count
    )


def figures(
    scores: np.ndarray, right: np.ndarray, possible: int
) -> dict[str, Any]:
    """Returns what metrics.json says of a score.

    Args:
        scores: float [A].
        right: bool [A].
        possible: number of queries that have a right answer.
    """
    precision, recall = precision_recall(scores, right, possible)
    kept = np.linspace(
        0, len(recall) - 1, min(len(recall), _MOST_POINTS)
    ).astype(int)
    return {
        "average_precision": average_precision(precision, recall),
        "recall_at_precision": {
            "100": recall_at_precision(precision, recall, 1.0),
            "99": recall_at_precision(precision, recall, 0.99),
        },
        "extended_precision": extended_precision(precision, recall),
        "curve": {
            "recall": recall[kept].tolist(),
            "precision": precision[kept].tolist(),
        },
    }
