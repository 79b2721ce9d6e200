"""Re-ranking: the combination, its calibration, and `evaluate --rerank`."""

import json
import shutil

import numpy as np
import pytest
import rerank_world

from sare_tf import evaluate, index
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.local_features import combination
from sare_tf.local_features.combination import Combination
from sare_tf.search import rerank_file
from sare_tf.search.options import IndexOptions

LOCAL = {"local_count": 200, "local_side": 128}


def test_the_order_is_that_of_a_loop():
    """Squared distance - weight * log(inliers / threshold), at least 0."""
    rng = np.random.default_rng(0)
    distances = np.sort(rng.uniform(0, 2, (30, 7)), axis=1)
    inliers = rng.integers(0, 40, (30, 7))
    combined = Combination(threshold=12, weight=0.3)
    order = combined.order(distances, inliers)
    moved = 0
    for query in range(30):
        values = []
        for candidate in range(7):
            value = distances[query, candidate]
            if inliers[query, candidate] > 12:
                value -= 0.3 * np.log(inliers[query, candidate] / 12)
            values.append(value)
        expected = sorted(range(7), key=values.__getitem__)
        assert order[query].tolist() == expected
        moved += expected != list(range(7))
    assert 5 < moved


def test_without_evidence_the_old_order_stays():
    distances = np.sort(np.random.default_rng(1).uniform(0, 2, (4, 9)), 1)
    inliers = np.random.default_rng(2).integers(0, 13, (4, 9))
    order = Combination(threshold=12, weight=1e9).order(distances, inliers)
    assert (order == np.arange(9)).all()
    distances[:, 5:] = np.inf
    order = Combination(threshold=2, weight=1e9).order(distances, inliers)
    assert (np.sort(order[:, -4:], axis=1) == np.arange(5, 9)).all()


def _simulated(rng, *, right, wrong, queries=300):
    """One right candidate of 10 at any rank; inliers are Poisson."""
    distances = np.sort(rng.uniform(0.5, 1.5, (queries, 10)), axis=1)
    place = rng.integers(0, 10, queries)
    place[rng.random(queries) < 0.4] = 0
    hits = np.arange(10) == place[:, None]
    inliers = np.where(hits, rng.poisson(right, hits.shape), 0)
    return (
        distances,
        np.where(hits, inliers, rng.poisson(wrong, hits.shape)),
        (hits),
    )


def test_calibration_uses_evidence_and_ignores_chance():
    rng = np.random.default_rng(3)
    useful = combination.calibrate(*_simulated(rng, right=50, wrong=8))
    assert useful.recall_after > 0.99 > 0.6 > useful.recall_before
    # Wrong images never reach it, right ones always do.
    assert 12 <= useful.combination.threshold <= 40
    chance = combination.calibrate(*_simulated(rng, right=9, wrong=9))
    assert chance.recall_after >= chance.recall_before
    # A right image has fewer inliers than wrong ones: geometry is ignored.
    misleading = _simulated(rng, right=5, wrong=40)
    ignored = combination.calibrate(*misleading)
    assert ignored.recall_after == ignored.recall_before
    assert (ignored.combination.order(*misleading[:2]) == np.arange(10)).all()


