"""Augmentation against its definition, pixel by pixel in plain numpy."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import sare_tf
from sare_tf.model import augmentation, rand_augment

HEIGHT, WIDTH = 11, 14
EFFECTS = list(augmentation.AUGMENTATION_DRAWS)
# XLA rounds otherwise, and RandAugment cuts off what lies behind the point.
CONTINUOUS = [name for name in EFFECTS if name != "randaugment"]


def images(batch=6, seed=0):
    rng = np.random.default_rng(seed)
    shape = (batch, HEIGHT, WIDTH, 3)
    return rng.integers(0, 256, shape).astype(np.uint8)


def draws(effects, batch=6, seed=1):
    count = sum(augmentation.AUGMENTATION_DRAWS[name] for name in effects)
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(batch, count)).astype(np.float32)


def bilinear(image, x, y):
    """The value between four pixels, weighed by the opposite areas."""
    left, top = min(int(x), WIDTH - 2), min(int(y), HEIGHT - 2)
    value = np.zeros(3)
    for row in (top, top + 1):
        for column in (left, left + 1):
            weight = (1 - abs(x - column)) * (1 - abs(y - row))
            value += weight * image[row, column]
    return value


def homography(corners):
    """3 x 3 from the unit square, by the eight equations of its corners."""
    square = [(0, 0), (1, 0), (1, 1), (0, 1)]
    equations, right = [], []
    for (u, v), (x, y) in zip(square, corners, strict=True):
        equations.append([u, v, 1, 0, 0, 0, -u * x, -v * x])
        equations.append([0, 0, 0, u, v, 1, -u * y, -v * y])
        right += [x, y]
    return np.append(np.linalg.solve(equations, right), 1).reshape(3, 3)


def warped(image, crop, perspective):
    left = top = 0.0
    side = 1.0
    if crop is not None:
        side = 0.75 + 0.25 * crop[0]
        left, top = crop[1] * (1 - side), crop[2] * (1 - side)
    moves = np.zeros(8) if perspective is None else 0.15 * perspective
    corners = [
        (left + side * (x + (1 - 2 * x) * moves[k]), y)
        for k, (x, y) in enumerate([(0, 0), (1, 0), (1, 1), (0, 1)])
    ]
    corners = [
        (x, top + side * (y + (1 - 2 * y) * moves[4 + k]))
        for k, (x, y) in enumerate(corners)
    ]
    matrix = homography(corners)
    result = np.zeros(image.shape)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            point = matrix @ (column / (WIDTH - 1), row / (HEIGHT - 1), 1)
            x, y = point[:2] / point[2] * (WIDTH - 1, HEIGHT - 1)
            x, y = np.clip((x, y), 0, (WIDTH - 1, HEIGHT - 1))
            result[row, column] = bilinear(image, x, y)
    return result


def recoloured(image, d):
    exposure = 0.7 + 0.65 * d[0]
    contrast = 0.75 + 0.55 * d[4]
    result = np.zeros(image.shape)
    for channel in range(3):
        gain = exposure * (0.88 + 0.24 * d[1 + channel])
        spread = (image[..., channel] - image.mean()) * contrast
        result[..., channel] = (spread + image.mean()) * gain
    return result.clip(0, 255)


def greyed(image, d):
    if d[0] >= 0.2:
        return image
    grey = image @ np.array([0.299, 0.587, 0.114])
    return np.stack([grey] * 3, axis=-1)


def erased(image, d):
    if d[0] >= 0.5:
        return image
    area = (0.02 + 0.38 * d[1]) * HEIGHT * WIDTH
    aspect = math.exp(math.log(0.3) * (2 * d[2] - 1))
    height = min(math.sqrt(area * aspect), HEIGHT)
    width = min(math.sqrt(area / aspect), WIDTH)
    top, left = d[3] * (HEIGHT - height), d[4] * (WIDTH - width)
    result = image.copy()
    for row in range(HEIGHT):
        for column in range(WIDTH):
            if (
                top <= row + 0.5 < top + height
                and left <= column + 0.5 < left + width
            ):
                result[row, column] = image.mean(axis=(0, 1))
    return result


def varied(image, d, effects):
    """The definition, for one image, float64."""
    of_effect, start = {}, 0
    for name, count in augmentation.AUGMENTATION_DRAWS.items():
        if name in effects:
            of_effect[name] = d[start : start + count].astype(np.float64)
            start += count
    if "randaugment" in effects:
        # test_rand_augment.py has its definition.
        draws_of_it = of_effect["randaugment"][None].astype(np.float32)
        image = rand_augment.apply(image[None], draws_of_it)[0]
    image = np.asarray(image, np.float64)
    if {"crop", "perspective"} & set(effects):
        image = warped(
            image, of_effect.get("crop"), of_effect.get("perspective")
        )
    if "colour" in effects:
        image = recoloured(image, of_effect["colour"])
    if "grey" in effects:
        image = greyed(image, of_effect["grey"])
    if "erase" in effects:
        image = erased(image, of_effect["erase"])
    return image


@pytest.mark.parametrize(
    "effects",
    [
        *[[name] for name in EFFECTS],
        ["crop", "perspective"],
        ["crop", "colour"],
        EFFECTS,
    ],
    ids="-".join,
)
def test_follows_the_definition(effects):
    d = draws(effects, batch=12)
    layer = augmentation.Augmentation(effects)
    assert d.shape[1] == layer.num_draws
    found = ops.convert_to_numpy(layer(images(12), d, training=True))
    expected = [
        varied(image, of_image, effects)
        for image, of_image in zip(images(12), d, strict=True)
    ]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-3, rtol=0)
    # Each effect does something to some of the images.
    assert np.abs(found - images(12)).max() > 20


@pytest.mark.parametrize(
    ("name", "low", "high"), [("grey", 0.2, 0.5), ("erase", 0.5, 0.8)]
)
def test_a_share_of_the_images_is_left_alone(name, low, high):
    d = draws([name], batch=2)
    d[:, 0] = low - 0.01, high
    found = ops.convert_to_numpy(
        augmentation.augment(images(2), d, effects=[name])
    )
    assert (found[0] != images(2)[0]).any()
    np.testing.assert_array_equal(found[1], images(2)[1])


@pytest.mark.parametrize("draw", [0.0, 1.0])
def test_the_ends_of_the_draws_stay_inside(draw):
    d = np.full_like(draws(EFFECTS), draw)
    white = np.full_like(images(), 255)
    layer = augmentation.Augmentation(EFFECTS)
    for batch in (white, images()):
        found = ops.convert_to_numpy(layer(batch, d, training=True))
        assert 0 <= found.min() <= found.max() <= 255
    crop = draws(["crop"]) * 0 + draw
    found = augmentation.augment(white, crop, effects=["crop"])
    np.testing.assert_allclose(ops.convert_to_numpy(found), 255, atol=1e-3)


def test_crop_is_what_tensorflow_cuts_and_enlarges():
    d = draws(["crop"])
    side = 0.75 + 0.25 * d[:, :1]
    left, top = d[:, 1:2] * (1 - side), d[:, 2:] * (1 - side)
    boxes = np.concatenate([top, left, top + side, left + side], axis=1)
    expected = tf.image.crop_and_resize(
        images(), boxes, range(6), (HEIGHT, WIDTH)
    )
    found = augmentation.augment(images(), d, effects=["crop"])
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), expected, atol=2e-3, rtol=0
    )


def test_an_image_is_varied_by_its_own_draws_alone():
    layer = augmentation.Augmentation(CONTINUOUS)
    d = draws(CONTINUOUS)
    whole = ops.convert_to_numpy(layer(images(), d, training=True))
    alone = ops.convert_to_numpy(layer(images()[3:4], d[3:4], training=True))
    np.testing.assert_allclose(alone[0], whole[3], atol=1e-3)
    alike = np.repeat(images()[:1], 6, axis=0)
    same = ops.convert_to_numpy(
        layer(alike, np.repeat(d[:1], 6, 0), training=True)
    )
    np.testing.assert_array_equal(same, np.repeat(same[:1], 6, axis=0))
    differ = ops.convert_to_numpy(layer(alike, d, training=True))
    assert len(np.unique(differ.reshape(6, -1), axis=0)) == 6


@pytest.mark.parametrize("jit", [False, True])
def test_unknown_sizes_in_a_graph(jit):
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = augmentation.Augmentation(CONTINUOUS)
    keras.config.set_dtype_policy("float32")
    inputs = [keras.Input((None, None, 3)), keras.Input((layer.num_draws,))]
    model = keras.Model(inputs, layer(*inputs, training=True))
    assert model.output_shape == (None, None, None, 3)
    call = tf.function(lambda *x: model(list(x)), jit_compile=jit)
    d = draws(CONTINUOUS)
    expected = layer(images(), d, training=True)
    np.testing.assert_allclose(call(images(), d), expected, atol=2e-3)


def test_outside_training_images_stay_as_they_are():
    layer = augmentation.Augmentation(EFFECTS)
    for given in ({}, {"training": False}):
        found = ops.convert_to_numpy(layer(images(), draws(EFFECTS), **given))
        np.testing.assert_array_equal(found, images())


def small_network(effects):
    keras.utils.set_random_seed(0)
    embedder = sare_tf.build_embedder(
        backbone="small", aggregation="gem", image_size=(HEIGHT, WIDTH)
    )
    layer = augmentation.Augmentation(effects)
    return sare_tf.over_tuples(embedder, augmentation=layer)


def test_a_network_over_tuples_varies_in_training_alone(tmp_path):
    effects = ["erase", "crop", "perspective"]
    network = small_network(effects)
    network.save(tmp_path / "network.keras")
    network = keras.saving.load_model(tmp_path / "network.keras")
    assert network.get_layer("augmentation").effects == effects
    x = images(6).reshape(2, 3, HEIGHT, WIDTH, 3)
    d = draws(effects)
    batch = {"images": x, "draws": d.reshape(2, 3, -1)}
    embedder = network.get_layer("embedder")
    for training, seen in (
        (False, images()),
        (True, augmentation.augment(images(), d, effects=effects)),
    ):
        found = ops.convert_to_numpy(network(batch, training=training))
        expected = ops.convert_to_numpy(embedder(seen))
        np.testing.assert_allclose(
            found, expected.reshape(found.shape), atol=1e-6
        )


@pytest.mark.parametrize("effects", [[], ["crop", "crop"], ["zoom", "crop"]])
def test_unknown_effects_are_refused(effects):
    with pytest.raises(ValueError, match=r"one or more of randau.*, crop"):
        augmentation.Augmentation(effects)


def test_draws_for_other_effects_are_refused():
    layer = augmentation.Augmentation(["crop"])
    with pytest.raises(ValueError, match=r"Expected 3 draws.*\(6, 5\)"):
        layer(images(), draws(["colour"]))
