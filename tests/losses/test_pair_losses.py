"""Losses over cosines of pairs, against plain loops and PyTorch's values.

The golden values are those of pytorch-metric-learning 2.9.0, see
`golden_foundation`.
"""

import json
import math

import golden_foundation
import keras
import numpy as np
import pytest
from keras import ops
from toy_descriptors import (
    finite_differences,
    gradient,
    squared,
    unit_vectors,
    value,
)

from sare_tf import losses
from sare_tf.losses import miners

LOSSES = {
    "multi_similarity": losses.PlaceMultiSimilarityLoss,
    "nt_xent": losses.PlaceNTXentLoss,
    "sup_con": losses.PlaceSupConLoss,
    "circle": losses.PlaceCircleLoss,
    "fast_ap": losses.PlaceFastAPLoss,
}
NAMES = sorted(LOSSES)
MINED = sorted(set(NAMES) - {"fast_ap"})
# Settings of another value than the defaults.
OTHERS = {
    "multi_similarity": {"alpha": 2.0, "beta": 30.0, "base": 0.6},
    "nt_xent": {"temperature": 0.3},
    "sup_con": {"temperature": 0.3},
    "circle": {"margin": 0.25, "scale": 16.0},
    "fast_ap": {"num_bins": 7},
}
# Places 2 and 9 have one image each.
LABELS = np.array([4, 4, 2, 7, 7, 7, 4, 9])


def pairs_of(labels, x, a, miner):
    """Positives and negatives of an anchor that the miner keeps."""
    positives = [i for i in range(len(x)) if i != a and labels[i] == labels[a]]
    negatives = [i for i in range(len(x)) if labels[i] != labels[a]]
    if miner == "none":
        return positives, negatives
    if not positives or not negatives:
        return [], []
    lowest = min(x[a] @ x[p] for p in positives)
    highest = max(x[a] @ x[n] for n in negatives)
    return (
        [p for p in positives if x[a] @ x[p] - 0.1 < highest],
        [n for n in negatives if x[a] @ x[n] + 0.1 > lowest],
    )


def multi_similarity(x, a, pairs, weight, *, alpha=1.0, beta=50.0, base=0.0):
    positives, negatives = pairs
    pull = sum(
        weight[a][p] * math.exp(-alpha * (x[a] @ x[p] - base))
        for p in positives
    )
    push = sum(math.exp(beta * (x[a] @ x[n] - base)) for n in negatives)
    return math.log(1 + pull) / alpha + math.log(1 + push) / beta


def nt_xent(x, a, pairs, weight, *, temperature=0.07):
    positives, negatives = pairs
    repelled = sum(math.exp(x[a] @ x[n] / temperature) for n in negatives)
    terms = []
    for p in positives:
        attracted = math.exp(x[a] @ x[p] / temperature)
        terms.append(-math.log(attracted / (attracted + repelled)))
    return mean(terms, [weight[a][p] for p in positives])


def sup_con(x, a, pairs, weight, *, temperature=0.07):
    positives, negatives = pairs
    total = sum(
        math.exp(x[a] @ x[i] / temperature) for i in positives + negatives
    )
    terms = [
        -math.log(math.exp(x[a] @ x[p] / temperature) / total)
        for p in positives
    ]
    return mean(terms, [weight[a][p] for p in positives])


def mean(terms, weights):
    if not sum(weights):
        return 0.0
    return np.average(terms, weights=weights)


def circle(x, a, pairs, weight, *, margin=0.4, scale=80.0, fixed=None):
    """With the weights of pairs from other descriptors, if these are given."""
    positives, negatives = pairs
    y = x if fixed is None else fixed
    pull = sum(
        weight[a][p]
        * math.exp(
            -scale
            * max(1 + margin - y[a] @ y[p], 0)
            * (x[a] @ x[p] - 1 + margin)
        )
        for p in positives
    )
    push = sum(
        math.exp(scale * max(y[a] @ y[n] + margin, 0) * (x[a] @ x[n] - margin))
        for n in negatives
    )
    return math.log(1 + pull * push)


def fast_ap(x, a, pairs, weight, *, num_bins=10):
    positives, negatives = pairs
    if not positives:
        return 0.0
    total = so_far = positives_so_far = 0.0
    for bin_ in range(num_bins + 1):
        centre, width = 4 * bin_ / num_bins, 4 / num_bins

        def share(i, centre=centre, width=width):
            return max(1 - abs(squared(x[a], x[i]) - centre) / width, 0)

        of_positives = sum(map(share, positives))
        positives_so_far += of_positives
        so_far += of_positives + sum(map(share, negatives))
        if so_far:
            total += of_positives * positives_so_far / so_far
    return 1 - total / len(positives)


DEFINITIONS = {
    "multi_similarity": multi_similarity,
    "nt_xent": nt_xent,
    "sup_con": sup_con,
    "circle": circle,
    "fast_ap": fast_ap,
}


