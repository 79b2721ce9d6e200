"""Precision, recall and calibration error against loops and by hand."""

import numpy as np
import pytest

from sare_tf.evaluation import placed_figures, separation


def _loops(scores, right, possible):
    """Precision and recall of each limit, from the strictest on."""
    points = []
    for limit in sorted(set(scores), reverse=True):
        accepted = [r for s, r in zip(scores, right, strict=True) if s >= limit]
        points.append((sum(accepted) / len(accepted), sum(accepted) / possible))
    return points


@pytest.mark.parametrize("seed", range(4))
def test_curves_by_loops(seed):
    rng = np.random.default_rng(seed)
    # Many scores are equal.
    scores = rng.integers(0, 12, 60) / 12
    right = rng.uniform(size=60) < scores
    possible = 55
    expected = _loops(scores.tolist(), right.tolist(), possible)
    precision, recall = separation.precision_recall(scores, right, possible)
    np.testing.assert_allclose(np.stack([precision, recall], 1), expected)
    area, before = 0.0, 0.0
    for share, of_all in expected:
        area += (of_all - before) * share
        before = of_all
    assert separation.average_precision(precision, recall) == pytest.approx(
        area
    )
    for least in (0.9, 0.99, 1.0):
        reached = [r for p, r in expected if p >= least]
        assert separation.recall_at_precision(
            precision, recall, least
        ) == pytest.approx(max(reached, default=0))


def test_figures_by_hand():
    # Accepted one after the other: right, right, wrong, right; 8 are possible.
    found = separation.figures(
        np.array([0.9, 0.8, 0.7, 0.6, np.nan]),
        np.array([True, True, False, True, False]),
        8,
    )
    assert found["average_precision"] == pytest.approx(1 / 8 * (1 + 1 + 0.75))
    assert found["recall_at_precision"] == {"100": 0.25, "99": 0.25}
    # The precision at the least recall is 1.
    assert found["extended_precision"] == (1 + 0.25) / 2
    assert found["curve"]["precision"] == pytest.approx(
        [1, 1, 2 / 3, 3 / 4, 3 / 5]
    )
    # The surest is wrong: no limit has a precision of 1.
    found = separation.figures(np.array([0.9, 0.8]), np.array([False, True]), 1)
    assert found["recall_at_precision"]["100"] == 0
    assert found["extended_precision"] == 0.5 / 2


def test_calibration_error_by_hand():
    stated = np.array([0.05, 0.15, 0.15, 1.0, 1.0])
    right = np.array([False, False, True, True, False])
    diagram = separation.reliability_diagram(stated, right)
    assert diagram == [
        {"stated": 0.05, "right": 0.0, "answers": 1},
        {"stated": 0.15, "right": 0.5, "answers": 2},
        {"stated": 1.0, "right": 0.5, "answers": 2},
    ]
    error = separation.expected_calibration_error(diagram)
    assert error == pytest.approx((0.05 + 2 * 0.35 + 2 * 0.5) / 5)


def test_the_interval_of_a_median_holds_it():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(60):
        drawn = rng.exponential(10, 80)
        low, high = placed_figures.median_interval(drawn)
        inside += low <= 10 * np.log(2) <= high
    assert inside > 50
