"""Losses against plain numpy, and against the values of the paper's code."""

import itertools
import json

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

FORMS = ("joint", "independent")
KERNELS = ("gaussian", "cauchy", "exponential")
FUNCTIONS = {
    "joint": losses.sare_joint,
    "independent": losses.sare_independent,
}
SETTINGS = list(itertools.product(FORMS, KERNELS))

# Of the hand-made tuple: log(1 + sum) and sum of log(1 + .), from the formulas
# of deepIBL in float64.
BY_HAND = {
    ("joint", "gaussian"): 1.178453231,
    ("independent", "gaussian"): 1.562808930 / 3,
    ("joint", "cauchy"): 1.264335954,
    ("independent", "cauchy"): 1.789653916 / 3,
    ("joint", "exponential"): 1.293535192,
    ("independent", "exponential"): 1.830662438 / 3,
}
# OpenIBL's form over dot products, exp(cos / .07).
DOT_PRODUCTS = {"joint": 2.387858764, "independent": 0.812808261}


def similarity(distance, kernel, bandwidth=1.0):
    distance = bandwidth * distance
    if kernel == "gaussian":
        return np.exp(-distance)
    if kernel == "cauchy":
        return 1.0 / (1.0 + distance)
    return np.exp(-np.sqrt(distance))


def sare(positive, negatives, form, kernel, bandwidth=1.0):
    """The definition, for one tuple, in float64."""
    attracted = similarity(positive, kernel, bandwidth)
    repelled = [similarity(d, kernel, bandwidth) for d in negatives]
    if form == "joint":
        return -np.log(attracted / (attracted + sum(repelled)))
    return np.mean([-np.log(attracted / (attracted + r)) for r in repelled])


def loss_of_tuple(descriptors, form, kernel, bandwidth=1.0):
    query, positive, *negatives = descriptors
    return sare(
        squared(query, positive),
        [squared(query, n) for n in negatives],
        form,
        kernel,
        bandwidth,
    )


@pytest.mark.parametrize(("form", "kernel"), SETTINGS)
def test_values_of_the_paper(form, kernel):
    loss = losses.SARELoss(form=form, kernel=kernel)
    found = value(loss, None, hand_made_tuple())
    np.testing.assert_allclose(
        found, [BY_HAND[form, kernel]], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("form", FORMS)
def test_form_over_dot_products_is_a_gaussian(form):
    loss = losses.SARELoss(form=form, inverse_bandwidth=1 / (2 * 0.07))
    found = value(loss, None, hand_made_tuple())
    np.testing.assert_allclose(found, [DOT_PRODUCTS[form]], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("form", "kernel"), SETTINGS)
@pytest.mark.parametrize("count", [1, 7, 1000])
def test_functions_follow_the_definition(form, kernel, count):
    rng = np.random.default_rng(count)
    positive = rng.uniform(0, 4, 3).astype(np.float32)
    negatives = rng.uniform(0, 4, (3, count)).astype(np.float32)
    found = FUNCTIONS[form](
        ops.convert_to_tensor(positive),
        ops.convert_to_tensor(negatives),
        kernel=kernel,
        inverse_bandwidth=2.5,
    )
    expected = [
        sare(np.float64(p), n.astype(np.float64), form, kernel, 2.5)
        for p, n in zip(positive, negatives, strict=True)
    ]
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), expected, rtol=2e-6, atol=1e-6
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_negative_makes_the_forms_equal(kernel):
    x = unit_vectors(4, 3, 8).astype(np.float32)
    joint, independent = (
        value(losses.SARELoss(form=form, kernel=kernel), None, x)
        for form in FORMS
    )
    np.testing.assert_allclose(joint, independent, rtol=1e-6)


def coded_gradient(q, p, negatives, form, kernel):
    """deepIBL's gradients, as its train*.m write them (sum over negatives)."""
    d_p = squared(q, p)
    distances = np.array([squared(q, n) for n in negatives])
    dp, dq, dn = np.zeros_like(q), np.zeros_like(q), np.zeros_like(negatives)
    if (form, kernel) == ("joint", "gaussian"):
        x = np.array([np.exp(2 * q @ (n - p)) for n in negatives])
        dq = (
            2
            / (1 + x.sum())
            * sum(x[i] * (n - p) for i, n in enumerate(negatives))
        )
        dp = -2 * x.sum() / (1 + x.sum()) * q
        dn = np.array([2 * x_i / (1 + x.sum()) * q for x_i in x])
        return np.array([dq, dp, *dn])
    if kernel == "gaussian":
        x = np.exp(d_p - distances)
        pull, push = np.full_like(x, 2.0), np.full_like(x, 2.0)
    elif kernel == "cauchy":
        x = (1 + d_p) / (1 + distances)
        pull, push = np.full_like(x, 2 / (1 + d_p)), 2 / (1 + distances)
    else:
        x = np.exp(np.sqrt(d_p) - np.sqrt(distances))
        pull, push = np.full_like(x, d_p**-0.5), distances**-0.5
    shares = x / (1 + x.sum()) if form == "joint" else x / (1 + x)
    for i, n in enumerate(negatives):
        dp += shares[i] * pull[i] * (p - q)
        dn[i] += shares[i] * push[i] * (q - n)
        dq -= shares[i] * pull[i] * (p - q) + shares[i] * push[i] * (q - n)
    return np.array([dq, dp, *dn])


