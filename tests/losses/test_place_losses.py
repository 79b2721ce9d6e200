"""Place-batch losses against TensorFlow Addons and against plain numpy.

TensorFlow Addons computed its values and gradients in its own environment:
tests/oracles/addons_values.py, `make oracles`.
"""

import json
import math

import keras
import numpy as np
import pytest
from keras import ops
from paths import ROOT
from toy_descriptors import (
    finite_differences,
    gradient,
    squared,
    unit_vectors,
    value,
)

from sare_tf import losses
from sare_tf.model import netvlad

ADDONS = np.load(ROOT / "tests" / "oracles" / "tensorflow_addons.npz")
CASES = json.loads(str(ADDONS["cases"]))
LOSSES = {
    "contrastive": losses.PlaceContrastiveLoss,
    "triplet_semihard": losses.PlaceTripletSemiHardLoss,
    "triplet_hard": losses.PlaceTripletHardLoss,
    "lifted_structure": losses.PlaceLiftedStructureLoss,
    "n_pairs": losses.PlaceNPairsLoss,
}
NAMES = sorted(LOSSES)
# Places 2 and 9 have one image each.
LABELS = np.array([4, 4, 2, 7, 7, 7, 4, 9])


def root(a, b):
    return math.sqrt(squared(a, b))


def contrastive(labels, x, a):
    others = [i for i in range(len(x)) if i != a]
    return np.mean(
        [
            squared(x[a], x[i])
            if labels[i] == labels[a]
            else max(1 - root(x[a], x[i]), 0) ** 2
            for i in others
        ]
    )


def positive_pairs(labels):
    return sum(
        labels[i] == labels[j]
        for i in range(len(labels))
        for j in range(len(labels))
        if i != j
    )


def over_pairs(labels, x, a, of_pair):
    """Sum over the positives of a, scaled to a mean over all pairs."""
    total = sum(
        of_pair(labels, x, a, i)
        for i in range(len(x))
        if labels[i] == labels[a] and i != a
    )
    return total * len(x) / positive_pairs(labels)


def semihard_pair(labels, x, a, p):
    rest = [root(x[a], x[n]) for n in range(len(x)) if labels[n] != labels[a]]
    farther = [e for e in rest if e > root(x[a], x[p])]
    chosen = min(farther) if farther else max(rest)
    return max(root(x[a], x[p]) - chosen + 1, 0)


def triplet_semihard(labels, x, a):
    return over_pairs(labels, x, a, semihard_pair)


def triplet_hard(labels, x, a):
    near = [root(x[a], x[i]) for i in range(len(x)) if labels[i] == labels[a]]
    rest = [root(x[a], x[i]) for i in range(len(x)) if labels[i] != labels[a]]
    return max(max(near) - min(rest) + 1, 0)


def lifted_pair(labels, x, i, j):
    total = sum(
        math.exp(1 - root(x[k], x[n]))
        for k in (i, j)
        for n in range(len(x))
        if labels[n] != labels[k]
    )
    return max(root(x[i], x[j]) + math.log(total), 0) ** 2 / 2


def lifted_structure(labels, x, a):
    return over_pairs(labels, x, a, lifted_pair)


def n_pairs(labels, x, a):
    products = [x[a] @ y for y in x]
    normaliser = math.log(sum(map(math.exp, products)))
    return np.mean(
        [
            normaliser - products[i]
            for i in range(len(x))
            if labels[i] == labels[a]
        ]
    )


DEFINITIONS = {
    "contrastive": contrastive,
    "triplet_semihard": triplet_semihard,
    "triplet_hard": triplet_hard,
    "lifted_structure": lifted_structure,
    "n_pairs": n_pairs,
}


def defined(name, labels, x):
    """The definition, per anchor, in float64."""
    return np.array(
        [DEFINITIONS[name](labels, x, a) for a in range(len(x))], float
    )