@pytest.mark.parametrize(
    ("gained", "lost", "counts"),
    # Gains of 1.3 and 0.7 standard errors, of 0.5 / rank for each query.
    [(14, 8, True), (12, 9, False)],
)
def test_a_gain_counts_above_its_standard_error(gained, lost, counts):
    distances = np.tile([0.5, 1.5], (100, 1))
    inliers = np.zeros((100, 2), int)
    inliers[: gained + lost, 1] = 200
    hits = np.tile([True, False], (100, 1))
    hits[:gained] = [False, True]
    found = combination.calibrate(distances, inliers, hits)
    assert (found.combination.weight > 0) == counts
    assert found.recall_after - found.recall_before == pytest.approx(
        (gained - lost) / 100 if counts else 0
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An index of the split test, with RootSIFT beside it."""
    return rerank_world.build(
        tmp_path_factory.mktemp("world"), local_features="rootsift", **LOCAL
    )


def _evaluate(world, out, **options):
    options = {"rerank": "rootsift", "rerank_top": 10, **LOCAL, **options}
    path = evaluate.run(EvaluationOptions(**world, evaluation=out, **options))
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def evaluated(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated") / "evaluation"
    return out, _evaluate(world, out)


def test_geometry_finds_what_descriptors_do_not(world, evaluated, tmp_path):
    out, metrics = evaluated
    plain = _evaluate(world, tmp_path / "plain", rerank=None)
    assert "rerank" not in plain
    without = metrics["without_rerank"]
    assert without["recall_at"] == plain["recall_at"]
    assert plain["recall_at"]["1"] < 0.7
    # Every place that is among the first 10 is found.
    assert metrics["recall_at"]["1"] == plain["recall_at"]["10"]
    assert metrics["recall_at"]["10"] == plain["recall_at"]["10"]
    figures = metrics["rerank"]
    # Of images of other places, none has as many inliers.
    assert figures["recall_at_by_inliers"] == metrics["recall_at"]
    gained = metrics["recall_at"]["1"] - plain["recall_at"]["1"]
    assert figures["made_right"] - figures["made_wrong"] == round(gained * 12)
    assert figures["measured_on"]["queries"] == 12
    assert all(value > 0 for value in figures["ms_per_query"].values())
    page = (out / "report.html").read_text()
    assert page.count("became first, right") == min(figures["made_right"], 6)
    assert page.count('class="match-line"') >= 6 * 5


def test_it_is_kept_in_the_index_for_the_same_settings(world, evaluated):
    written = json.loads((world["index"] / rerank_file.NAME).read_text())
    bound_to = {name: written[name] for name in rerank_file._WORDS}
    calibrated, why_not = rerank_file.read([world["index"]], bound_to=bound_to)
    assert why_not == ""
    figures = evaluated[1]["rerank"]
    assert calibrated.combination.threshold == figures["threshold"]
    assert calibrated.combination.weight == figures["weight"]
    for name, words in rerank_file._WORDS.items():
        found, why_not = rerank_file.read(
            [world["index"]], bound_to={**bound_to, name: "other"}
        )
        assert found is None
        assert why_not.endswith(f"was made for another {words}")


def test_features_that_are_not_stored_are_computed(world, evaluated, tmp_path):
    plain = {**world, "index": tmp_path / "index"}
    shutil.copytree(world["index"], plain["index"])
    shutil.rmtree(plain["index"] / "local_features")
    metrics = _evaluate(plain, tmp_path / "evaluation")
    assert metrics["recall_at"] == evaluated[1]["recall_at"]
    assert (
        metrics["rerank"]["made_right"]
        == (evaluated[1]["rerank"]["made_right"])
    )


def test_other_features_than_the_stored_ones_are_refused(world, tmp_path):
    with pytest.raises(ValueError, match="200 of an image, with fingerprint"):
        _evaluate(world, tmp_path / "evaluation", local_count=100)
    assert not (tmp_path / "evaluation").exists()


def test_without_validation_queries_it_says_so(tmp_path, caplog):
    world = rerank_world.build(tmp_path / "world", splits=("test",))
    metrics = _evaluate(world, tmp_path / "evaluation", recall_at=(1,))
    assert metrics["rerank"]["measured_on"] is None
    assert "they are not measured on your photographs" in caplog.text
    assert not (world["index"] / rerank_file.NAME).exists()
    before = metrics["without_rerank"]["recall_at"]["1"]
    assert metrics["recall_at"]["1"] > before + 0.3
    assert "too few queries of the split val" in (
        (tmp_path / "evaluation" / "report.html").read_text()
    )


def test_an_index_with_its_files_is_compacted(world, tmp_path):
    """Neither file of re-ranking keeps an index from being replaced."""
    copy = tmp_path / "index"
    shutil.copytree(world["index"], copy)
    (copy / rerank_file.NAME).write_text("{}")
    index.run(IndexOptions(index=copy, compact=True))
