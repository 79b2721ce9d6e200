"""SARE over tuples with an inverse bandwidth that is learned.

The definition, in plain numpy: with u the weight and b = 2 * 15^sigmoid(u) the
inverse bandwidth between 2 and 30, d_p and d_i the squared distances, and g(x)
one of x, log(1 + x) and sqrt(x), the kernels,

    joint        log(1 + sum_i exp(g(b d_p) - g(b d_i)))
    independent  mean_i log(1 + exp(g(b d_p) - g(b d_i)))
"""

import logging

import keras
import numpy as np
import pytest
import toy_training
from finished_runs import assert_same_run, events
from toy_descriptors import finite_differences, squared

from sare_tf import losses, model, train
from sare_tf.training import optimizers
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import read_state

KERNELS = {"gaussian": lambda x: x, "cauchy": np.log1p, "exponential": np.sqrt}


def definition(position, descriptors, *, form, kernel):
    bandwidth = 2.0 * 15.0 ** (1.0 / (1.0 + np.exp(-position)))
    values = []
    for query, positive, *negatives in descriptors:
        near = KERNELS[kernel](bandwidth * squared(query, positive))
        ratios = [
            np.exp(near - KERNELS[kernel](bandwidth * squared(query, negative)))
            for negative in negatives
        ]
        if form == "joint":
            values.append(np.log(1.0 + sum(ratios)))
        else:
            values.append(np.mean([np.log(1.0 + ratio) for ratio in ratios]))
    return np.mean(values)


def network(optimizer, *, eager=False, **settings):
    """A small network over tuples, whose bandwidth is 10 at first."""
    keras.utils.set_random_seed(0)
    bandwidth = losses.InverseBandwidth(10.0, minimum=2.0, maximum=30.0)
    made = model.over_tuples(
        model.build_embedder(backbone="small", aggregation="gem")
    )
    made.compile(
        optimizer,
        losses.SARELoss(inverse_bandwidth=bandwidth, **settings),
        run_eagerly=eager,
    )
    made.optimizer.build(made.trainable_variables)
    return made


def tuples():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (3, 5, 16, 16, 3)).astype(np.float32)


def numpy(variables):
    return [keras.ops.convert_to_numpy(each) for each in variables]


@pytest.mark.parametrize("form", ["joint", "independent"])
@pytest.mark.parametrize("kernel", list(KERNELS))
def test_a_step_follows_the_gradient_of_the_definition(kernel, form):
    """Plain SGD with a rate of 0.1."""
    settings = {"kernel": kernel, "form": form}
    made = network(keras.optimizers.SGD(0.1), eager=True, **settings)
    weight = made.loss_layer.position
    before = keras.ops.convert_to_numpy(weight).astype(float)
    x = made.predict(tuples(), verbose=0).astype(float)
    found = float(made.train_on_batch(tuples()))
    expected = definition(before, x, **settings)
    assert found == pytest.approx(expected, rel=1e-5)
    by_definition = finite_differences(
        lambda position: definition(position, x, **settings), before
    )
    assert np.abs(by_definition) > 1e-4
    after = keras.ops.convert_to_numpy(weight).astype(float)
    np.testing.assert_allclose(
        after - before, -0.1 * by_definition, rtol=1e-3, atol=2e-7
    )


def test_the_weight_is_saved_and_resumed_and_does_not_decay(tmp_path):
    made = network(
        optimizers.build("adam", learning_rate=0.01, weight_decay=0.5)
    )
    weight = made.loss_layer.position
    before = keras.ops.convert_to_numpy(weight)
    made.optimizer.apply([0 * each for each in made.trainable_variables])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), before)
    made.train_on_batch(tuples())
    made.save(tmp_path / "network.keras")
    again = keras.saving.load_model(tmp_path / "network.keras")
    assert again.loss_layer is again.loss.layer
    for _ in range(2):
        found = [float(each.train_on_batch(tuples())) for each in (made, again)]
        assert found[0] == found[1]
    for a, b in zip(numpy(made.weights), numpy(again.weights), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_over_mined_tuples_resumes_with_its_bandwidth(
    toy_records, tmp_path, caplog
):
    """Bitwise, with an average of the weights; the log has the value."""
    options = {
        **toy_training.OPTIONS,
        "records": toy_records,
        "aggregation": "gem",
        "loss": "sare_independent",
        "learned_inverse_bandwidth": True,
        "inverse_bandwidth_limits": (2.0, 30.0),
        "learning_rate": 0.01,
        "averaging_momentum": 0.5,
    }
    with caplog.at_level(logging.INFO):
        whole = toy_training.RecordedRun(tmp_path, **options)
    _, *epochs = read_state(whole.finished)[1]["history"]
    values = [entry["inverse_bandwidth"] for entry in epochs]
    assert len({10.0, *values}) == 3
    assert all(2 < value < 30 for value in values)
    for value in values:
        assert f"inverse_bandwidth {value:.4g}" in caplog.text
    shown = [
        float(value)
        for _, tag, value in events(whole.finished)
        if tag == "train/inverse_bandwidth"
    ]
    # Two rounds an epoch.
    np.testing.assert_allclose(shown[1::2], values, rtol=1e-5)
    train.run(TrainingOptions(checkpoints=whole.after[1], **options))
    assert_same_run(whole.after[1], whole.finished)
