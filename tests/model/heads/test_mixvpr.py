"""MixVPR against numpy, and against the original's values."""

import functools

import golden_foundation
import keras
import layer_contract
import numpy as np
import pytest
import toy_heads
from layer_contract import numpy
from toy_heads import dense, norm, unit

from sare_tf.model.heads.mixvpr import MixVPR

SHAPE = (None, 6, 9, 5)


def mixvpr(image, weights, *, num_mixers=2):
    x = np.float64(image).reshape(-1, image.shape[-1]).T  # [C, L]
    for mixer in range(num_mixers):
        y = norm(x, weights, f"mixer{mixer}")
        y = np.maximum(dense(y, weights, f"mixer{mixer}_hidden"), 0)
        x = x + dense(y, weights, f"mixer{mixer}_last")
    x = dense(x.T, weights, "channels").T  # [D, L]
    return unit(dense(x, weights, "rows").reshape(-1))


@pytest.fixture(scope="module")
def example():
    options = {"channels": 4, "rows": 3, "num_mixers": 2}
    return toy_heads.drawn(functools.partial(MixVPR, **options), SHAPE)


def test_follows_the_oracle(example, tmp_path):
    make, weights = example
    features = layer_contract.feature_maps(batch=3)
    expected = [mixvpr(image, weights) for image in features]
    maps = keras.Input(SHAPE[1:])
    model = keras.Model(maps, make(name="aggregate")(maps))
    assert model.output_shape == (None, 12)
    found = numpy(model(features))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(numpy(loaded(features)), found)
    layer = make()
    again = MixVPR.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    "check",
    [
        layer_contract.mixed_precision_gives_float32,
        layer_contract.another_rank_is_refused,
    ],
)
def test_contract(check, example, tmp_path):
    make, weights = example
    check(make, lambda image: mixvpr(image, weights), tmp_path)


def test_equals_the_original():
    values, state = golden_foundation.read("mixvpr")
    weights = {}
    for mixer in range(2):
        ours, theirs = f"mixer{mixer}", f"mix.{mixer}.mix"
        weights[f"{ours}_scale"] = state[f"{theirs}.0.weight"]
        weights[f"{ours}_bias"] = state[f"{theirs}.0.bias"]
        for index, name in ((1, "hidden"), (3, "last")):
            weights[f"{ours}_{name}_kernel"] = state[
                f"{theirs}.{index}.weight"
            ].T
            weights[f"{ours}_{name}_bias"] = state[f"{theirs}.{index}.bias"]
    for theirs, ours in (("channel_proj", "channels"), ("row_proj", "rows")):
        weights[f"{ours}_kernel"] = state[f"{theirs}.weight"].T
        weights[f"{ours}_bias"] = state[f"{theirs}.bias"]
    layer = toy_heads.filled(
        MixVPR(channels=6, rows=3, num_mixers=2), (None, 4, 5, 12), weights
    )
    found = numpy(layer(values["feat"].transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(found, values["out"], atol=1e-5, rtol=0)


def test_other_sizes_are_refused(example):
    make, _ = example
    with pytest.raises(ValueError, match="known size.*--image_height"):
        MixVPR()(keras.Input((None, 9, 5)))
    with pytest.raises(ValueError, match="axis 1"):
        make()(np.ones((1, 7, 9, 5), np.float32))