@pytest.mark.parametrize(("form", "kernel"), SETTINGS)
def test_gradient_is_the_one_that_the_authors_coded(form, kernel):
    x = unit_vectors(6, 5, seed=3)
    found = gradient(
        losses.SARELoss(form=form, kernel=kernel), np.zeros(1), x[None]
    )[0]
    expected = coded_gradient(x[0], x[1], x[2:], form, kernel)
    if form == "independent":
        # Theirs is the sum over negatives, divided later.
        expected = expected / 4
    if (form, kernel) == ("joint", "gaussian"):
        # Theirs leaves out what the normalisation of descriptors removes.
        found, expected = (
            g - np.sum(g * x, axis=-1, keepdims=True) * x
            for g in (found, expected)
        )
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("form", "kernel"), SETTINGS)
def test_gradient_equals_finite_differences(form, kernel):
    x = 1.3 * unit_vectors(4, 3, seed=5)

    def loss(_, y_pred):
        return FUNCTIONS[form](
            *losses.tuple_distances(y_pred),
            kernel=kernel,
            inverse_bandwidth=3.0,
        )

    found = gradient(loss, np.zeros(1), x[None])[0]
    expected = finite_differences(
        lambda y: loss_of_tuple(y, form, kernel, 3.0), x
    )
    np.testing.assert_allclose(found, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("form", "kernel"), SETTINGS)
@pytest.mark.parametrize("count", [1, 1000])
def test_gradient_with_one_and_with_many_negatives(form, kernel, count):
    x = unit_vectors(2 + count, 3, seed=7)
    found = gradient(
        losses.SARELoss(form=form, kernel=kernel), np.zeros(1), x[None]
    )[0]
    expected = coded_gradient(x[0], x[1], x[2:], form, kernel)
    if form == "independent":
        expected = expected / count
    if (form, kernel) == ("joint", "gaussian"):
        found, expected = (
            g - np.sum(g * x, axis=-1, keepdims=True) * x
            for g in (found, expected)
        )
    np.testing.assert_allclose(found, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("form", "kernel"), SETTINGS)
def test_identical_descriptors(form, kernel):
    x = np.repeat(unit_vectors(1, 1, 8), 5, axis=1)
    loss = losses.SARELoss(form=form, kernel=kernel)
    # All distances are 0 and all similarities 1.
    expected = np.log(4.0) if form == "joint" else np.log(2.0)
    found = value(loss, None, x.astype(np.float32))
    np.testing.assert_allclose(found, [expected], rtol=1e-6)
    np.testing.assert_array_equal(
        gradient(loss, np.zeros(1), x), np.zeros_like(x)
    )


@pytest.mark.parametrize(("form", "kernel"), SETTINGS)
@pytest.mark.parametrize("signs", [(1, -1), (-1, 1), (-1, -1)])
def test_distances_0_and_4(form, kernel, signs):
    q = unit_vectors(6)
    x = np.array([q, signs[0] * q, signs[1] * q, signs[1] * q])
    loss = losses.SARELoss(form=form, kernel=kernel)
    found = value(loss, None, x[None].astype(np.float32))
    np.testing.assert_allclose(
        found, [loss_of_tuple(x, form, kernel)], rtol=1e-6
    )
    assert np.isfinite(gradient(loss, np.zeros(1), x[None])).all()


@pytest.mark.parametrize(("form", "kernel"), SETTINGS)
def test_far_negatives_neither_overflow_nor_vanish(form, kernel):
    # A positive at 400 and a negative at 0 or 1e6, in units of 1 / bandwidth.
    found = FUNCTIONS[form](
        ops.convert_to_tensor(np.float32([400.0, 0.0])),
        ops.convert_to_tensor(np.float32([[0.0], [1e6]])),
        kernel=kernel,
    )
    far = {"gaussian": 400.0, "cauchy": np.log(402), "exponential": 20.0}
    found = ops.convert_to_numpy(found)
    np.testing.assert_allclose(found[0], far[kernel], rtol=1e-6)
    np.testing.assert_allclose(found[1], 0.0, atol=1e-5)


