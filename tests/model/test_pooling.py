"""Poolings against plain loops over locations and regions."""

import functools
import math

import keras
import layer_contract
import numpy as np
import pytest
from layer_contract import feature_maps, numpy

from sare_tf.model import MAC, RMAC, GeM, SPoC

LAYERS = {"gem": GeM, "mac": MAC, "rmac": RMAC, "spoc": SPoC}


def unit(x):
    return x / np.sqrt(np.sum(x * x) + 1e-12)


def locations(image):
    return [np.float64(x) for row in image for x in row]


def gem(image, *, p=3.0, epsilon=1e-6, unit_locations=False):
    all_of_them = locations(image)
    if unit_locations:
        all_of_them = [x / max(np.linalg.norm(x), 1e-12) for x in all_of_them]
    powers = [np.maximum(x, epsilon) ** p for x in all_of_them]
    return unit((sum(powers) / len(powers)) ** (1 / p))


def mac(image):
    largest = np.full(image.shape[-1], -np.inf)
    for x in locations(image):
        largest = np.maximum(largest, x)
    return unit(largest)


def spoc(image):
    return unit(sum(locations(image)))


def regions(height, width, *, levels=3):
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


def rmac(image, *, levels=3):
    total = np.zeros(image.shape[-1])
    for top, left, side in regions(*image.shape[:2], levels=levels):
        total += mac(image[top : top + side, left : left + side])
    return unit(total)


ORACLES = {"gem": gem, "mac": mac, "spoc": spoc, "rmac": rmac}
SIZES = [(4, 4), (6, 9), (9, 6), (5, 30), (15, 20), (7, 8)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LAYERS)
def test_follows_its_definition(name, size):
    features = feature_maps(*size)
    found = numpy(LAYERS[name]()(features))
    expected = [ORACLES[name](image) for image in features]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("check", layer_contract.CHECKS)
@pytest.mark.parametrize("name", LAYERS)
def test_contract(name, check, tmp_path):
    options = {
        "gem": {"p": 2.5, "epsilon": 1e-4},
        "rmac": {"levels": 2},
    }.get(name, {})
    oracle = functools.partial(ORACLES[name], **options)
    check(functools.partial(LAYERS[name], **options), oracle, tmp_path)


@pytest.mark.parametrize("check", layer_contract.CHECKS)
def test_contract_of_gem_over_unit_locations(check, tmp_path):
    options = {"p": 2.5, "unit_locations": True}
    oracle = functools.partial(gem, **options)
    check(functools.partial(GeM, **options), oracle, tmp_path)


@pytest.mark.parametrize("p", [1.0, 3.0, 30.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_gem_of_any_exponent_and_size(p, scale):
    features = scale * np.abs(feature_maps())
    found = numpy(GeM(p=p)(features))
    expected = [gem(image, p=p) for image in features]
    np.testing.assert_allclose(found, expected, atol=3e-6)


def test_exponent_of_gem_is_trained():
    features = np.abs(feature_maps())
    target = np.stack([gem(image, p=6.0) for image in features])
    layer = GeM()
    model = keras.Sequential([layer])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.train_on_batch(features, target)
    change = float(numpy(layer.exponent)) - 3.0

    def error(p):
        return np.mean(
            (np.stack([gem(f, p=p) for f in features]) - target) ** 2
        )

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
