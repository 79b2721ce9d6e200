"""Rates of single weights and decay to the start, against plain numpy."""

import keras
import numpy as np
import pytest
import toy_vit

from sare_tf.model import build_embedder, vit
from sare_tf.training import fine_tuning_optimizers, rate_factors

FACTORS = (0.25, 1.0, 0.0)
RATE, DECAY, TO_START = 0.1, 0.2, 0.3


def _numpy_sgd(weight, start, gradients, factor, decay):
    """m <- 0.9 m + g + decay (w - start); w <- w - factor * rate * m."""
    momentum = 0.0
    for gradient in gradients:
        momentum = 0.9 * momentum + gradient + decay * (weight - start)
        weight = weight - factor * RATE * momentum
    return weight


def _numpy_adamw(weight, start, gradients, factor, decay):
    """Algorithm 2 of Loshchilov and Hutter 2019, with a rate of its own."""
    rate, first, second = factor * RATE, 0.0, 0.0
    for step, gradient in enumerate(gradients, start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        weight = weight - rate * decay * (weight - start)
        weight = weight - rate * (first / (1 - 0.9**step)) / (
            np.sqrt(second / (1 - 0.999**step)) + 1e-7
        )
    return weight


@pytest.mark.parametrize(
    ("name", "in_numpy"), [("sgd", _numpy_sgd), ("adam", _numpy_adamw)]
)
@pytest.mark.parametrize("l2_to_start", [0.0, TO_START])
def test_each_weight_has_its_rate_and_the_first_two_a_start(
    name, in_numpy, l2_to_start
):
    """Four weights: the last one has no factor; two are pulled. 6 steps."""
    rng = np.random.default_rng(0)
    starts = rng.normal(size=(4, 3))
    gradients = rng.normal(size=(6, 4, 3))
    variables = [keras.Variable(start.astype(np.float32)) for start in starts]
    optimizer = fine_tuning_optimizers.build(
        name,
        learning_rate=RATE,
        weight_decay=DECAY,
        rate_factors=FACTORS,
        l2_to_start=l2_to_start,
        num_pulled=2,
    )
    optimizer.build(variables)
    for step in gradients:
        optimizer.apply(
            [keras.ops.convert_to_tensor(g.astype(np.float32)) for g in step],
            variables,
        )
    for number, variable in enumerate(variables):
        is_pulled = number < 2 and l2_to_start
        expected = in_numpy(
            starts[number],
            starts[number] if is_pulled else 0.0,
            gradients[:, number],
            (*FACTORS, 1.0)[number],
            TO_START if is_pulled else DECAY,
        )
        # Keras scales its epsilon by the correction of the second moment.
        np.testing.assert_allclose(variable.numpy(), expected, atol=1e-5)
    again = type(optimizer).from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()


def test_without_factors_the_optimizer_is_the_plain_one():
    optimizer = fine_tuning_optimizers.build(
        "adam", learning_rate=RATE, weight_decay=DECAY, rate_factors=[1.0, 1.0]
    )
    assert type(optimizer) is keras.optimizers.AdamW


def _by_layer(embedder, **settings):
    """Layer or weight -> factor, of the trained weights."""
    factors = rate_factors.of_embedder(
        embedder,
        **{
            "backbone_rate": 1.0,
            "head_rate": 1.0,
            "netvlad_rate": 1.0,
            "layer_decay": 1.0,
            **settings,
        },
    )
    found = {}
    for weight, factor in zip(embedder.trainable_weights, factors, strict=True):
        layer, name = weight.path.split("/")[-2:]
        key = name if layer.startswith("netvlad") else layer.split("_")[0]
        assert found.setdefault(key, factor) == factor
    return found


def test_layer_wise_decay_by_hand():
    """Three blocks at 1/2: 1/2, 1/4, 1/8, and 1/16 below; all at a tenth."""
    network = vit.build(toy_vit.architecture(depth=3))
    network = keras.Model(network.input, network.get_layer("patches").output)
    embedder = build_embedder(backbone=network, aggregation="netvlad")
    assert _by_layer(
        embedder, backbone_rate=0.1, netvlad_rate=10.0, layer_decay=0.5
    ) == {
        "embedding": pytest.approx(0.1 / 16),
        "block0": pytest.approx(0.1 / 8),
        "block1": pytest.approx(0.1 / 4),
        "block2": pytest.approx(0.1 / 2),
        "norm": pytest.approx(0.1),
        "assignment": 10.0,
        "centres": 10.0,
    }


def test_rates_of_a_frozen_backbone_and_of_a_head_over_clusters():
    embedder = build_embedder(
        backbone="small", aggregation="netvlad_linear", train_from="stage4"
    )
    assert _by_layer(
        embedder, backbone_rate=0.5, head_rate=3.0, netvlad_rate=7.0
    ) == {
        "stage4": 0.5,
        "assignment": 7.0,
        "centres": 7.0,
        "kernel": 3.0,
        "bias": 3.0,
    }
    with pytest.raises(ValueError, match="layer_decay=1 with a backbone other"):
        _by_layer(embedder, layer_decay=0.5)
