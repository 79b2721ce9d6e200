"""The methods for sequences against loops from their definitions."""

import itertools

import numpy as np
import pytest
import toy_search

from sare_tf.dataset import manifest
from sare_tf.sequences import bayes_filter, differences, motion
from sare_tf.sequences.bayes_filter import BayesFilter
from sare_tf.sequences.clips import Clips
from sare_tf.sequences.options import METHODS, SequenceOptions
from sare_tf.sequences.sequence_search import SequenceSearch
from sare_tf.sequences.trajectories import Trajectories, velocities

rng = np.random.default_rng


def _clips(seed=0, sizes=(7, 1, 12, 4)):
    """Clips with irregular frames, whose rows are in no order."""
    random = rng(seed)
    rows = random.permutation(sum(sizes))
    frames = [
        np.cumsum(random.integers(1, 3, size)).astype(float) for size in sizes
    ]
    rows = np.split(rows, np.cumsum(sizes)[:-1])
    return Clips.made_of(list(zip(rows, frames, strict=True)), 0)


def test_distances_and_local_contrast():
    found = _clips()
    queries, database = toy_search.unit(1, 5, 6), toy_search.unit(2, 24, 6)
    far = differences.distances(queries, database, found.order)
    contrast = differences.local_contrast(far, found.spans(), 4)
    for t, n in itertools.product(range(5), range(24)):
        expected = np.linalg.norm(queries[t] - database[found.order[n]])
        assert far[t, n] == pytest.approx(expected, abs=1e-6)
        span = next(s for s in found.spans() if s.start <= n < s.stop)
        around = [
            float(far[t, other])
            for other in range(n - 2, n + 3)
            if span.start <= other < span.stop
        ]
        expected = 0.0
        if len(around) > 1:
            deviation = np.std(around, ddof=1)
            expected = (far[t, n] - np.mean(around)) / deviation
        assert contrast[t, n] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("ends", [(0.8, 1.2), (-1.5, 0.5)])
def test_trajectories(ends):
    found = _clips()
    far = rng(3).uniform(0, 2, (4, 24)).astype(np.float32)
    frames = np.array([-3.0, -1, 0, 2])
    tried = velocities(*ends, 0.1)
    assert tried[[0, -1]] == pytest.approx(ends)
    scores = Trajectories(found, tried)(far, frames)
    outside = 0
    for span in found.spans():
        own = found.frames[span]
        step = np.median(np.diff(own)) if len(own) > 1 else 1
        for n in range(len(own)):
            best = np.inf
            for velocity in tried:
                total = 0.0
                for t in range(4):
                    wanted = own[n] + velocity * frames[t]
                    off = max(own[0] - wanted, wanted - own[-1])
                    if off > step / 2:
                        total += float(far[t].max())
                        outside += 1
                    else:
                        nearest = min(
                            range(len(own)), key=lambda i: abs(own[i] - wanted)
                        )
                        total += float(far[t, span.start + nearest])
                best = min(best, total / 4)
            assert scores[span.start + n] == pytest.approx(best, abs=1e-5)
    assert 0 < outside < 24 * 4 * len(tried)


def _motion_by_frame(found, window):
    matrix = np.zeros((24, 24))
    for span in found.spans():
        last = span.stop - span.start - 1
        for n in range(last + 1):
            ends = [min(max(n + w, 0), last) for w in window]
            reached = range(ends[0], ends[1] + 1)
            for other in reached:
                matrix[span.start + n, span.start + other] = 1 / len(reached)
    return matrix


@pytest.mark.parametrize("window", [(-2, 9), (1, 3), (0, 0)])
def test_motion_by_frame(window):
    found = _clips()
    matrix = motion.by_frame(found.spans(), window).toarray()
    np.testing.assert_allclose(matrix, _motion_by_frame(found, window), 1e-6)


def test_motion_by_metres():
    positions = rng(4).uniform(0, 60, (24, 2))
    positions[3] = np.nan
    grids = np.array(["17 north"] * 20 + ["18 north"] * 4, object)
    matrix = motion.by_metres(positions, grids, 8.0).toarray()
    for i in range(24):
        weights = np.zeros(24)
        weights[i] = 1
        for j in range(24):
            metres = np.linalg.norm(positions[i] - positions[j])
            if i != j and grids[i] == grids[j] and metres <= 24:
                weights[j] = np.exp(-(metres**2) / (2 * 8.0**2))
        np.testing.assert_allclose(matrix[i], weights / weights.sum(), 1e-5)
    assert (matrix > 0).sum() > 60