@pytest.mark.parametrize(("form", "kernel"), SETTINGS)
def test_bfloat16_descriptors_are_computed_in_float32(form, kernel):
    x = unit_vectors(3, 6, 16)
    rounded = ops.cast(ops.convert_to_tensor(x.astype(np.float32)), "bfloat16")
    loss = losses.SARELoss(form=form, kernel=kernel)
    found = loss.call(None, rounded)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    exact = ops.convert_to_numpy(ops.cast(rounded, "float32"))
    expected = [loss_of_tuple(t.astype(float), form, kernel) for t in exact]
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=2e-6)


def test_tuple_distances():
    x = np.float32([[[0, 0], [3, 4], [1, 0], [0, -2]]])
    positive, negatives = losses.tuple_distances(ops.convert_to_tensor(x))
    np.testing.assert_array_equal(ops.convert_to_numpy(positive), [25])
    np.testing.assert_array_equal(ops.convert_to_numpy(negatives), [[1, 4]])


def test_scaling_by_negatives_divides_joint_by_their_number():
    x = unit_vectors(4, 7, 8).astype(np.float32)
    tuples, negatives = (
        value(losses.SARELoss(scaling=scaling), None, x)
        for scaling in ("tuples", "negatives")
    )
    np.testing.assert_allclose(tuples / 5, negatives, rtol=1e-6)


def test_keras_takes_the_mean_over_tuples():
    x = unit_vectors(4, 7, 8).astype(np.float32)
    loss = losses.SARELoss()
    np.testing.assert_allclose(
        float(loss(np.zeros(4), x)), value(loss, None, x).mean(), rtol=1e-6
    )


def labelled(seed=0):
    x = unit_vectors(7, 4, seed=seed)
    # Place 5 has one image: an anchor without a positive.
    return np.float32([3, 8, 3, 5, 8, 3, 8]), x


def test_pairwise_distances():
    # Far from the origin, where products alone would lose the distances.
    x = 100.0 + unit_vectors(6, 5)
    x[3] = x[1]
    found = losses.pairwise_distances(
        ops.convert_to_tensor(x.astype(np.float32))
    )
    expected = [[squared(a, b) for b in x] for a in x]
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), expected, atol=1e-4, rtol=0
    )
    assert not np.diag(found).any()


def place_sare(labels, x, form, kernel, bandwidth=1.0):
    result = []
    for a, anchor in enumerate(x):
        negatives = [
            squared(anchor, x[i])
            for i in range(len(x))
            if labels[i] != labels[a]
        ]
        terms = [
            sare(squared(anchor, x[i]), negatives, form, kernel, bandwidth)
            for i in range(len(x))
            if labels[i] == labels[a] and i != a and negatives
        ]
        result.append(np.mean(terms) if terms else 0.0)
    return np.array(result)


@pytest.mark.parametrize(("form", "kernel"), SETTINGS)
@pytest.mark.parametrize("column", [False, True])
def test_place_loss_follows_the_definition(form, kernel, column):
    labels, x = labelled()
    loss = losses.PlaceSARELoss(form=form, kernel=kernel, inverse_bandwidth=2.0)
    found = value(
        loss,
        ops.convert_to_tensor(labels[:, None] if column else labels),
        x.astype(np.float32),
    )
    expected = place_sare(labels, x, form, kernel, 2.0)
    assert expected[3] == 0
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(("form", "kernel"), SETTINGS)
def test_place_gradient_equals_finite_differences(form, kernel):
    labels, x = labelled(seed=1)
    loss = losses.PlaceSARELoss(form=form, kernel=kernel)
    expected = finite_differences(
        lambda y: place_sare(labels, y, form, kernel).mean(), x
    )
    np.testing.assert_allclose(
        gradient(loss, labels, x), expected, atol=2e-6, rtol=0
    )


@pytest.mark.parametrize(("form", "kernel"), SETTINGS)
@pytest.mark.parametrize("labels", [(1, 1, 1), (1, 2, 3), (1, 1, 2)])
def test_place_loss_of_identical_descriptors(form, kernel, labels):
    x = np.repeat(unit_vectors(1, 4), 3, axis=0)
    loss = losses.PlaceSARELoss(form=form, kernel=kernel)
    labels = np.float32(labels)
    np.testing.assert_allclose(
        value(loss, ops.convert_to_tensor(labels), x.astype(np.float32)),
        place_sare(labels, x, form, kernel),
        rtol=1e-6,
    )
    assert not gradient(loss, labels, x).any()