def defined(name, labels, x, *, miner=None, weights=None, **settings):
    """The definition, per anchor, in float64."""
    if miner is None:
        miner = "multi_similarity" if name == "multi_similarity" else "none"
    if weights is None:
        weights = np.ones((len(x), len(x)))
    return np.array(
        [
            DEFINITIONS[name](
                x, a, pairs_of(labels, x, a, miner), weights, **settings
            )
            for a in range(len(x))
        ],
        float,
    )


@pytest.fixture(scope="module")
def golden():
    return golden_foundation.read("ms_loss")[0]


@pytest.mark.parametrize(
    ("miner", "expected"),
    [("multi_similarity", "loss_mined"), ("none", "loss_all")],
)
def test_multi_similarity_of_pytorch(golden, miner, expected):
    loss = losses.PlaceMultiSimilarityLoss(miner=miner)
    found = float(loss(golden["labels"], golden["emb"]))
    np.testing.assert_allclose(found, golden[expected], atol=1e-6, rtol=0)


def test_gradient_of_multi_similarity_of_pytorch(golden):
    x = golden["emb"].astype(float)
    found = gradient(losses.PlaceMultiSimilarityLoss(), golden["labels"], x)
    # Theirs normalises the descriptors.
    found = found - np.sum(found * x, axis=1, keepdims=True) * x
    np.testing.assert_allclose(found, golden["grad_mined"], atol=1e-6, rtol=0)


def test_pairs_of_the_miner_of_pytorch(golden):
    x, labels = golden["emb"], golden["labels"]
    same = labels[:, None] == labels[None, :]
    found = miners.mined(
        ops.convert_to_tensor(x @ x.T),
        ops.convert_to_tensor(same & ~np.eye(len(x), dtype=bool)),
        ops.convert_to_tensor(~same),
        miner="multi_similarity",
    )
    for mask, expected in zip(found, ("pos_mask", "neg_mask"), strict=True):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(mask), golden[expected]
        )
        assert golden[expected].any()
        assert not golden[expected].all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sup_con", "supcon"), ("nt_xent", "ntxent"), ("circle", "circle")],
)
def test_values_of_pytorch(golden, name, expected):
    found = float(LOSSES[name]()(golden["labels"], golden["emb"]))
    np.testing.assert_allclose(found, golden[expected], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("others", [False, True], ids=["defaults", "others"])
def test_each_anchor_follows_the_definition(name, others):
    settings = OTHERS[name] if others else {}
    x = unit_vectors(len(LABELS), 4, seed=2).astype(np.float32)
    for labels in (LABELS, LABELS[:, None].astype(np.float32)):
        found = value(LOSSES[name](**settings), labels, x)
        assert found.shape == LABELS.shape
        np.testing.assert_allclose(
            found,
            defined(name, LABELS, x.astype(float), **settings),
            rtol=3e-6,
            atol=2e-6,
        )


@pytest.mark.parametrize("name", MINED)
@pytest.mark.parametrize("miner", ["none", "multi_similarity"])
def test_weights_and_miner_follow_the_definition(name, miner):
    """Some weights are 0: place 7 has an anchor without a positive."""
    x = unit_vectors(len(LABELS), 4, seed=2).astype(np.float32)
    weights = np.random.default_rng(0).uniform(0.1, 3.0, (8, 8))
    weights[3, 4] = weights[3, 5] = weights[0, 1] = 0.0
    loss = LOSSES[name](miner=miner)
    found = loss.call_with_weights(
        ops.convert_to_tensor(LABELS),
        ops.convert_to_tensor(x),
        positive_weights=ops.convert_to_tensor(weights.astype(np.float32)),
    )
    expected = defined(
        name, LABELS, x.astype(float), miner=miner, weights=weights
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), expected, rtol=3e-6, atol=2e-6
    )
    unweighted = defined(name, LABELS, x.astype(float), miner=miner)
    assert np.abs(expected - unweighted).max() > 1e-3
    np.testing.assert_array_equal(
        ops.convert_to_numpy(
            loss.call_with_weights(LABELS, x, positive_weights=np.ones((8, 8)))
        ),
        value(loss, LABELS, x),
    )


@pytest.mark.parametrize("name", NAMES)
def test_gradient_equals_finite_differences(name):
    """Pairs and the weights of Circle stay as they are."""
    x = unit_vectors(len(LABELS), 4, seed=3)
    settings = OTHERS[name]
    if name == "circle":
        settings = {**settings, "fixed": x}
    miner = "multi_similarity" if name == "multi_similarity" else "none"
    pairs = [pairs_of(LABELS, x, a, miner) for a in range(len(x))]
    weights = np.ones((8, 8))
    expected = finite_differences(
        lambda y: np.mean(
            [
                DEFINITIONS[name](y, a, pairs[a], weights, **settings)
                for a in range(len(x))
            ]
        ),
        x,
    )
    found = gradient(LOSSES[name](**OTHERS[name]), LABELS, x)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=4e-6, rtol=1e-5)


