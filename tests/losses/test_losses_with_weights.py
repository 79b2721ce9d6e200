"""CosFace and a changing inverse bandwidth, against their definitions.

`tests/training/test_place_network.py` trains them.
"""

import json
import math

import keras
import numpy as np
import pytest
from keras import ops
from toy_descriptors import finite_differences, gradient, unit_vectors, value

from sare_tf import losses

BACKEND = keras.backend.backend()
# Of 5 places, all of the dataset; two are not in the batch.
LABELS = np.array([4, 1, 2, 4, 1, 1])
OTHERS = {"margin": 0.2, "scale": 12.0}


def cosface(label, x, directions, *, margin=0.4, scale=30.0):
    cosines = [x @ w / math.sqrt(w @ w) for w in directions]
    own = math.exp(scale * (cosines[label] - margin))
    rest = sum(math.exp(scale * c) for i, c in enumerate(cosines) if i != label)
    return -math.log(own / (own + rest))


def cosface_loss(**settings):
    """A loss over 5 places, with directions that are not of unit length."""
    loss = losses.PlaceCosFaceLoss(num_places=5, **settings)
    loss.layer.build((None, 4))
    directions = np.random.default_rng(1).normal(size=(5, 4))
    loss.layer.set_weights([directions.astype(np.float32)])
    return loss, directions


@pytest.mark.parametrize("settings", [{}, OTHERS], ids=["defaults", "others"])
def test_cosface_follows_the_definition(settings):
    loss, directions = cosface_loss(**settings)
    x = unit_vectors(6, 4).astype(np.float32)
    expected = [
        cosface(label, y, directions, **settings)
        for label, y in zip(LABELS, x.astype(float), strict=True)
    ]
    for labels in (LABELS, LABELS[:, None].astype(np.float32)):
        found = value(loss, labels, x)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        # Through Keras, which casts labels.
        np.testing.assert_allclose(
            float(loss(labels, x)), np.mean(expected), rtol=1e-5
        )


def test_cosface_tells_the_places_of_a_group_apart():
    """Places 0 to 2 are a group, and 3 and 4."""
    loss, directions = cosface_loss(**OTHERS, group_sizes=(3, 2))
    x = unit_vectors(6, 4).astype(np.float32)
    expected = [
        cosface(label, y, directions[:3], **OTHERS)
        if label < 3
        else cosface(label - 3, y, directions[3:], **OTHERS)
        for label, y in zip(LABELS, x.astype(float), strict=True)
    ]
    found = value(loss, LABELS, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    again = losses.PlaceCosFaceLoss.from_config(
        json.loads(json.dumps(loss.get_config()))
    )
    assert again.get_config() == loss.get_config()
    with pytest.raises(ValueError, match=r"num_places=5, 6 in group_sizes=\[3"):
        losses.PlaceCosFaceLoss(num_places=5, group_sizes=(3, 3))


def test_gradient_of_cosface_equals_finite_differences():
    loss, directions = cosface_loss(**OTHERS)
    x = unit_vectors(6, 4, seed=2)
    expected = finite_differences(
        lambda batch: np.mean(
            [
                cosface(label, y, directions, **OTHERS)
                for label, y in zip(LABELS, batch, strict=True)
            ]
        ),
        x,
    )
    np.testing.assert_allclose(
        gradient(loss, LABELS, x), expected, atol=3e-6, rtol=1e-5
    )


def test_cosface_in_low_precision_is_computed_in_float32():
    loss, directions = cosface_loss()
    rounded = ops.cast(unit_vectors(6, 4).astype(np.float32), "bfloat16")
    found = loss.call(LABELS, rounded)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    exact = ops.convert_to_numpy(ops.cast(rounded, "float32")).astype(float)
    expected = [
        cosface(label, y, directions)
        for label, y in zip(LABELS, exact, strict=True)
    ]
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_numbers_of_many_places_arrive_exactly(dtype):
    """Neighbours of which a float of 8 bits has one; the last of 70,000."""
    loss = losses.PlaceCosFaceLoss(
        num_places=70_000, margin=0.5, dtype=dtype, reduction=None
    )
    loss.layer.build((None, 2))
    directions = np.zeros((70_000, 2), np.float32) + [0.0, 1.0]
    directions[[65_537, 69_999]] = [1.0, 0.0]
    loss.layer.set_weights([directions])
    x = np.repeat(np.float32([[1.0, 0.0]]), 4, axis=0)
    found = loss(np.array([65_536, 65_537, 69_998, 69_999]), x)
    found = ops.convert_to_numpy(ops.cast(found, "float32"))
    # log(2 e^30 + ...) less 30 (0 - .5) or 30 (1 - .5), and log(e^15 + e^30).
    expected = np.array([45 + np.log(2), 15, 45 + np.log(2), 15])
    np.testing.assert_allclose(found, expected, rtol=0.01)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 5], "from 0 to 4. Received: 5.*The loss has 5 places"),
        ([-1, 2], "Received: -1"),
        (np.eye(5)[[0, 1]], "argmax.*one-hot"),
        (np.float32([0, np.nan]), "Received: nan"),
    ],
)
def test_labels_of_no_place_are_refused(labels, message):
    loss, _ = cosface_loss()
    x = unit_vectors(2, 4).astype(np.float32)
    for call in (loss, loss.call):
        with pytest.raises(ValueError, match=message):
            call(np.array(labels), x)