@pytest.mark.parametrize("eager", [False, True])
def test_place_loss_trains_with_integer_labels(eager):
    labels, x = labelled()
    model = keras.Sequential(
        [keras.layers.Dense(4), keras.layers.UnitNormalization()]
    )
    model.compile("adam", losses.PlaceSARELoss(), run_eagerly=eager)
    descriptors = ops.convert_to_numpy(model(x))
    expected = place_sare(labels, descriptors, *SETTINGS[0])
    fitted = model.fit(x, labels.astype(int), epochs=4, verbose=0)
    # The loss of an epoch of one step is that before the step.
    before, *_, after = fitted.history["loss"]
    np.testing.assert_allclose(before, expected.mean(), rtol=1e-5)
    assert after < before


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize(("form", "kernel"), SETTINGS)
def test_eager_and_graph_agree(form, kernel, eager):
    x = unit_vectors(4, 5, 3).astype(np.float32)
    model = keras.Sequential([keras.layers.Identity()])
    loss = losses.SARELoss(form=form, kernel=kernel)
    model.compile(loss=loss, run_eagerly=eager)
    found = model.evaluate(x, np.zeros(4), verbose=0)
    expected = np.mean([loss_of_tuple(t, form, kernel) for t in x])
    np.testing.assert_allclose(found, expected, rtol=2e-6)


@pytest.mark.parametrize(
    "loss",
    [
        losses.SARELoss(
            form="joint",
            kernel="cauchy",
            inverse_bandwidth=2.5,
            scaling="negatives",
            reduction="sum",
            name="other",
        ),
        losses.PlaceSARELoss(
            form="independent",
            kernel="exponential",
            inverse_bandwidth=0.5,
            hardest_negatives=3,
            miner="multi_similarity",
            reduction=None,
            name="other",
        ),
    ],
    ids=["tuples", "places"],
)
def test_configuration_comes_back(loss):
    config = json.loads(json.dumps(keras.losses.serialize(loss)))
    again = keras.losses.deserialize(config)
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    settings = {"form", "kernel", "inverse_bandwidth", "reduction", "name"}
    settings |= {"hardest_negatives", "miner"}
    for name in settings & set(loss.get_config()):
        assert getattr(again, name) == getattr(loss, name)


@pytest.mark.parametrize("loss", [losses.SARELoss, losses.PlaceSARELoss])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "both"}, r"\['independent', 'joint'\].*form='both'"),
        ({"kernel": "box"}, r"'cauchy', 'exponential'.*kernel='box'"),
        ({"inverse_bandwidth": 0.0}, "positive.*inverse_bandwidth=0.0"),
        ({"inverse_bandwidth": -1}, "positive.*inverse_bandwidth=-1"),
        ({"inverse_bandwidth": np.nan}, "finite.*inverse_bandwidth=nan"),
    ],
)
def test_unknown_settings_are_refused(loss, settings, message):
    with pytest.raises(ValueError, match=message):
        loss(**settings)


def test_a_number_of_hardest_negatives_below_0_is_refused():
    with pytest.raises(ValueError, match="hardest_negatives=-1"):
        losses.PlaceSARELoss(hardest_negatives=-1)


def mined_place_sare(labels, x, form, kernel, weights, bandwidth=3.0):
    """The definition, of the pairs that the miner of Multi-Similarity keeps."""
    result, kept = [], 0
    for a, anchor in enumerate(x):
        others = [i for i in range(len(x)) if i != a]
        positives = [i for i in others if labels[i] == labels[a]]
        negatives = [i for i in others if labels[i] != labels[a]]
        lowest = min([anchor @ x[p] for p in positives], default=np.inf)
        highest = max([anchor @ x[n] for n in negatives], default=-np.inf)
        positives = [p for p in positives if anchor @ x[p] - 0.1 < highest]
        negatives = [
            squared(anchor, x[n])
            for n in negatives
            if anchor @ x[n] + 0.1 > lowest
        ]
        kept += len(positives) + len(negatives)
        terms = [
            sare(squared(anchor, x[p]), negatives, form, kernel, bandwidth)
            for p in positives
            if negatives
        ]
        of_positives = [weights[a][p] for p in positives if negatives]
        result.append(np.average(terms, weights=of_positives) if terms else 0)
    return np.array(result), kept


