"""The calibration of confidences against counts made by hand and by SciPy."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from sare_tf.runtime import sealed_json
from sare_tf.search import bound_file, calibration
from sare_tf.search.calibration import Calibration, Group
from sare_tf.search.estimate import Placing
from sare_tf.search.score_model import ScoreModel


def _calibration(groups, **changes):
    return dataclasses.replace(
        Calibration(
            export_fingerprint="model",
            index_digest="content",
            positive_radius_m=25.0,
            split="val",
            queries=sum(group.queries for group in groups),
            database=400,
            same_database=True,
            protocol="a positive is at most 25 m away",
            groups=groups,
        ),
        **changes,
    )


GROUPS = [
    Group(start=0.1, queries=30, right=3, absent=60),
    Group(start=0.3, queries=40, right=32, absent=36),
    Group(start=0.6, queries=30, right=30, absent=4),
]


@pytest.mark.parametrize(
    ("confidence", "right", "queries"),
    [
        (0.0, 3, 30),
        (0.1, 3, 30),
        (0.29, 3, 30),
        (0.3, 32, 40),
        (0.6, 30, 30),
        (1.0, 30, 30),
    ],
)
def test_an_answer_falls_into_its_group(confidence, right, queries):
    found = _calibration(GROUPS).reliability_at(confidence)
    assert found.right == right / queries
    assert found.queries == queries
    interval = scipy.stats.binomtest(right, queries).proportion_ci(
        0.95, method="wilson"
    )
    assert (found.low, found.high) == pytest.approx(tuple(interval), abs=1e-6)


def test_words_by_hand():
    # Wilson's interval of 32 of 40 is 0.652 to 0.895.
    found = _calibration(GROUPS).reliability_at(0.4)
    assert found.as_text() == (
        "right in 80 of 100 such cases (val, n = 40, 95 % interval 65 to 90)"
    )


@pytest.mark.parametrize(
    ("reject_below", "rejected"), [(0.0, 0), (0.1, 0), (0.5, 1), (0.9, 2)]
)
def test_rates_of_rejection_by_hand(reject_below, rejected):
    rates = _calibration(GROUPS).rejection(reject_below)
    # 65 right and 35 wrong answers, and 100 without their place.
    assert (rates.right, rates.wrong, rates.absent) == (65, 35, 100)
    assert rates.right_rejected == (0, 3, 35)[rejected]
    assert rates.wrong_accepted == (35, 8, 0)[rejected]
    assert rates.absent_accepted == (100, 40, 4)[rejected]


def test_rates_in_words():
    text = _calibration(GROUPS).rejection(0.5).as_text()
    assert "rejects 3 of 65 (5 %) right answers" in text
    assert "accepts 8 of 35 (23 %) wrong answers, and 40 of 100 (40 %)" in text
    nothing_wrong = _calibration([GROUPS[2]]).rejection(0.5).as_text()
    assert "accepts 0 of 0 wrong answers" in nothing_wrong


def _isotonic(right):
    """Least squares under an order, by a solver that knows no pooling."""
    right = np.asarray(right, float)
    steps = np.tril(np.ones((len(right), len(right))))
    # The first value is free, all steps are at least 0; values are below 1.
    found = scipy.optimize.lsq_linear(
        steps, right, bounds=(0, 1), tol=1e-14, max_iter=1000
    )
    return steps @ found.x


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_the_isotonic_regression(seed):
    rng = np.random.default_rng(seed)
    confidences = rng.permutation(np.linspace(0, 1, 200))
    right = rng.uniform(size=200) < 0.3 + 0.6 * confidences
    groups = calibration.group(confidences.tolist(), right.tolist(), [])
    assert sum(group.queries for group in groups) == 200
    # The regression of ten blocks of 20, each with the mean of its answers.
    blocks = right[np.argsort(confidences)].reshape(10, 20).mean(axis=1)
    fitted = [
        group.right / group.queries
        for group in groups
        for _ in range(group.queries // 20)
    ]
    np.testing.assert_allclose(fitted, _isotonic(blocks), atol=1e-6)
    assert np.all(np.diff([group.start for group in groups]) > 0)


def test_queries_of_one_confidence_are_in_one_group():
    # A cut after 20 would part the 30 queries of confidence 0.2.
    confidences = [0.1] * 5 + [0.2] * 30 + [0.9] * 25
    right = [False] * 5 + [True, False] * 15 + [True] * 25
    groups = calibration.group(confidences, right, [0.0, 0.2, 0.5, 0.95])
    assert groups == [
        Group(start=0.1, queries=5, right=0, absent=1),
        Group(start=0.2, queries=30, right=15, absent=2),
        Group(start=0.9, queries=25, right=25, absent=1),
    ]


def test_few_queries_are_one_group_and_fewer_are_refused():
    values = [number / 12 for number in range(12)]
    right = [True, False] * 6
    assert calibration.group(values, right, [2.0]) == [
        Group(start=0.0, queries=12, right=6, absent=1)
    ]
    with pytest.raises(ValueError, match="at least 10 answers. Received: 9"):
        calibration.group(values[:9], right[:9], [])


FITS = {
    "export_fingerprint": "model",
    "index_digest": "content",
    "positive_radius_m": 25.0,
}


def test_is_read_as_it_was_written(tmp_path):
    written = _calibration(GROUPS)
    assert calibration.read([tmp_path], **FITS) == (None, bound_file.ABSENT)
    written.write(tmp_path)
    assert calibration.read([tmp_path], **FITS) == (written, "")
    # One of several folders holds it.
    folders = [tmp_path / "none", tmp_path]
    assert calibration.read(folders, **FITS) == (written, "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"export_fingerprint": "other"}, "another model"),
        ({"index_digest": "other"}, "another content of the index"),
        ({"positive_radius_m": 10.0}, "another --positive_radius_m"),
    ],
)
def test_a_calibration_of_something_else_is_not_used(tmp_path, changes, words):
    _calibration(GROUPS).write(tmp_path)
    found, why = calibration.read([tmp_path], **{**FITS, **changes})
    assert found is None
    assert why == f"{tmp_path / 'calibration.json'} was made for {words}"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-9],
        lambda text: text.replace('"right": 32', '"right": 40'),
        lambda text: json.dumps({"groups": []}),
        lambda text: "[]",
        lambda text: "",
    ],
)
def test_a_damaged_calibration_is_not_used(tmp_path, damage):
    _calibration(GROUPS).write(tmp_path)
    path = tmp_path / "calibration.json"
    path.write_text(damage(path.read_text()))
    found, why = calibration.read([tmp_path], **FITS)
    assert found is None
    assert f"{path} is damaged (" in why


def test_says_what_it_was_measured_on():
    same = _calibration(GROUPS).describe()
    assert same.endswith("100 queries of val, compared with 400 images.")
    other = _calibration(GROUPS, same_database=False).describe()
    assert "400 images of val, not with those of this index" in other


def test_photographs_from_elsewhere_are_counted():
    scores = [number / 40 for number in range(40)]
    right = [number > 19 for number in range(40)]
    groups = calibration.group(
        scores, right, [0.1, 0.9], distractors=[0.0, 0.2, 0.6]
    )
    assert [one.distractors for one in groups] == [2, 1]
    rates = _calibration(groups).rejection(0.5)
    assert (rates.distractors, rates.distractors_accepted) == (3, 1)
    assert rates.as_text().endswith(
        "Of 3 distractors, it accepts 1 of 3 (33 %)."
    )
    assert rates.false_alarm_text == (
        "of photographs from elsewhere, 2 of 5 (40 %) are accepted (val and "
        "distractors)"
    )
    nothing = _calibration([Group(start=0, queries=9, right=9, absent=0)])
    text = nothing.rejection(0.5).false_alarm_text
    assert text == "false alarms were not measured"


MODEL = ScoreModel(
    names=["margin", "spread"],
    means=[0.5, -3.0],
    deviations=[0.2, 1.0],
    weights=[1.0, 2.0],
    bias=0.0,
)


def test_a_model_orders_answers_and_the_margin_does_without():
    scores = {"margin": 0.5, "spread": -1.0}
    assert _calibration(GROUPS).score(scores) == 0.5
    with_model = _calibration(GROUPS, model=MODEL)
    assert with_model.score(scores) == pytest.approx(1 / (1 + np.exp(-4)))
    # Without another place to compare with, there is no score.
    assert np.isnan(with_model.score({**scores, "margin": np.nan}))


def test_all_of_it_is_read_as_it_was_written(tmp_path):
    written = _calibration(
        GROUPS,
        model=MODEL,
        by_score={"margin": GROUPS, "spread": GROUPS[:1]},
        placing=Placing(method="mean", temperature=0.1, queries=9),
    )
    written.write(tmp_path)
    assert calibration.read([tmp_path], **FITS) == (written, "")
    assert written.reliability_at(0.4, name="spread").right == 0.1


def test_re_ranked_answers_have_a_file_of_their_own(tmp_path):
    plain = _calibration(GROUPS)
    reranked = _calibration(GROUPS[:2], ranking="sift homography 20 12 0.5")
    plain.write(tmp_path)
    reranked.write(tmp_path)
    assert calibration.read([tmp_path], **FITS) == (plain, "")
    fits = {**FITS, "ranking": reranked.ranking}
    assert calibration.read([tmp_path], **fits) == (reranked, "")
    fits["ranking"] = "sift homography 20 12 0.25"
    found, why = calibration.read([tmp_path], **fits)
    assert found is None
    assert why == (
        f"{tmp_path / 'calibration_rerank.json'} was made for another "
        "re-ranking"
    )


def test_a_file_of_an_earlier_version_is_of_the_margin(tmp_path):
    fields = dataclasses.asdict(_calibration(GROUPS))
    for name in ("model", "by_score", "placing", "ranking"):
        del fields[name]
    for group in fields["groups"]:
        del group["distractors"]
    sealed_json.write(tmp_path / "calibration.json", fields)
    found, _ = calibration.read([tmp_path], **FITS)
    assert found == _calibration(GROUPS)
    assert found.reliability_at(found.score({"margin": 0.7})).right == 1
