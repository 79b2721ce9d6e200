"""Heads that sum locations by cluster, against loops over locations."""

import functools

import layer_contract
import numpy as np
import pytest
import toy_heads
from layer_contract import numpy
from toy_heads import unit

from sare_tf.model.heads.hard_vlad import HardVLAD
from sare_tf.model.heads.netvlad_linear import NetVLADLinear
from sare_tf.model.heads.supervlad import SuperVLAD


def rows(image):
    return [unit(np.float64(x)) for row in image for x in row]


def shares(x, kernel):
    scores = np.exp(x @ np.float64(kernel))
    return scores / scores.sum()


def supervlad(image, weights):
    kernel = weights["assignment_kernel"]
    sums = np.zeros((kernel.shape[1], image.shape[-1]))
    for x in rows(image):
        sums += shares(x, kernel)[:, None] * x
    return unit(np.concatenate([unit(x) for x in sums[:3]]))


def hard_vlad(image, weights):
    centres = np.float64(weights["centres"])
    sums = np.zeros_like(centres)
    for x in rows(image):
        nearest = np.argmax([x @ unit(centre) for centre in centres])
        sums[nearest] += x - centres[nearest]
    return unit(np.concatenate([unit(x) for x in sums]))


def netvlad_linear(image, weights):
    centres = np.float64(weights["centres"])
    sums = np.zeros_like(centres)
    for x in rows(image):
        sums += shares(x, weights["assignment"])[:, None] * (x - centres)
    return unit(
        np.concatenate(
            [unit(x) @ weights["kernel"] + weights["bias"] for x in sums]
        )
    )


HEADS = {
    "supervlad": (
        functools.partial(SuperVLAD, num_clusters=3, num_ghosts=2),
        supervlad,
    ),
    "hard_vlad": (functools.partial(HardVLAD, num_clusters=4), hard_vlad),
    "netvlad_linear": (
        functools.partial(NetVLADLinear, num_clusters=3, cluster_length=2),
        netvlad_linear,
    ),
}


@pytest.mark.parametrize("check", layer_contract.CHECKS)
@pytest.mark.parametrize("name", HEADS)
def test_contract(name, check, tmp_path):
    make, oracle = HEADS[name]
    make, weights = toy_heads.drawn(make, (None, None, None, 5))
    check(make, lambda image: oracle(image, weights), tmp_path)


def test_a_cluster_without_locations_is_zero():
    layer = HardVLAD(num_clusters=2)
    layer.build((None, None, None, 2))
    layer.set_weights([np.float32([[1, 0], [-1, 0]])])
    # Both to the first: residuals (0, 1) of (1, 1) / sqrt(2) and of (0.8, 0.6).
    features = np.float32([[[[1, 1], [4, 3]]]])
    total = np.array([0.5**0.5 + 0.8 - 2, 0.5**0.5 + 0.6])
    expected = [*(total / np.linalg.norm(total)), 0, 0]
    np.testing.assert_allclose(numpy(layer(features))[0], expected, atol=1e-6)
    assert not layer.trainable_weights


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SuperVLAD(num_clusters=0), "num_clusters=0"),
        (lambda: SuperVLAD(num_ghosts=-1), "num_ghosts=-1"),
        (lambda: HardVLAD(num_clusters=0), "num_clusters=0"),
        (lambda: NetVLADLinear(num_clusters=1), "num_clusters=1"),
        (
            lambda: HardVLAD().build((None, None, None, None)),
            "known C.*None, None, None, None",
        ),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