def test_nt_xent_is_joint_sare():
    """With an inverse bandwidth of 1 / (2 temperature)."""
    x = unit_vectors(len(LABELS), 4, seed=4).astype(np.float32)
    for miner in ("none", "multi_similarity"):
        np.testing.assert_allclose(
            value(
                losses.PlaceNTXentLoss(temperature=0.1, miner=miner), LABELS, x
            ),
            value(
                losses.build(
                    "place_sare_joint", inverse_bandwidth=5.0, miner=miner
                ),
                LABELS,
                x,
            ),
            atol=3e-6,
            rtol=3e-6,
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "labels", [(1, 1, 1), (1, 2, 3), (1, 1, 2), (6,)], ids=str
)
@pytest.mark.parametrize("identical", [True, False])
def test_degenerate_batches(name, labels, identical):
    """One place, no positives, a place of one image, one image; duplicates."""
    x = unit_vectors(len(labels), 4)
    if identical:
        x = np.repeat(x[:1], len(labels), axis=0)
    found = value(LOSSES[name](), np.array(labels), x.astype(np.float32))
    np.testing.assert_allclose(
        found,
        defined(name, labels, x.astype(np.float32).astype(float)),
        rtol=3e-6,
        atol=3e-6,
    )
    if len(set(labels)) == len(labels):  # no positives
        # Without a miner, images of other places still repel.
        np.testing.assert_array_equal(found, np.zeros(len(labels)))
    if set(labels) == {1} and name in ("multi_similarity", "circle"):
        np.testing.assert_array_equal(found, np.zeros(3))
    assert np.isfinite(gradient(LOSSES[name](), np.array(labels), x)).all()


def test_nothing_is_learnt_when_all_pairs_are_mined_away():
    """Places at right angles: no negative is within 0.1 of a positive."""
    x = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    labels = np.array([0, 0, 1, 1, 2, 2])
    for name in MINED:
        loss = LOSSES[name](miner="multi_similarity")
        np.testing.assert_array_equal(value(loss, labels, x), np.zeros(6))
        np.testing.assert_array_equal(
            gradient(loss, labels, x), np.zeros_like(x)
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_is_computed_in_float32(name, dtype):
    x = unit_vectors(len(LABELS), 4, seed=5).astype(np.float32)
    rounded = ops.cast(ops.convert_to_tensor(x), dtype)
    found = LOSSES[name]().call(LABELS, rounded)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    exact = ops.convert_to_numpy(ops.cast(rounded, "float32"))
    np.testing.assert_allclose(
        ops.convert_to_numpy(found),
        defined(name, LABELS, exact.astype(float)),
        rtol=5e-6,
        atol=3e-6,
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_trains(name):
    x = np.concatenate(
        [unit_vectors(10, 3)[LABELS], unit_vectors(len(LABELS), 3, seed=6)],
        axis=1,
    ).astype(np.float32)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.layers.Dense(4), keras.layers.UnitNormalization()]
    )
    model.compile(keras.optimizers.Adam(0.02), LOSSES[name]())
    expected = defined(
        name, LABELS, ops.convert_to_numpy(model(x)).astype(float)
    )
    fitted = model.fit(x, LABELS, epochs=20, shuffle=False, verbose=0)
    # The loss of an epoch of one step is that before the step.
    before, *_, after = fitted.history["loss"]
    np.testing.assert_allclose(before, expected.mean(), rtol=1e-5)
    assert after < before


@pytest.mark.parametrize("name", NAMES)
def test_configuration_comes_back(name):
    settings = OTHERS[name] | {"name": "other"}
    if name in MINED:
        settings["miner"] = "none"
    loss = LOSSES[name](**settings)
    again = keras.losses.deserialize(
        json.loads(json.dumps(keras.losses.serialize(loss)))
    )
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    assert again.get_config().items() >= settings.items()


@pytest.mark.parametrize("name", NAMES)
def test_descriptors_that_are_not_unit_vectors_are_refused(name):
    with pytest.raises(ValueError, match=r"\[B, D\].*such as SARELoss"):
        LOSSES[name]().call(np.ones(4), unit_vectors(4, 3, 8))
    with pytest.raises(ValueError, match="unit length.*from 2 to 2"):
        LOSSES[name]().call(np.ones(4), 2.0 * unit_vectors(4, 8))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("multi_similarity", {"alpha": 0.0}),
        ("multi_similarity", {"beta": np.inf}),
        ("multi_similarity", {"base": np.nan}),
        ("nt_xent", {"temperature": -1.0}),
        ("sup_con", {"miner": "hard"}),
        ("circle", {"scale": 0.0}),
        ("circle", {"margin": 0.0}),
        ("fast_ap", {"num_bins": 1}),
        ("fast_ap", {"num_bins": 2.5}),
    ],
)
def test_settings_are_checked(name, settings):
    (setting,) = settings
    with pytest.raises(ValueError, match=f"Received: {setting}="):
        LOSSES[name](**settings)
