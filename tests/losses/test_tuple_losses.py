"""The tuple losses against plain numpy, and the authors' numbers."""

import json
import math

import keras
import numpy as np
import pytest
from keras import ops
from toy_descriptors import (
    finite_differences,
    gradient,
    hand_made_tuple,
    squared,
    unit_vectors,
    value,
)

from sare_tf import losses

LOSSES = {
    "triplet": losses.TripletLoss(),
    "triplet_unsquared": losses.TripletLoss(squared=False),
    "contrastive": losses.ContrastiveLoss(),
    "lifted_structure": losses.LiftedStructureLoss(),
    "n_pair": losses.NPairLoss(),
    "angular": losses.AngularLoss(),
    "quadruplet": losses.QuadrupletLoss(),
}
NAMES = sorted(LOSSES)

# Of the hand-made tuple, from the formulas of deepIBL and OpenIBL in float64:
# d_p = .4 and d = .8, 2, .08. The triplet's sum is max(.4 + .1 - .08, 0) = .42.
# The quadruplet adds the pairs (n_1, n_3), with |n_1 - n_3|^2 = .36^2 + .8^2 +
# .28^2 = .848, and (n_2, n_3), 2: neither is nearer than .4 + .05.
BY_HAND = {
    "triplet": 0.42 / 3,
    "triplet_unsquared": 0.240032231,
    "contrastive": 0.287010101,
    "lifted_structure": 1.946201716,
    "n_pair": 1.235927934,
    "angular": 4.147729995,
    "quadruplet": 0.42 / 3,
}


def triplet(q, p, negatives, margin=0.1):
    return np.mean(
        [max(squared(q, p) + margin - squared(q, n), 0) for n in negatives]
    )


def triplet_unsquared(q, p, negatives, margin=0.1**0.5):
    attraction = math.sqrt(squared(q, p))
    return np.mean(
        [
            max(attraction + margin - math.sqrt(squared(q, n)), 0)
            for n in negatives
        ]
    )


def contrastive(q, p, negatives, margin=0.7):
    total = squared(q, p) / 2
    for n in negatives:
        total += max(margin - math.sqrt(squared(q, n)), 0) ** 2 / 2
    return total


def lifted_structure(q, p, negatives, margin=1.0):
    total = sum(math.exp(margin - math.sqrt(squared(q, n))) for n in negatives)
    return max(math.log(total) + math.sqrt(squared(q, p)), 0) ** 2 / 2


def n_pair(q, p, negatives):
    return math.log(1 + sum(math.exp(q @ n - q @ p) for n in negatives))


def angular(q, p, negatives, angle_deg=45.0):
    tangent = math.tan(angle_deg * math.pi / 180) ** 2
    total = 1.0
    for n in negatives:
        f = 4 * tangent * (q + p) @ n - 2 * (1 + tangent) * (q @ p)
        total += math.exp(f)
    return math.log(total)


def quadruplet(q, p, negatives, margin=0.1, second_margin=0.05):
    *rest, last = negatives
    pairs = [
        max(squared(q, p) + second_margin - squared(n, last), 0) for n in rest
    ]
    return triplet(q, p, negatives, margin) + (np.mean(pairs) if pairs else 0)


DEFINITIONS = {
    "triplet": triplet,
    "triplet_unsquared": triplet_unsquared,
    "contrastive": contrastive,
    "lifted_structure": lifted_structure,
    "n_pair": n_pair,
    "angular": angular,
    "quadruplet": quadruplet,
}


def defined(name, x, **settings):
    """The definition, per tuple, in float64."""
    return np.array(
        [DEFINITIONS[name](q, p, rest, **settings) for q, p, *rest in x]
    )


@pytest.mark.parametrize("name", NAMES)
def test_values_by_hand(name):
    found = value(LOSSES[name], None, hand_made_tuple())
    np.testing.assert_allclose(found, [BY_HAND[name]], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 6, 1000])
def test_values_follow_the_definition(name, count):
    # Few dimensions, so that images of a tuple are near enough for a loss.
    x = unit_vectors(5, 2 + count, 3, seed=count).astype(np.float32)
    expected = defined(name, x.astype(float))
    assert expected.max() > 0
    np.testing.assert_allclose(
        value(LOSSES[name], None, x), expected, rtol=3e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "loss", "settings"),
    [
        ("triplet", losses.TripletLoss, {"margin": 0.9}),
        ("contrastive", losses.ContrastiveLoss, {"margin": 1.3}),
        ("lifted_structure", losses.LiftedStructureLoss, {"margin": 0.3}),
        ("angular", losses.AngularLoss, {"angle_deg": 36.0}),
        ("quadruplet", losses.QuadrupletLoss, {"margin": 0.8}),
        (
            "quadruplet",
            losses.QuadrupletLoss,
            {"margin": 0.3, "second_margin": 1.1},
        ),
    ],
)
def test_settings_reach_the_formula(name, loss, settings):
    x = unit_vectors(8, 6, 3).astype(np.float32)
    expected = dict(settings)
    if name == "quadruplet":
        expected.setdefault("second_margin", settings["margin"] / 2)
    np.testing.assert_allclose(
        value(loss(**settings), None, x),
        defined(name, x.astype(float), **expected),
        rtol=3e-6,
        atol=1e-6,
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 4])
def test_gradient_equals_finite_differences(name, count):
    x = unit_vectors(3, 2 + count, 3, seed=4)
    found = gradient(LOSSES[name], np.zeros(3), x)
    expected = finite_differences(lambda y: defined(name, y).mean(), x)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 3, 1000])
