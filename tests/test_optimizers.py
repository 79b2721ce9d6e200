"""CoupledSGD against the update written out in numpy."""

import keras
import numpy as np

from sare_tf import optimizers


def test_follows_the_reference_also_after_a_change_of_rate():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 2)).astype(np.float32)
    gradients = rng.normal(size=(6, 3, 2)).astype(np.float32)
    rates = [0.1, 0.1, 0.1, 0.05, 0.05, 0.05]

    # deepIBL: m <- .9 m - .001 w - g; w <- w + rate * m.
    expected, momentum = weight.astype(np.float64), np.zeros((3, 2))
    for gradient, rate in zip(gradients, rates, strict=True):
        momentum = 0.9 * momentum - 0.001 * expected - gradient
        expected = expected + rate * momentum

    variable = keras.Variable(weight)
    optimizer = optimizers.CoupledSGD(0.1)
    optimizer.build([variable])
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.learning_rate = rate
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(variable.value), expected, atol=1e-6
    )


def test_reloads_from_its_config():
    optimizer = optimizers.CoupledSGD(
        0.2, momentum=0.8, weight_decay=0.01, name="mine"
    )
    again = optimizers.CoupledSGD.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