@pytest.mark.parametrize(
    "number",
    range(len(CASES)),
    ids=lambda number: "-".join(
        map(str, [*CASES[number].values(), number])
    ).replace(" ", ""),
)
def test_value_and_gradient_of_tensorflow_addons(number):
    case = CASES[number]
    labels = ADDONS[f"labels/{case['batch']}"]
    descriptors = ADDONS[f"descriptors/{case['batch']}"]
    loss = LOSSES[case["loss"]](**case["settings"])
    np.testing.assert_allclose(
        float(loss(labels, descriptors)),
        ADDONS[f"value/{number}"],
        rtol=2e-6,
    )
    np.testing.assert_allclose(
        gradient(loss, labels, descriptors),
        ADDONS[f"gradient/{number}"],
        atol=2e-6,
        rtol=0,
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("column", [False, True])
def test_each_anchor_follows_the_definition(name, column):
    x = unit_vectors(len(LABELS), 4, seed=2).astype(np.float32)
    labels = LABELS[:, None] if column else LABELS
    found = value(
        LOSSES[name](), ops.convert_to_tensor(labels.astype(np.float32)), x
    )
    assert found.shape == LABELS.shape
    np.testing.assert_allclose(
        found, defined(name, LABELS, x.astype(float)), rtol=3e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
def test_gradient_equals_finite_differences(name):
    x = 1.2 * unit_vectors(len(LABELS), 4, seed=3)
    np.testing.assert_allclose(
        gradient(LOSSES[name](), LABELS, x),
        finite_differences(lambda y: defined(name, LABELS, y).mean(), x),
        atol=3e-6,
        rtol=0,
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("labels", [(1, 1, 1), (1, 2, 3), (1, 1, 2), (6,)])
def test_degenerate_batches_are_finite(name, labels):
    labels = np.float32(labels)
    x = np.repeat(unit_vectors(1, 4), len(labels), axis=0)
    assert np.isfinite(value(LOSSES[name](), labels, x)).all()
    assert np.isfinite(gradient(LOSSES[name](), labels, x)).all()


@pytest.mark.parametrize(
    "name", ["triplet_semihard", "triplet_hard", "lifted_structure"]
)
def test_a_batch_of_one_place_costs_nothing(name):
    x = unit_vectors(4, 4)
    found = value(LOSSES[name](), np.ones(4, np.float32), x)
    np.testing.assert_array_equal(found, np.zeros(4))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_descriptors_are_computed_in_float32(name):
    x = unit_vectors(len(LABELS), 4, seed=5).astype(np.float32)
    rounded = ops.cast(ops.convert_to_tensor(x), "bfloat16")
    found = LOSSES[name]().call(LABELS, rounded)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    exact = ops.convert_to_numpy(ops.cast(rounded, "float32"))
    np.testing.assert_allclose(
        ops.convert_to_numpy(found),
        defined(name, LABELS, exact.astype(float)),
        rtol=3e-6,
        atol=1e-6,
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_trains_with_integer_labels(name):
    # An offset of each place among larger noise: a map can tell them apart.
    x = np.concatenate(
        [unit_vectors(10, 3)[LABELS], 3 * unit_vectors(len(LABELS), 3, seed=6)],
        axis=1,
    ).astype(np.float32)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.layers.Dense(4), keras.layers.UnitNormalization()]
    )
    model.compile(keras.optimizers.Adam(0.02), LOSSES[name]())
    descriptors = ops.convert_to_numpy(model(x))
    expected = defined(name, LABELS, descriptors.astype(float))
    fitted = model.fit(x, LABELS, epochs=20, shuffle=False, verbose=0)
    # The loss of an epoch of one step is that before the step.
    before, *_, after = fitted.history["loss"]
    np.testing.assert_allclose(before, expected.mean(), rtol=1e-5)
    assert after < before


@pytest.mark.parametrize(
    "loss",
    [
        losses.PlaceContrastiveLoss(margin=0.3, name="other"),
        losses.PlaceTripletSemiHardLoss(margin=0.3, squared=True),
        losses.PlaceTripletHardLoss(soft=True, reduction="sum"),
        losses.PlaceTripletHardLoss(margin=0.2, squared=True),
        losses.PlaceLiftedStructureLoss(margin=0.5, reduction=None),
        losses.PlaceNPairsLoss(name="other"),
    ],
    ids=lambda loss: loss.name,
)
def test_configuration_comes_back(loss):
    config = json.loads(json.dumps(keras.losses.serialize(loss)))
    again = keras.losses.deserialize(config)
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    x = unit_vectors(len(LABELS), 4).astype(np.float32)
    np.testing.assert_array_equal(
        value(again, LABELS, x), value(loss, LABELS, x)
    )


@pytest.mark.parametrize("name", NAMES)
def test_descriptors_of_a_wrong_shape_are_refused(name):
    with pytest.raises(ValueError, match=r"\[B, D\].*such as SARELoss"):
        LOSSES[name]().call(np.ones(4), unit_vectors(4, 3, 8))


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"n_pairs"}))
@pytest.mark.parametrize("margin", [0.0, np.inf])
def test_margins_are_checked(name, margin):
    with pytest.raises(ValueError, match=f"Received: margin={margin}"):
        LOSSES[name](margin=margin)


def test_netvlad_of_tensorflow_addons():
    """Its output is [D, K] in rows; ours is cluster after cluster."""
    frames = ADDONS["netvlad/frames"]
    batch, _, length = frames.shape
    centres = ADDONS["netvlad/centres"][0].T  # [K, D]
    found = netvlad.netvlad(
        frames[:, :, None], ADDONS["netvlad/assignment"], centres
    )
    expected = ADDONS["netvlad/output"].reshape(batch, length, len(centres))
    np.testing.assert_allclose(
        ops.convert_to_numpy(found),
        expected.transpose(0, 2, 1).reshape(batch, -1),
        atol=1e-6,
        rtol=0,
    )