def test_descriptors_of_no_unit_length_are_refused():
    loss, _ = cosface_loss()
    with pytest.raises(ValueError, match="unit length"):
        loss.call(LABELS, 2 * unit_vectors(6, 4))


def sare_with(bandwidth, **settings):
    return losses.PlaceSARELoss(inverse_bandwidth=bandwidth, **settings)


PLACES = np.array([0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize("kernel", ["gaussian", "cauchy", "exponential"])
@pytest.mark.parametrize("learned", [True, False])
def test_a_bandwidth_that_changes_gives_the_loss_of_its_value(kernel, learned):
    x = unit_vectors(6, 4).astype(np.float32)
    bandwidth = losses.InverseBandwidth(7.0, learned=learned)
    loss = sare_with(bandwidth, kernel=kernel)
    assert loss.layer is bandwidth
    np.testing.assert_allclose(float(bandwidth.value), 7.0, rtol=1e-6)
    np.testing.assert_allclose(
        value(loss, PLACES, x),
        value(sare_with(7.0, kernel=kernel), PLACES, x),
        rtol=1e-5,
    )
    tuples = unit_vectors(2, 5, 4).astype(np.float32)
    np.testing.assert_allclose(
        value(
            losses.SARELoss(inverse_bandwidth=bandwidth, kernel=kernel),
            None,
            tuples,
        ),
        value(
            losses.SARELoss(inverse_bandwidth=7.0, kernel=kernel), None, tuples
        ),
        rtol=1e-5,
    )


@pytest.mark.parametrize("position", [-200.0, -3.0, 0.0, 3.0, 200.0])
def test_a_learned_bandwidth_stays_between_its_limits(position):
    bandwidth = losses.InverseBandwidth(7.0, minimum=2.0, maximum=50.0)
    bandwidth.set_weights([np.float32(position)])
    found = float(bandwidth.value)
    share = 1 / (1 + math.exp(-position))
    np.testing.assert_allclose(found, 2 * 25**share, rtol=1e-5)
    assert 2.0 <= found <= 50.001


def test_a_scheduled_bandwidth_is_set():
    bandwidth = losses.InverseBandwidth(7.0, learned=False)
    bandwidth.assign(300.0)
    assert float(bandwidth.value) == 300.0
    assert not bandwidth.trainable_weights
    with pytest.raises(ValueError, match="not learned.*learned=True"):
        losses.InverseBandwidth(7.0).assign(3.0)


def test_configurations_come_back():
    bandwidth = losses.InverseBandwidth(
        7.0, learned=True, minimum=2.0, maximum=50.0
    )
    for loss in (
        sare_with(bandwidth, form="independent"),
        losses.SARELoss(inverse_bandwidth=bandwidth),
        losses.PlaceCosFaceLoss(num_places=5, margin=0.2, scale=64.0),
    ):
        config = json.loads(json.dumps(keras.losses.serialize(loss)))
        again = keras.losses.deserialize(config)
        assert type(again) is type(loss)
        assert again.get_config() == loss.get_config()
        assert type(again.layer) is type(loss.layer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initial": 0.0}, "positive and finite.*inverse_bandwidth=0.0"),
        ({"initial": 0.5}, "between its limits.*inverse_bandwidth=0.5"),
        ({"initial": 5.0, "maximum": 5.0}, "maximum=5.0"),
        ({"initial": 5.0, "minimum": -1.0}, "Received: minimum=-1.0"),
    ],
)
def test_limits_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        losses.InverseBandwidth(**settings)
