"""CoupledSGD against the update written out in numpy."""

import keras
import numpy as np
import pytest

from sare_tf.training import optimizers


def test_follows_the_reference_also_after_a_change_of_rate():
    """30 steps; the rate is halved after each 10."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 2)).astype(np.float32)
    gradients = rng.normal(size=(30, 3, 2)).astype(np.float32)
    rates = np.repeat([0.04, 0.02, 0.01], 10)

    # deepIBL: m <- .9 m - .001 w - g; w <- w + rate * m.
    expected, momentum = weight.astype(np.float64), np.zeros((3, 2))
    for gradient, rate in zip(gradients, rates, strict=True):
        momentum = 0.9 * momentum - 0.001 * expected - gradient
        expected = expected + rate * momentum

    variable = keras.Variable(weight)
    optimizer = optimizers.CoupledSGD(0.04)
    optimizer.build([variable])
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.learning_rate = rate
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    found = keras.ops.convert_to_numpy(variable.value)
    np.testing.assert_allclose(found, expected, atol=1e-6)

    # The momentum of keras.optimizers.SGD holds the rate: another result.
    other = keras.Variable(weight)
    sgd = keras.optimizers.SGD(0.04, momentum=0.9, weight_decay=0.001)
    sgd.build([other])
    for gradient, rate in zip(gradients, rates, strict=True):
        sgd.learning_rate = rate
        sgd.apply([keras.ops.convert_to_tensor(gradient)], [other])
    assert abs(keras.ops.convert_to_numpy(other.value) - expected).max() > 0.01


def test_equals_stored_values_of_pytorch():
    """24 steps of torch.optim.SGD(lr=0.1, momentum=0.9, weight_decay=0.001).

    PyTorch 2.13.0, float64, StepLR(8, 0.5); gradient i of step t, from 0, is
    sin(i + t). Weights after 8, 16 and 24 steps.
    """
    stored = [
        [1.579473736, -1.524488931, 0.343475637],
        [1.387126876, -1.694447475, 0.341817193],
        [1.346926892, -1.686156870, 0.384693633],
    ]
    variable = keras.Variable([2.0, -1.0, 0.5])
    optimizer = optimizers.CoupledSGD(0.1)
    optimizer.build([variable])
    found = []
    for step in range(24):
        optimizer.learning_rate = 0.1 * 0.5 ** (step // 8)
        gradient = np.sin(np.arange(3) + step).astype(np.float32)
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        found.append(keras.ops.convert_to_numpy(variable.value))
    np.testing.assert_allclose(found[7::8], stored, atol=1e-6)


def test_three_steps_by_hand():
    """Momentum 0.5, decay 0.1, gradient 1, rate 1, then 0.5; from w = 2.

    step 1: m = 1 + 0.2 = 1.2;             w = 2 - 1.2 = 0.8
    step 2: m = 0.6 + 1 + 0.08 = 1.68;     w = 0.8 - 1.68 = -0.88
    step 3: m = 0.84 + 1 - 0.088 = 1.752;  w = -0.88 - 0.876 = -1.756
    """
    variable = keras.Variable([2.0])
    optimizer = optimizers.CoupledSGD(1.0, momentum=0.5, weight_decay=0.1)
    optimizer.build([variable])
    found = []
    for rate in (1.0, 1.0, 0.5):
        optimizer.learning_rate = rate
        optimizer.apply([keras.ops.ones(1)], [variable])
        found.append(float(variable.value[0]))
    np.testing.assert_allclose(found, [0.8, -0.88, -1.756], atol=1e-6)


def test_a_loss_divided_by_n_is_a_rate_divided_and_a_decay_multiplied():
    """What the flagfiles of SARE-Joint rely on, with N = 10."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=4).astype(np.float32)
    gradients = rng.normal(size=(20, 4)).astype(np.float32)
    found = []
    for scale, rate, decay in ((0.1, 0.1, 0.01), (1.0, 0.01, 0.1)):
        variable = keras.Variable(weight)
        optimizer = optimizers.CoupledSGD(rate, weight_decay=decay)
        optimizer.build([variable])
        for gradient in gradients:
            optimizer.apply(
                [keras.ops.convert_to_tensor(scale * gradient)], [variable]
            )
        found.append(keras.ops.convert_to_numpy(variable.value))
    np.testing.assert_allclose(*found, atol=1e-6)


def test_reloads_from_its_config():
    optimizer = optimizers.CoupledSGD(
        0.2, momentum=0.8, weight_decay=0.01, name="mine"
    )
    again = optimizers.CoupledSGD.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()