def _filtered(likelihood, matrix, jump):
    """Beliefs at the last query, by sums over paths one step at a time."""
    belief = likelihood[0] / likelihood[0].sum()
    for t in range(1, len(likelihood)):
        moved = np.zeros_like(belief)
        for i, j in itertools.product(range(len(belief)), repeat=2):
            chance = (1 - jump) * matrix[i, j] + jump / len(belief)
            moved[j] += chance * belief[i]
        belief = moved * likelihood[t]
        belief /= belief.sum()
    return belief


def _smoothed(likelihood, matrix, jump, centre):
    """The marginal of the centre over all paths, by enumeration."""
    count = likelihood.shape[1]
    chance = (1 - jump) * matrix + jump / count
    belief = np.zeros(count)
    for path in itertools.product(range(count), repeat=len(likelihood)):
        weight = likelihood[0, path[0]] / count
        for t in range(1, len(path)):
            weight *= chance[path[t - 1], path[t]] * likelihood[t, path[t]]
        belief[path[centre]] += weight
    return belief / belief.sum()


def _likelihoods(far, ratio):
    likelihood = np.empty(far.shape)
    for t, of_query in enumerate(np.asarray(far, np.float64)):
        low, high = np.quantile(of_query, [0.025, 0.975])
        likelihood[t] = np.exp(-np.log(ratio) / (high - low) * of_query)
    return likelihood


