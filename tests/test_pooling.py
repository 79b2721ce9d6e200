"""Poolings against plain loops over locations and regions."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from sare_tf.model import MAC, RMAC, GeM, SPoC

LAYERS = {
    "gem": lambda **options: GeM(**options),
    "mac": lambda **options: MAC(**options),
    "spoc": lambda **options: SPoC(**options),
    "rmac": lambda **options: RMAC(**options),
}


def unit(x):
    return x / np.sqrt(np.sum(x * x) + 1e-12)


def locations(image):
    return [np.float64(x) for row in image for x in row]


def gem(image, p=3.0):
    powers = [np.maximum(x, 1e-6) ** p for x in locations(image)]
    return unit((sum(powers) / len(powers)) ** (1 / p))


def mac(image):
    largest = np.full(image.shape[-1], -np.inf)
    for x in locations(image):
        largest = np.maximum(largest, x)
    return unit(largest)


def spoc(image):
    return unit(sum(locations(image)))


def regions(height, width, levels=3):
    """Top, left, side, by areas and with real numbers."""
    shorter = min(height, width)
    candidates = []
    for steps in range(2, 8):
        distance = (max(height, width) - shorter) / (steps - 1)
        overlap = (shorter**2 - shorter * distance) / shorter**2
        candidates.append(abs(overlap - 0.4))
    extra = int(np.argmin(candidates)) + 1
    extra_rows = extra if height > width else 0
    extra_columns = extra if width > height else 0
    result = []
    for level in range(1, levels + 1):
        side = math.floor(2 * shorter / (level + 1))
        for i in range(level + extra_rows):
            for j in range(level + extra_columns):
                corner = []
                for index, length, count in (
                    (i, height, level + extra_rows),
                    (j, width, level + extra_columns),
                ):
                    gap = (length - side) / (count - 1) if count > 1 else 0.0
                    corner.append(math.floor(index * gap + 1e-9))
                result.append((*corner, side))
    return result


def rmac(image):
    total = np.zeros(image.shape[-1])
    for top, left, side in regions(*image.shape[:2]):
        total += mac(image[top : top + side, left : left + side])
    return unit(total)


ORACLES = {"gem": gem, "mac": mac, "spoc": spoc, "rmac": rmac}
SIZES = [(4, 4), (6, 9), (9, 6), (5, 30), (15, 20), (7, 8)]


def feature_maps(height=6, width=9, *, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, height, width, 5)).astype(np.float32)


def numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LAYERS)
def test_follows_its_definition(name, size):
    features = feature_maps(*size)
    found = numpy(LAYERS[name]()(features))
    expected = [ORACLES[name](image) for image in features]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_unknown_sizes_in_eager_and_graph(name, eager):
    images = keras.Input((None, None, 5))
    outputs = LAYERS[name]()(images)
    assert outputs.shape == (None, 5)
    model = keras.Model(images, outputs)
    model.compile(run_eagerly=eager)
    for size in SIZES[:3]:
        features = feature_maps(*size, seed=3)
        expected = [ORACLES[name](image) for image in features]
        found = model.predict(features, verbose=0)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_output_is_float32_under_mixed_precision(name):
    layer = LAYERS[name](dtype="mixed_bfloat16")
    rounded = ops.cast(ops.convert_to_tensor(feature_maps()), "bfloat16")
    found = layer(rounded)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert layer(keras.KerasTensor((None, 6, 9, 5))).dtype == "float32"
    exact = numpy(ops.cast(rounded, "float32"))
    expected = [ORACLES[name](image) for image in exact]
    np.testing.assert_allclose(numpy(found), expected, atol=2e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_saved_and_loaded(name, tmp_path):
    options = {
        "gem": {"p": 2.5, "epsilon": 1e-4},
        "rmac": {"levels": 2},
    }.get(name, {})
    layer = LAYERS[name](name="aggregate", **options)
    images = keras.Input((None, None, 5))
    model = keras.Model(images, layer(images))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_layer("aggregate").get_config() == layer.get_config()
    features = feature_maps()
    np.testing.assert_array_equal(
        numpy(again(features)), numpy(model(features))
    )


@pytest.mark.parametrize("name", LAYERS)
def test_features_of_zero_are_finite(name):
    found = numpy(LAYERS[name]()(np.zeros((1, 4, 6, 5), np.float32)))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("p", [1.0, 3.0, 30.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_gem_of_any_exponent_and_size(p, scale):
    features = scale * np.abs(feature_maps())
    found = numpy(GeM(p=p)(features))
    expected = [gem(image, p) for image in features]
    np.testing.assert_allclose(found, expected, atol=3e-6)


def test_exponent_of_gem_is_trained():
    features = np.abs(feature_maps())
    target = np.stack([gem(image, 6.0) for image in features])
    layer = GeM()
    model = keras.Sequential([layer])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.train_on_batch(features, target)
    change = float(numpy(layer.exponent)) - 3.0

    def error(p):
        return np.mean((np.stack([gem(f, p) for f in features]) - target) ** 2)

    slope = (error(3 + 1e-4) - error(3 - 1e-4)) / 2e-4
    np.testing.assert_allclose(change, -slope, rtol=1e-3)


def test_regions_of_an_image_of_640_by_480():
    # 30 x 40 locations: 2 of side 30, 6 of 20, 12 of 15.
    found = regions(30, 40)
    sides = [side for *_, side in found]
    assert [sides.count(side) for side in (30, 20, 15)] == [2, 6, 12]
    features = feature_maps(30, 40, batch=1)
    np.testing.assert_allclose(
        numpy(RMAC()(features)), [rmac(features[0])], atol=1e-6
    )


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="positive p.*p=0"):
        GeM(p=0)
    with pytest.raises(ValueError, match="positive epsilon.*epsilon=0"):
        GeM(epsilon=0)
    with pytest.raises(ValueError, match="levels=0"):
        RMAC(levels=0)


@pytest.mark.parametrize("name", LAYERS)
def test_wrong_rank_is_refused(name):
    with pytest.raises(ValueError, match=r"\[B, H, W, C\].*\(None, 7, 5\)"):
        LAYERS[name]()(keras.KerasTensor((None, 7, 5)))