@pytest.mark.parametrize(
    ("epochs_done", "settings", "expected"),
    [
        # Halved after 2 and 4 epochs, in the middle of none.
        (0.0, {}, 0.8),
        (1.99, {}, 0.8),
        (2.0, {}, 0.4),
        (5.5, {}, 0.2),
        (5.5, {"halve_every": 0}, 0.8),
        # Warm-up over the first epoch: a quarter of it, a quarter of the rate.
        (0.0, {"warmup_epochs": 1}, 0.0),
        (0.25, {"warmup_epochs": 1}, 0.2),
        (1.0, {"warmup_epochs": 1}, 0.8),
        (2.0, {"warmup_epochs": 1}, 0.4),
        # cos(0) = 1, cos(pi / 3) = 1/2, cos(pi / 2) = 0, cos(pi) = -1.
        (0.0, {"schedule": "cosine"}, 0.8),
        (2.0, {"schedule": "cosine"}, 0.8 * 0.75),
        (3.0, {"schedule": "cosine"}, 0.4),
        (6.0, {"schedule": "cosine"}, 0.0),
        # Two epochs of warm-up leave four for the cosine.
        (0.5, {"schedule": "cosine", "warmup_epochs": 2}, 0.2),
        (2.0, {"schedule": "cosine", "warmup_epochs": 2}, 0.8),
        (4.0, {"schedule": "cosine", "warmup_epochs": 2}, 0.4),
    ],
)
def test_the_rate_by_hand(epochs_done, settings, expected):
    """Six epochs at 0.8."""
    settings = {
        "schedule": "halving",
        "learning_rate": 0.8,
        "epochs": 6,
        "warmup_epochs": 0,
        "halve_every": 2,
    } | settings
    rate = optimizers.rate_at(epochs_done, **settings)
    assert rate == pytest.approx(expected, abs=1e-7)


def test_adam_decays_weights_apart_from_the_gradient():
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) in numpy, 5 steps."""
    gradients = np.random.default_rng(0).normal(size=(5, 3))
    weight = np.asarray([2.0, -1.0, 0.5])
    variable = keras.Variable(weight.astype(np.float32))
    optimizer = optimizers.build("adam", learning_rate=0.1, weight_decay=0.2)
    optimizer.build([variable])
    first, second = np.zeros(3), np.zeros(3)
    for step, gradient in enumerate(gradients, start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        weight = weight - 0.1 * 0.2 * weight
        weight = weight - 0.1 * (first / (1 - 0.9**step)) / (
            np.sqrt(second / (1 - 0.999**step)) + 1e-7
        )
        tensor = keras.ops.convert_to_tensor(gradient.astype(np.float32))
        optimizer.apply([tensor], [variable])
    found = keras.ops.convert_to_numpy(variable.value)
    # Keras scales its epsilon by the correction of the second moment.
    np.testing.assert_allclose(found, weight, atol=1e-5)


def _line(momentum):
    """y = w x, squared error, rate 1/4, x = 1, y = 0: w <- w - w / 2.

    The gradient is 2 w, the step w / 2: 8, 4, 2, 1, and so on.
    """
    network = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False)]
    )
    network.set_weights([np.full((1, 1), 8.0, np.float32)])
    optimizer = optimizers.build(
        "sgd",
        learning_rate=0.25,
        weight_decay=0.0,
        averaging_momentum=momentum,
    )
    optimizer.momentum = 0.0
    network.compile(optimizer=optimizer, loss="mse")
    optimizer.build(network.trainable_variables)
    return network


def _fit(network, steps):
    network.fit(
        np.ones((steps, 1), np.float32),
        np.zeros((steps, 1), np.float32),
        batch_size=1,
        verbose=0,
        callbacks=[optimizers.KeepWeights()],
    )


def test_the_average_over_two_fits_by_hand(tmp_path):
    """Momentum 3/4, weights 4 and 2, then 1 and 1/2 in the next fit.

    step 1: a = 4                      (from the weights after the first step)
    step 2: a = 3/4 * 4 + 1/4 * 2     = 3.5
    step 3: a = 3/4 * 3.5 + 1/4 * 1   = 2.875
    step 4: a = 3/4 * 2.875 + 1/4 / 2 = 2.28125
    """
    network = _line(0.75)

    def weight():
        return float(network.get_weights()[0][0, 0])

    with optimizers.averaged(network):
        assert weight() == 8.0  # nothing to average yet
    for left, average in ((2.0, 3.5), (0.5, 2.28125)):
        _fit(network, 2)
        assert weight() == left
        with optimizers.averaged(network):
            assert weight() == average
            network.save(tmp_path / "model.keras")
        assert weight() == left
    # Who loads the file alone has the average; who goes on exchanges first.
    network = keras.models.load_model(tmp_path / "model.keras")
    assert weight() == 2.28125
    optimizers.exchange_average(network)
    assert weight() == 0.5
    _fit(network, 1)  # a = 3/4 * 2.28125 + 1/4 / 4
    assert weight() == 0.25
    with optimizers.averaged(network):
        assert weight() == 1.7734375


def test_without_an_average_nothing_is_exchanged():
    network = _line(0.0)
    _fit(network, 2)
    with optimizers.averaged(network):
        assert network.get_weights()[0][0, 0] == 2.0