@pytest.mark.parametrize("jump", [0.0, 0.1])
def test_filter_of_windows_of_several_lengths(jump):
    found = _clips()
    far = rng(5).uniform(0, 2, (6, 24)).astype(np.float32)
    evidence = bayes_filter.likelihoods(far, 5.0)
    model = motion.by_frame(found.spans(), (-1, 2))
    first, last = np.array([0, 0, 2, 5]), np.array([0, 3, 4, 5])
    beliefs = BayesFilter(model, jump=jump).filter(evidence, first, last)
    for belief, a, b in zip(beliefs, first, last, strict=True):
        expected = _filtered(
            _likelihoods(far[a : b + 1], 5.0), model.toarray(), jump
        )
        np.testing.assert_allclose(belief, expected, rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("jump", [0.0, 0.1])
def test_smoothing_is_the_marginal_over_all_paths(jump):
    rows, frames = np.arange(6), np.arange(4.0)
    found = Clips.made_of([(rows[:4], frames), (rows[4:], frames[:2])], 0)
    far = rng(6).uniform(0, 2, (5, 6)).astype(np.float32)
    evidence = bayes_filter.likelihoods(far, 20.0)
    model = motion.by_frame(found.spans(), (0, 1))
    windows = {"first": [0, 0, 2, 4], "centre": [0, 2, 3, 4]}
    windows = {name: np.array(rows) for name, rows in windows.items()}
    last = np.array([3, 3, 4, 4])
    beliefs = BayesFilter(model, jump=jump).smooth(
        evidence, **windows, last=last
    )
    for belief, a, c, b in zip(beliefs, *windows.values(), last, strict=True):
        expected = _smoothed(
            _likelihoods(far[a : b + 1], 20.0), model.toarray(), jump, c - a
        )
        np.testing.assert_allclose(belief, expected, rtol=2e-4, atol=1e-7)


def test_equal_distances_say_nothing():
    far = np.full((2, 9), 0.7, np.float32)
    np.testing.assert_array_equal(bayes_filter.likelihoods(far, 5.0), 1)


def _drives(noise, seed=7):
    """Two drives of 40 places; queries are the first one again, with noise."""
    random = rng(seed)
    places = random.normal(size=(80, 16))
    queries = places[:40] + noise * random.normal(size=(40, 16))
    both = [
        (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32)
        for v in (places, queries)
    ]
    database = manifest.make(
        image_id=[f"{'ab'[n // 40]}/{n}.jpg" for n in range(80)]
    )
    asked = manifest.make(image_id=[f"q/{n}.jpg" for n in range(40)])
    return database, *both, asked


@pytest.mark.parametrize("method", ["smoothing", "filter", "seqslam"])
@pytest.mark.parametrize("contrast", [0, 10])
def test_sequences_find_what_single_frames_do_not(method, contrast):
    database, vectors, queries, asked = _drives(noise=1.6)
    # Rows in no order; the answer must not depend on it.
    shuffled = rng(8).permutation(80)
    options = SequenceOptions(
        sequence_length=9,
        sequence_method=method,
        sequence_contrast=contrast,
        sequence_window=(1, 1),
    )
    search = SequenceSearch(
        vectors[shuffled],
        database.iloc[shuffled],
        options,
        radius_m=25.0,
    )
    found = search(queries, Clips.of(asked), 3)
    right = shuffled[found.rows[:, 0]] == np.arange(40)
    single = (queries @ vectors.T).argmax(axis=1) == np.arange(40)
    assert single.mean() < 0.6
    assert right.mean() > 0.9 if method != "filter" else right.mean() > 0.8
    assert (np.diff(found.costs, axis=1) >= 0).all()
    assert (found.probability > 0).all()
    assert (found.probability <= 1 + 1e-5).all()


def test_average_is_the_mean_descriptor_of_the_window():
    database, vectors, queries, asked = _drives(noise=0.5)
    options = SequenceOptions(sequence_length=3, sequence_method="average")
    search = SequenceSearch(vectors, database, options, radius_m=25.0)
    found = search(queries, Clips.of(asked), 80)
    for q in (0, 17, 39):
        total = queries[max(q - 1, 0) : q + 2].sum(axis=0)
        far = np.linalg.norm(total / np.linalg.norm(total) - vectors, axis=1)
        np.testing.assert_allclose(found.costs[q], np.sort(far), atol=1e-5)
        np.testing.assert_allclose(
            far[found.rows[q]], found.costs[q], atol=1e-5
        )


def test_a_sequence_of_one_image_is_plain_retrieval():
    database, vectors, queries, asked = _drives(noise=1.0)
    nearest = (queries @ vectors.T).argmax(axis=1)
    for method in METHODS:
        options = SequenceOptions(sequence_length=1, sequence_method=method)
        search = SequenceSearch(vectors, database, options, radius_m=25.0)
        found = search(queries, Clips.of(asked), 1)
        np.testing.assert_array_equal(found.rows[:, 0], nearest)


@pytest.mark.parametrize("method", METHODS)
def test_blocks_of_queries_change_nothing(monkeypatch, method):
    database, vectors, queries, asked = _drives(noise=1.0)
    options = SequenceOptions(sequence_length=5, sequence_method=method)
    search = SequenceSearch(vectors, database, options, radius_m=25.0)
    whole = search(queries, Clips.of(asked), 4)
    monkeypatch.setattr("sare_tf.sequences.sequence_search._BLOCK", 3 * 80)
    parts = search(queries, Clips.of(asked), 4)
    np.testing.assert_array_equal(whole.rows, parts.rows)
    np.testing.assert_allclose(whole.costs, parts.costs, rtol=1e-4)
    np.testing.assert_allclose(whole.probability, parts.probability, 1e-4)


def test_the_probability_is_that_of_the_place():
    """Of two clips with the same descriptors, either has half of it."""
    vectors = np.tile(toy_search.unit(9, 5, 8), (2, 1))
    database = manifest.make(
        image_id=[f"{'ab'[n // 5]}/{n}.jpg" for n in range(10)]
    )
    asked = manifest.make(image_id=[f"q/{n}.jpg" for n in range(5)])
    options = SequenceOptions(
        sequence_length=5,
        sequence_method="smoothing",
        sequence_evidence=1e6,
        sequence_jump=0.0,
    )
    search = SequenceSearch(vectors, database, options, radius_m=25.0)
    found = search(vectors[:5], Clips.of(asked), 2)
    np.testing.assert_allclose(found.probability, 0.5, atol=1e-3)
    found = SequenceSearch(vectors[:5], database[:5], options, radius_m=25.0)(
        vectors[:5], Clips.of(asked), 2
    )
    np.testing.assert_allclose(found.probability, 1, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sequence_velocity": (1.2, 0.8)}, "sequence_velocity as a smallest"),
        ({"sequence_window": (1,)}, "sequence_window as a smallest"),
        (
            {"sequence_velocity": (0, 9), "sequence_velocity_step": 0.001},
            "at most 1,000 velocities",
        ),
        ({"sequence_method": "magic"}, "sequence_method"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        SequenceOptions(**options)
