"""Means, intervals and groups against hand-made numbers and full listings."""

import itertools

import numpy as np
import pytest

from sare_tf.evaluation import summaries


def test_interval_equals_all_resamplings_of_three_queries():
    # 27 equally likely draws of three values, listed in full.
    values = np.array([0.0, 1.0, 5.0])
    means = [np.mean(draw) for draw in itertools.product(values, repeat=3)]
    expected = np.quantile(means, [0.1, 0.9])
    ends = summaries.interval(values[:, None], resamples=40000, confidence=0.8)
    np.testing.assert_allclose(ends[:, 0], expected, atol=1e-12)


def test_interval_of_a_share_is_the_binomial_one():
    values = np.zeros((400, 2))
    values[:80, 0] = values[:, 1] = 1
    ends = summaries.interval(values, resamples=4000)
    # 0.2 +- 1.96 sqrt(0.2 * 0.8 / 400) = 0.2 +- 0.0392
    np.testing.assert_allclose(ends[:, 0], [0.1608, 0.2392], atol=0.004)
    assert ends[:, 1].tolist() == [1, 1]


def test_interval_is_seeded_and_does_not_depend_on_blocks(monkeypatch):
    values = np.random.default_rng(1).random((50, 3))
    ends = summaries.interval(values)
    np.testing.assert_array_equal(ends, summaries.interval(values))
    assert (ends != summaries.interval(values, seed=1)).any()
    monkeypatch.setattr(summaries, "_DRAWN", 70)
    np.testing.assert_allclose(ends, summaries.interval(values), rtol=1e-14)


def test_interval_without_queries():
    with pytest.raises(ValueError, match=r"values.shape=\(0, 3\)"):
        summaries.interval(np.zeros((0, 3)))


def test_mcnemar_by_hand():
    first = np.array([1, 1, 1, 1, 1, 1, 0, 0, 1], bool)
    second = np.array([0, 0, 0, 0, 0, 1, 1, 0, 1], bool)
    # 5 against 1 of 6: 2 * (C(6,0) + C(6,1)) / 2^6 = 14 / 64.
    assert summaries.mcnemar(first, second) == {
        "only_first": 5,
        "only_second": 1,
        "p_value": pytest.approx(14 / 64),
    }
    assert summaries.mcnemar(first, first)["p_value"] == 1.0


def test_localisation_by_hand():
    metres = np.array(
        [[4.0, 1.0], [25.0, 90.0], [np.inf, 10.0], [60.0, 7.5], [np.nan] * 2]
    )
    found = summaries.localisation(metres, [1, 2])
    assert found["queries"] == 4
    assert found["median_m"] == (25 + 60) / 2
    assert found["within_m"] == {"5": 0.25, "10": 0.25, "25": 0.5, "50": 0.5}
    curves = found["recall_over_distance"]
    assert curves["metres"] == list(range(101))
    # First images at 4, 25, inf, 60 m; better of two at 1, 25, 10, 7.5 m.
    for at, first, best in ((3, 0, 1), (4, 1, 1), (8, 1, 2), (10, 1, 3)):
        assert curves["1"][at] == first / 4
        assert curves["2"][at] == best / 4
    assert (curves["1"][24], curves["1"][25], curves["1"][100]) == (
        0.25,
        0.5,
        0.75,
    )


def test_localisation_without_coordinates_or_near_images():
    assert summaries.localisation(np.full((3, 2), np.nan), [1]) is None
    found = summaries.localisation(np.full((3, 2), np.inf), [1])
    assert found["median_m"] is None


def test_breakdown_by_hand():
    groups = {
        "condition": np.array(["night", "day", "night", ""], object),
        "city": np.array(["one"] * 4, object),
        "heading": np.array(["W", "N", "E", "N"], object),
    }
    found = summaries.breakdown(groups, np.array([1, 2, 0, 1]), [1, 2])
    assert list(found) == ["condition", "heading"]
    assert list(found["condition"]) == ["day", "night"]
    assert found["condition"]["night"]["queries"] == 2
    assert found["condition"]["night"]["recall_at"] == {"1": 0.5, "2": 0.5}
    assert found["condition"]["night"]["recall_at_interval"]["1"] == [0, 1]
    assert found["condition"]["day"]["recall_at"] == {"1": 0.0, "2": 1.0}
    assert list(found["heading"]) == ["N", "E", "W"]


def test_compass():
    headings = np.array([0, 22, 23, 90, 337, 338, 359.9, -45, 180, np.nan])
    assert summaries.compass(headings).tolist() == [
        *("N", "N", "NE", "E", "NW", "N", "N", "NW", "S", "")
    ]


def test_reliability_by_hand():
    # 25 queries of confidence 0, 0.04, ... in mixed order, and 2 without one:
    # 2 parts of 13 and 12. Right are those from 0.4 on, numbers 10 to 24.
    confidence = np.arange(25) / 25
    right = np.arange(25) >= 10
    order = np.random.default_rng(0).permutation(25)
    parts = summaries.reliability(
        np.append(confidence[order], [np.nan, np.nan]),
        np.append(right[order], [False, True]),
    )
    assert parts == [
        {"from": 0.0, "to": 12 / 25, "queries": 13, "right": 3 / 13},
        {"from": 13 / 25, "to": 24 / 25, "queries": 12, "right": 1.0},
    ]
    many = summaries.reliability(np.zeros(500), np.ones(500, bool))
    assert [part["queries"] for part in many] == [100] * 5
    (few,) = summaries.reliability(np.zeros(3), np.ones(3, bool))
    assert few["queries"] == 3
    assert summaries.reliability(np.full(3, np.nan), np.ones(3, bool)) == []
