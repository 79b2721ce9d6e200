"""BoQ against numpy, and against the original's values."""

import functools

import golden_foundation
import layer_contract
import numpy as np
import pytest
import toy_heads
from layer_contract import numpy
from toy_heads import attention, dense, norm, unit

from sare_tf.model.heads.boq import BoQ


def boq(image, weights, *, num_blocks=2):
    height, width, _ = image.shape
    kernel = np.float64(weights["projection_kernel"])
    padded = np.pad(np.float64(image), ((1, 1), (1, 1), (0, 0)))
    x = weights["projection_bias"] + sum(
        padded[i : i + height, j : j + width] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )
    x = norm(x.reshape(height * width, -1), weights, "input")
    answers = []
    for block in range(num_blocks):
        name = f"block{block}"
        x = x + attention(x, x, weights, f"{name}_encoder")
        x = norm(x, weights, f"{name}_encoder_first")
        hidden = np.maximum(dense(x, weights, f"{name}_encoder_hidden"), 0)
        x = x + dense(hidden, weights, f"{name}_encoder_last")
        x = norm(x, weights, f"{name}_encoder_second")
        q = np.float64(weights[f"{name}_queries"])
        q = norm(
            q + attention(q, q, weights, f"{name}_self"),
            weights,
            f"{name}_query",
        )
        answer = attention(q, x, weights, f"{name}_cross")
        answers.append(norm(answer, weights, f"{name}_answer"))
    rows = dense(np.concatenate(answers).T, weights, "rows")  # [D, R]
    return unit(rows.reshape(-1))


@pytest.fixture(scope="module")
def example():
    options = {"length": 128, "num_queries": 4, "num_blocks": 2, "rows": 3}
    make = functools.partial(BoQ, **options)
    return toy_heads.drawn(make, (None, None, None, 5))


@pytest.mark.parametrize("check", layer_contract.CHECKS)
def test_contract(check, example, tmp_path):
    make, weights = example
    check(make, lambda image: boq(image, weights), tmp_path)


def from_state(state, num_blocks):
    """The weights of the layer, of a state_dict of PyTorch."""
    weights = {
        "projection_kernel": state["proj_c.weight"].transpose(2, 3, 1, 0),
        "projection_bias": state["proj_c.bias"],
        "input_scale": state["norm_input.weight"],
        "input_bias": state["norm_input.bias"],
        "rows_kernel": state["fc.weight"].T,
        "rows_bias": state["fc.bias"],
    }
    for block in range(num_blocks):
        theirs, ours = f"boqs.{block}.", f"block{block}_"
        weights[f"{ours}queries"] = state[f"{theirs}queries"][0]
        for layer, name in (
            ("encoder.self_attn", "encoder"),
            ("self_attn", "self"),
            ("cross_attn", "cross"),
        ):
            kernels = np.split(state[f"{theirs}{layer}.in_proj_weight"], 3)
            biases = np.split(state[f"{theirs}{layer}.in_proj_bias"], 3)
            for index, part in enumerate(("query", "key", "value")):
                weights[f"{ours}{name}_{part}_kernel"] = kernels[index].T
                weights[f"{ours}{name}_{part}_bias"] = biases[index]
            out = f"{theirs}{layer}.out_proj"
            weights[f"{ours}{name}_out_kernel"] = state[f"{out}.weight"].T
            weights[f"{ours}{name}_out_bias"] = state[f"{out}.bias"]
        for layer, name in (("linear1", "hidden"), ("linear2", "last")):
            whole = f"{theirs}encoder.{layer}"
            weights[f"{ours}encoder_{name}_kernel"] = state[f"{whole}.weight"].T
            weights[f"{ours}encoder_{name}_bias"] = state[f"{whole}.bias"]
        for layer, name in (
            ("encoder.norm1", "encoder_first"),
            ("encoder.norm2", "encoder_second"),
            ("norm_q", "query"),
            ("norm_out", "answer"),
        ):
            weights[f"{ours}{name}_scale"] = state[f"{theirs}{layer}.weight"]
            weights[f"{ours}{name}_bias"] = state[f"{theirs}{layer}.bias"]
    return weights


def test_equals_the_original():
    values, state = golden_foundation.read("boq")
    layer = toy_heads.filled(
        BoQ(length=128, num_queries=8, num_blocks=2, rows=3),
        (None, None, None, 24),
        from_state(state, 2),
    )
    found = numpy(layer(values["feat"].transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(found, values["out"], atol=1e-5, rtol=0)


def test_the_lengths_are_those_of_the_published_networks():
    for options, channels, length in (
        ({}, 768, 12288),
        ({"length": 512}, 1024, 16384),
    ):
        shape = BoQ(**options).compute_output_shape((None, 8, 8, channels))
        assert shape == (None, length)


def test_other_lengths_are_refused():
    with pytest.raises(ValueError, match="multiple of 64.*length=96"):
        BoQ(length=96)
