"""CoupledSGD against the update written out in numpy."""

import keras
import numpy as np

from sare_tf import optimizers


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
