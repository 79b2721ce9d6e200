"""The model of scores against a general optimiser, and by hand."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.optimize

from sare_tf.evaluation import score_fitting
from sare_tf.search.score_model import ScoreModel


def _answers(seed=0, count=300):
    rng = np.random.default_rng(seed)
    margin, distance = rng.normal(size=(2, count)) * [[0.1], [3.0]]
    chance = 1 / (1 + np.exp(-(20 * margin + 0.2 * distance + 0.5)))
    right = rng.uniform(size=count) < chance
    return {"margin": margin, "distance": distance - 7}, right


def test_newton_finds_the_minimum():
    scores, right = _answers(count=100)
    features = [(one - one.mean()) / one.std() for one in scores.values()]

    def loss(weights):
        total = 0.0
        for query, is_right in enumerate(right):
            value = weights[-1] + sum(
                w * one[query]
                for w, one in zip(weights[:-1], features, strict=True)
            )
            share = 1 / (1 + math.exp(-value))
            total -= math.log(share if is_right else 1 - share)
        return (
            total + sum(w**2 for w in weights[:-1]) / 2 + weights[-1] ** 2 / 200
        )

    expected = scipy.optimize.minimize(loss, np.zeros(3), tol=1e-10).x
    model = score_fitting.fit(scores, right)
    assert [*model.weights, model.bias] == pytest.approx(expected, abs=1e-3)
    assert model.names == ["margin", "distance"]
    # What was drawn: the margin says more, and both say something.
    assert model.weights[0] > model.weights[1] > 0


@pytest.mark.parametrize("right", ["separated", "all", "none"])
def test_weights_stay_finite(right):
    scores, _ = _answers()
    labels = {
        "separated": scores["margin"] > 0,
        "all": np.ones(300, bool),
        "none": np.zeros(300, bool),
    }[right]
    model = score_fitting.fit(scores, labels)
    values = score_fitting.apply(model, scores)
    assert np.isfinite([*model.weights, model.bias]).all()
    assert ((values > 0.5) == labels).mean() > 0.97


def test_what_says_nothing_is_left_out():
    scores, right = _answers()
    scores["spread"] = np.full(300, np.nan)
    scores["inliers"] = np.full(300, 2.0)
    assert score_fitting.fit(scores, right).names == ["margin", "distance"]


def test_an_unknown_score_counts_as_the_mean():
    model = ScoreModel(
        names=["margin", "spread"],
        means=[0.5, -3.0],
        deviations=[0.25, 2.0],
        weights=[2.0, 1.0],
        bias=-1.0,
    )
    # -1 + 2 * (0.75 - 0.5) / 0.25 + (-1 + 3) / 2 = 2
    assert model({"margin": 0.75, "spread": -1}) == pytest.approx(
        1 / (1 + math.exp(-2))
    )
    expected = 1 / (1 + math.exp(-1))
    assert model({"margin": 0.75}) == pytest.approx(expected)
    assert model({"margin": 0.75, "spread": math.nan}) == pytest.approx(
        expected
    )
    assert model({"margin": -1e9}) == 0
    assert model({"margin": 1e9}) == 1


def test_answers_of_a_fold_are_not_seen():
    scores, right = _answers()
    folds = np.arange(300) % 3
    values = score_fitting.out_of_fold(scores, right, folds)
    for fold in range(3):
        others = folds != fold
        model = score_fitting.fit(
            {name: one[others] for name, one in scores.items()}, right[others]
        )
        own = {name: one[~others] for name, one in scores.items()}
        assert values[~others] == pytest.approx(score_fitting.apply(model, own))


def test_json_and_back():
    scores, right = _answers()
    model = score_fitting.fit(scores, right)
    assert ScoreModel.from_json(dataclasses.asdict(model)) == model
    assert ScoreModel.from_json(None) is None
    for changes in ({"names": ["margin"]}, {"names": ["margin", "guess"]}):
        with pytest.raises(ValueError, match="holds no model of scores"):
            ScoreModel.from_json({**dataclasses.asdict(model), **changes})
