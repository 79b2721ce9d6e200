"""How sure answers are, and how far their positions: figures of an evaluation.

Each score of `score_model.SCORES`, and the one that a calibration makes of
them, orders the answers. Answers to photographs from elsewhere, and to queries
without a right image, are wrong.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sare_tf.evaluation import placed_figures, separation
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.search import confidence, placing
from sare_tf.search.answer_scores import Found, Scorer
from sare_tf.search.calibration import Calibration
from sare_tf.search.estimate import METHODS, Placing
from sare_tf.search.score_model import COMBINED

# Ours: limits of --reject_below whose costs are reported.
LIMITS = (0.5, 0.8, 0.9, 0.95, 0.99)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doubt:
    """What an evaluation says of doubt and of positions.

    Args:
        figures: for metrics.json: `doubt` and `placing`.
        columns: [Q] by name, for queries.csv.
    """

    figures: dict[str, Any]
    columns: dict[str, np.ndarray]


def measure(
    results: QueryResults,
    found: Found,
    elsewhere: Found | None,
    *,
    calibration: Calibration | None,
    radius_m: float,
) -> Doubt:
    """Measures doubt and positions on the queries of an evaluation.

    Args:
        results: of Q queries.
        found: their images, in the same order.
        elsewhere: those of photographs from elsewhere; None without any.
        calibration: of the index; None: the single scores only.
        radius_m: images at most this far apart show the same place.
    """
    positions = placing.PositionMap(results.database, radius_m=radius_m)
    learned = calibration.placing if calibration else None
    used = learned or Placing()
    scorer = Scorer(
        confidence.Places(results.database, radius_m=radius_m),
        positions,
        used.temperature,
    )
    count = len(results.database)
    scores = scorer(found, count=count)
    others = {name: np.zeros(0) for name in scores}
    if elsewhere is not None:
        others = scorer(elsewhere, count=count)
    if calibration is not None:
        for one in (scores, others):
            one[COMBINED] = _combined(calibration, one)
    placed = scorer.place(found)
    truth = positions.in_zone_of(placed.anchors, results.queries)
    counted = results.truth.counted
    columns = {
        f"{method}_error_m": placed_figures.errors_m(placed, truth, method)
        for method in METHODS
    }
    if calibration is not None:
        columns["score"] = scores[COMBINED]
        columns["stated_right"] = _stated(calibration, COMBINED, scores)
    return Doubt(
        figures={
            "doubt": _doubt(results, scores, others, calibration),
            "placing": placed_figures.figures(
                placed.take(counted),
                truth[counted],
                results.queries[counted],
                used,
            ),
        },
        columns=columns,
    )


def _doubt(
    results: QueryResults,
    scores: Mapping[str, np.ndarray],
    others: Mapping[str, np.ndarray],
    calibration: Calibration | None,
) -> dict[str, Any]:
    right = results.ranks == 1
    possible = int((results.positive_counts > 0).sum())
    num_others = len(others["margin"])
    is_right = np.concatenate([right, np.zeros(num_others, bool)])
    rows = {}
    for name, values in scores.items():
        # Such as the spread of places without positions.
        if not np.isfinite(values).any():
            continue
        every = np.concatenate([values, others[name]])
        rows[name] = {
            **separation.figures(every, is_right, possible),
            **_reliability(results, name, scores, calibration),
        }
    return {
        "answers": {
            "right": int(right.sum()),
            "wrong": int((~right & (results.positive_counts > 0)).sum()),
            "without_positive": len(right) - possible,
            "distractors": num_others,
        },
        "calibrated_on": calibration
        and {
            "split": calibration.split,
            "queries": calibration.queries,
            "same_database": calibration.same_database,
        },
        "scores": rows,
        "rejection": []
        if calibration is None
        else [
            _rejection(results, scores, others, calibration, limit)
            for limit in LIMITS
        ],
    }


def _combined(
    calibration: Calibration, scores: Mapping[str, np.ndarray]
) -> np.ndarray:
    """The score that a calibration makes of each answer."""
    answers = zip(*scores.values(), strict=True)
    return np.array(
        [
            calibration.score(dict(zip(scores, one, strict=True)))
            for one in answers
        ],
        np.float64,
    )


def _stated(
    calibration: Calibration, name: str, scores: Mapping[str, np.ndarray]
) -> np.ndarray:
    """The share of right answers that is stated with each, NaN for none."""
    return np.array(
        [
            math.nan
            if math.isnan(value)
            else calibration.reliability_at(value, name=name).right
            for value in scores[name].tolist()
        ]
    )


def _reliability(
    results: QueryResults,
    name: str,
    scores: Mapping[str, np.ndarray],
    calibration: Calibration | None,
) -> dict[str, Any]:
    """Stated and true shares of right answers, of queries that count."""
    none = {"expected_calibration_error": None, "reliability": []}
    if calibration is None:
        return none
    if name != COMBINED and name not in calibration.by_score:
        return none
    stated = _stated(calibration, name, scores)
    known = results.truth.counted & np.isfinite(stated)
    if not known.any():
        return none
    diagram = separation.reliability_diagram(
        stated[known], (results.ranks == 1)[known]
    )
    return {
        "expected_calibration_error": separation.expected_calibration_error(
            diagram
        ),
        "reliability": diagram,
    }


def _rejection(
    results: QueryResults,
    scores: Mapping[str, np.ndarray],
    others: Mapping[str, np.ndarray],
    calibration: Calibration,
    limit: float,
) -> dict[str, Any]:
    """What `--reject_below` does to these answers, and did to those of val."""
    # An answer of which nothing is known is not rejected.
    rejected = _stated(calibration, COMBINED, scores) < limit
    accepted = ~(_stated(calibration, COMBINED, others) < limit)
    right, has_right = results.ranks == 1, results.positive_counts > 0
    return {
        "reject_below": limit,
        "right_rejected": int((right & rejected).sum()),
        "right": int(right.sum()),
        "wrong_accepted": int((~right & has_right & ~rejected).sum()),
        "wrong": int((~right & has_right).sum()),
        "without_positive_accepted": int((~has_right & ~rejected).sum()),
        "without_positive": int((~has_right).sum()),
        "distractors_accepted": int(accepted.sum()),
        "distractors": len(accepted),
        "stated": dataclasses.asdict(calibration.rejection(limit)),
    }
