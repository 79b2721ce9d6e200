"""Heads that pool, against loops over locations."""

import functools
import math

import keras
import layer_contract
import numpy as np
import pytest
import toy_heads
from layer_contract import feature_maps, numpy
from toy_heads import unit

from sare_tf.model.heads.class_token import UnitClassToken
from sare_tf.model.heads.convap import ConvAP
from sare_tf.model.heads.gem_linear import GeMLinear


def gem_linear(image, weights):
    exponent = float(weights["exponent"])
    rows = [unit(np.float64(x)) for row in image for x in row]
    powers = [np.maximum(x, 1e-6) ** exponent for x in rows]
    pooled = (sum(powers) / len(powers)) ** (1 / exponent)
    return unit(pooled @ weights["kernel"] + weights["bias"])


def convap(image, weights, *, regions=3):
    height, width, _ = image.shape
    x = np.float64(image) @ weights["projection_kernel"]
    x = x + weights["projection_bias"]
    values = []
    for channel in range(x.shape[2]):
        for i in range(regions):
            for j in range(regions):
                # As torch.nn.AdaptiveAvgPool2d has its regions.
                top = math.floor(i * height / regions)
                bottom = math.ceil((i + 1) * height / regions)
                left = math.floor(j * width / regions)
                right = math.ceil((j + 1) * width / regions)
                values.append(x[top:bottom, left:right, channel].mean())
    return unit(np.array(values))


HEADS = {
    "gem_linear": (functools.partial(GeMLinear, length=4), gem_linear),
    "convap": (functools.partial(ConvAP, channels=2, regions=3), convap),
}


@pytest.mark.parametrize("check", layer_contract.CHECKS)
@pytest.mark.parametrize("name", HEADS)
def test_contract(name, check, tmp_path):
    make, oracle = HEADS[name]
    make, weights = toy_heads.drawn(make, (None, None, None, 5))
    check(make, lambda image: oracle(image, weights), tmp_path)


def test_class_token():
    tokens = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    layer = UnitClassToken(dtype="mixed_bfloat16", name="class_token")
    found = layer(feature_maps(batch=3), tokens)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    rounded = numpy(
        keras.ops.cast(keras.ops.cast(tokens, "bfloat16"), "float32")
    )
    np.testing.assert_allclose(
        numpy(found), [unit(token) for token in rounded], atol=1e-6
    )
    symbolic = layer(keras.Input((6, 9, 5)), keras.Input((5,)))
    assert (symbolic.shape, symbolic.dtype) == ((None, 5), "float32")
