"""Figures against hand-made numbers and loops from their definitions."""

import math

import numpy as np
import pytest

from sare_tf.evaluation import metrics


def test_first_rank_and_within_by_hand():
    hits = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]], bool)
    assert metrics.first_rank(hits).tolist() == [2, 1, 0]
    assert metrics.within([2, 1, 0], [1, 2]).tolist() == [
        [False, True],
        [True, True],
        [False, False],
    ]


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        # All first: every precision is 1.
        ([1, 2, 3], 1.0),
        # Precision before rank 2 is 0 of 1, at it 1 of 2: 1 * (0 + 1/2) / 2.
        ([2], 0.25),
        # 1/2 * (1 + 1) / 2, then before rank 4 1 of 3, at it 2 of 4:
        # 1/2 * (1/3 + 1/2) / 2. Sum 1/2 + 5/24 = 17/24.
        ([1, 4], 17 / 24),
        # In any order.
        ([4, 1], 17 / 24),
        # Before and at rank 3: 0 of 2, 1 of 3; at 4: 1 of 3, 2 of 4; at 10:
        # 2 of 9, 3 of 10; each pair counts half of a third.
        ([3, 4, 10], (1 / 3 + 1 / 3 + 1 / 2 + 2 / 9 + 3 / 10) / 6),
    ],
)
def test_average_precision_by_hand(ranks, expected):
    assert metrics.average_precision(np.array(ranks)) == pytest.approx(
        expected, abs=1e-15
    )


def test_average_precision_is_no_mean_of_precisions():
    # That mean would be (1 + 2/4) / 2 = 3/4.
    assert metrics.average_precision(np.array([1, 4])) < 0.75
    assert math.isnan(metrics.average_precision(np.array([], int)))


@pytest.mark.parametrize(
    ("ranks", "k", "expected"),
    [
        ([1, 3], 1, 1.0),
        # Two of the first five; the last positive is at 3: two of three.
        ([1, 3], 5, 2 / 3),
        ([2, 8], 5, 1 / 5),
        ([7, 8], 5, 0.0),
    ],
)
def test_precision_at_by_hand(ranks, k, expected):
    assert metrics.precision_at(np.array(ranks), k) == pytest.approx(expected)


def test_precision_without_positives():
    assert math.isnan(metrics.precision_at(np.array([], int), 5))


def test_average_precision_at_by_hand():
    hits = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
    counts = np.array([2, 5, 9, 0])
    found = metrics.average_precision_at(hits.astype(bool), counts, 3)
    # (1/1 + 2/3) / 2; none of the first three; 3 of min(9, 3); no positive.
    np.testing.assert_allclose(found[:3], [5 / 6, 0, 1])
    assert math.isnan(found[3])
    found = metrics.average_precision_at(hits.astype(bool), counts, 4)
    np.testing.assert_allclose(found[:3], [5 / 6, 1 / 4 / 4, 1])


def test_recall_by_hand():
    neighbours = np.array([[4, 0, 1], [2, 3, 4], [1, 0, 2], [0, 1, 2]])
    positives = [np.array([4]), np.array([0, 4]), np.array([9]), np.array([])]
    # First query: right at 1; second: at 3; third: never; fourth: has none.
    assert metrics.recall_at(neighbours, positives, [1, 2, 3]) == {
        1: 1 / 4,
        2: 1 / 4,
        3: 2 / 4,
    }
    np.testing.assert_array_equal(
        metrics.hits(neighbours, positives),
        [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]],
    )


def test_a_missing_neighbour_is_no_hit():
    assert not metrics.hits(np.array([[-1, -1]]), [np.array([0, 5])]).any()


def test_recall_refuses_bad_input():
    neighbours, positives = np.zeros((1, 3), int), [np.array([0])]
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"from 1 to 3.*Received: {k}"):
            metrics.recall_at(neighbours, positives, [1, k])
    with pytest.raises(ValueError, match=r"len\(positives\)=1"):
        metrics.recall_at(np.zeros((2, 3), int), positives, [1])
    with pytest.raises(ValueError, match=r"at least one query"):
        metrics.recall_at(np.zeros((0, 3), int), [], [1])


def test_hits_equal_a_loop():
    rng = np.random.default_rng(0)
    neighbours = rng.integers(-1, 30, (40, 12))
    positives = [rng.permutation(35)[: rng.integers(0, 9)] for _ in range(40)]
    expected = [
        [row >= 0 and row in some.tolist() for row in line]
        for line, some in zip(neighbours, positives, strict=True)
    ]
    np.testing.assert_array_equal(metrics.hits(neighbours, positives), expected)