@pytest.mark.parametrize(("form", "kernel"), SETTINGS)
def test_mined_and_weighted_pairs_follow_the_definition(form, kernel):
    labels = np.array([3, 8, 3, 5, 8, 3, 8])
    x = unit_vectors(7, 8, seed=1)
    weights = np.random.default_rng(0).uniform(0.1, 3.0, (7, 7))
    loss = losses.PlaceSARELoss(
        form=form,
        kernel=kernel,
        inverse_bandwidth=3.0,
        miner="multi_similarity",
    )
    expected, kept = mined_place_sare(labels, x, form, kernel, weights)
    assert kept < 7 * 6
    found = loss.call_with_weights(
        labels,
        ops.convert_to_tensor(x.astype(np.float32)),
        positive_weights=weights.astype(np.float32),
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), expected, rtol=2e-6, atol=1e-6
    )
    np.testing.assert_allclose(
        gradient(loss, labels, x),
        finite_differences(
            lambda y: mined_place_sare(
                labels, y, form, kernel, np.ones((7, 7))
            )[0].mean(),
            x,
        ),
        atol=3e-6,
        rtol=0,
    )


@pytest.mark.parametrize(("form", "kernel"), SETTINGS)
def test_hardest_negatives_alone_repel(form, kernel):
    """2 of 4 or 5, in tuples of the definition; 9 are all there are."""
    x = unit_vectors(7, 8).astype(np.float32)
    labels = np.array([0, 1, 0, 2, 2, 1, 0])
    for count in (2, 9):
        loss = losses.PlaceSARELoss(
            form=form, kernel=kernel, hardest_negatives=count
        )
        expected = []
        for a, place in enumerate(labels):
            distances = [squared(x[a], other) for other in x]
            repelling = np.sort(
                [
                    d
                    for d, other in zip(distances, labels, strict=True)
                    if other != place
                ]
            )[:count]
            expected.append(
                np.mean(
                    [
                        sare(distances[p], repelling, form, kernel)
                        for p in np.flatnonzero(labels == place)
                        if p != a
                    ]
                )
            )
        np.testing.assert_allclose(value(loss, labels, x), expected, rtol=2e-5)


def test_scalings_are_checked():
    with pytest.raises(ValueError, match="Received: scaling='mean'"):
        losses.SARELoss(scaling="mean")
    with pytest.raises(ValueError, match="already a mean over negatives"):
        losses.SARELoss(form="independent", scaling="negatives")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 8), r"\[B, T, D\].*over_tuples"),
        ((4, 2, 8), "T >= 3"),
    ],
)
def test_tuples_of_a_wrong_shape_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        losses.SARELoss().call(None, unit_vectors(*shape))


@pytest.mark.parametrize(
    ("loss", "shape"),
    [(losses.SARELoss, (4, 3, 8)), (losses.PlaceSARELoss, (4, 8))],
)
@pytest.mark.parametrize("length", [0.0, 0.98, 3.0, np.nan])
def test_descriptors_not_of_unit_length_are_refused(loss, shape, length):
    x = unit_vectors(*shape)
    x[-1] *= length
    with pytest.raises(ValueError, match=r"unit length.*UnitNormalization\(\)"):
        loss().call(np.zeros(4), x)


@pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="Keras compiles no graph with PyTorch: lengths are always seen.",
)
def test_a_compiled_graph_does_not_look_at_lengths():
    model = keras.Sequential([keras.layers.Identity()])
    model.compile(loss=losses.SARELoss(), run_eagerly=False)
    x = 3.0 * unit_vectors(1, 3, 8).astype(np.float32)
    found = model.evaluate(x, np.zeros(1), verbose=0)
    np.testing.assert_allclose(
        found, loss_of_tuple(x[0], "joint", "gaussian"), rtol=1e-5
    )


def test_places_of_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"\[B, D\].*such as SARELoss"):
        losses.PlaceSARELoss().call(np.ones(4), unit_vectors(4, 3, 8))


@pytest.mark.parametrize(
    "function", [losses.sare_joint, losses.sare_independent]
)
@pytest.mark.parametrize(
    "shapes", [((4, 1), (4, 2)), ((4,), (4,)), ((4,), (4, 0))]
)
def test_distances_of_a_wrong_shape_are_refused(function, shapes):
    with pytest.raises(ValueError, match="at least one negative"):
        function(*(ops.ones(shape) for shape in shapes))


def test_functions_check_their_settings():
    with pytest.raises(ValueError, match="kernel='box'"):
        losses.sare_joint(ops.ones(1), ops.ones((1, 1)), kernel="box")