@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_distances_0_and_4(name, count, signs):
    q = unit_vectors(6)
    x = np.array([[q, signs[0] * q, *[signs[1] * q] * count]])
    np.testing.assert_allclose(
        value(LOSSES[name], None, x.astype(np.float32)),
        defined(name, x),
        rtol=2e-6,
        atol=1e-6,
    )
    assert np.isfinite(gradient(LOSSES[name], np.zeros(1), x)).all()


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_descriptors_are_computed_in_float32(name):
    x = unit_vectors(3, 6, 4).astype(np.float32)
    rounded = ops.cast(ops.convert_to_tensor(x), "bfloat16")
    found = LOSSES[name].call(None, rounded)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    exact = ops.convert_to_numpy(ops.cast(rounded, "float32"))
    np.testing.assert_allclose(
        ops.convert_to_numpy(found),
        defined(name, exact.astype(float)),
        rtol=3e-6,
        atol=1e-6,
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("eager", [False, True])
def test_keras_takes_the_mean_over_tuples(name, eager):
    x = unit_vectors(5, 6, 3).astype(np.float32)
    model = keras.Sequential([keras.layers.Identity()])
    model.compile(loss=LOSSES[name], run_eagerly=eager)
    found = model.evaluate(x, np.zeros(5), verbose=0)
    np.testing.assert_allclose(
        found, defined(name, x.astype(float)).mean(), rtol=3e-6
    )


def test_n_pair_is_sare_with_half_the_exponent():
    x = unit_vectors(4, 7, 8).astype(np.float32)
    sare = losses.SARELoss(form="joint", inverse_bandwidth=0.5)
    np.testing.assert_allclose(
        value(losses.NPairLoss(), None, x), value(sare, None, x), rtol=1e-6
    )


@pytest.mark.parametrize(
    "loss",
    [
        losses.TripletLoss(margin=0.3, squared=False, reduction="sum"),
        losses.TripletLoss(squared=False),
        losses.ContrastiveLoss(margin=0.2, name="other"),
        losses.LiftedStructureLoss(margin=0.2, reduction=None),
        losses.NPairLoss(name="other"),
        losses.AngularLoss(angle_deg=30.0),
        losses.QuadrupletLoss(margin=0.2),
        losses.QuadrupletLoss(second_margin=0.2, reduction="sum"),
    ],
    ids=lambda loss: loss.name,
)
def test_configuration_comes_back(loss):
    config = json.loads(json.dumps(keras.losses.serialize(loss)))
    again = keras.losses.deserialize(config)
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    x = unit_vectors(4, 6, 3).astype(np.float32)
    np.testing.assert_array_equal(value(again, None, x), value(loss, None, x))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("shape", "message"),
    [((4, 8), r"\[B, T, D\].*over_tuples"), ((4, 2, 8), "T >= 3")],
)
def test_tuples_of_a_wrong_shape_are_refused(name, shape, message):
    with pytest.raises(ValueError, match=message):
        LOSSES[name].call(None, unit_vectors(*shape))


@pytest.mark.parametrize("name", NAMES)
def test_descriptors_not_of_unit_length_are_refused(name):
    with pytest.raises(ValueError, match="lengths from 2 to 2"):
        LOSSES[name].call(None, 2.0 * unit_vectors(4, 3, 8))


@pytest.mark.parametrize(
    "function", [losses.triplet, losses.contrastive, losses.lifted_structure]
)
@pytest.mark.parametrize(
    "shapes", [((4, 1), (4, 2)), ((4,), (4,)), ((4,), (4, 0))]
)
def test_distances_of_a_wrong_shape_are_refused(function, shapes):
    with pytest.raises(ValueError, match="at least one negative"):
        function(*(ops.ones(shape) for shape in shapes))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.TripletLoss(margin=0.0), "positive.*margin=0.0"),
        (lambda: losses.ContrastiveLoss(margin=-1), "positive.*margin=-1"),
        (lambda: losses.LiftedStructureLoss(margin=np.inf), "margin=inf"),
        (lambda: losses.QuadrupletLoss(margin=np.nan), "margin=nan"),
        (
            lambda: losses.QuadrupletLoss(second_margin=0.0),
            "Received: second_margin=0.0",
        ),
        (lambda: losses.AngularLoss(angle_deg=0.0), "angle_deg=0.0"),
        (lambda: losses.AngularLoss(angle_deg=90.0), "angle_deg=90.0"),
        (
            lambda: losses.angular(ops.ones((1, 3, 2)), angle_deg=90),
            "between 0 and 90. Received: angle_deg=90",
        ),
        (
            lambda: losses.quadruplet(ops.ones((1, 3, 2)), margin=-1.0),
            "Received: margin=-1.0",
        ),
    ],
)
def test_unknown_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
