"""RandAugment against Pillow, image by image."""

import numpy as np
import pytest
import rand_augment_of_pillow
import tensorflow as tf
from keras import ops
from PIL import Image

from sare_tf.model import rand_augment
from sare_tf.model.registry import AUGMENTATION_DRAWS

HEIGHT, WIDTH = 41, 56
SIGNED = rand_augment.OPERATIONS[1:10]


def pictures(count=4, seed=0):
    """Smooth images with edges, each of a range of its own; uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH] / WIDTH
    images = []
    for number in range(count):
        waves = [
            np.sin(rng.uniform(2, 9) * x + rng.uniform(2, 9) * y + channel)
            for channel in range(3)
        ]
        image = 128 + (60 + 20 * number) * np.stack(waves, axis=-1)
        image[10:20, 5:30] = rng.uniform(0, 256, 3)
        image += rng.normal(0, 4, image.shape)
        images.append(image.clip(0, 255).astype(np.uint8))
    return np.stack(images)


def draws_of(*operations):
    """Draws that choose operations: pairs of a name and a sign."""
    draws = []
    for name, sign in operations:
        number = rand_augment.OPERATIONS.index(name)
        draws += [(number + 0.5) / len(rand_augment.OPERATIONS)]
        draws += [0.25 if sign < 0 else 0.75]
    return np.array(draws, np.float32)


# Pillow multiplies by a rounded factor, so that some values which should be
# whole are one lower.
ROUNDED = "AutoContrast"


def test_the_table_is_that_of_torchvision():
    assert list(rand_augment.OPERATIONS) == rand_augment_of_pillow.NAMES
    assert AUGMENTATION_DRAWS["randaugment"] == 2 * rand_augment.NUM_OPERATIONS


@pytest.mark.parametrize(
    ("name", "sign"),
    [(name, 1) for name in rand_augment.OPERATIONS]
    + [(name, -1) for name in SIGNED],
)
def test_an_operation_is_pillows(name, sign):
    images = pictures()
    draws = draws_of((name, sign), ("Identity", 1), ("Identity", 1))
    found = ops.convert_to_numpy(
        rand_augment.apply(images, np.tile(draws, (len(images), 1)))
    )
    expected = [
        np.asarray(
            rand_augment_of_pillow.operate(Image.fromarray(image), name, sign)
        )
        for image in images
    ]
    apart = np.abs(found - np.stack(expected).astype(np.float32))
    np.testing.assert_array_equal(found, np.round(found))
    assert apart.max() <= 1
    assert name == ROUNDED or (apart > 0).mean() < 0.002
    assert (name == "Identity") == (found == images).all()


@pytest.mark.parametrize("jit", [False, True])
def test_each_image_has_its_own_three_operations(jit):
    images = pictures(24, seed=1)
    draws = np.random.default_rng(2).uniform(size=(24, 6)).astype(np.float32)
    step = tf.function(rand_augment.apply, jit_compile=jit)
    found = step(images, draws).numpy()
    expected = np.stack(
        [
            rand_augment_of_pillow.apply(image, of_image)
            for image, of_image in zip(images, draws, strict=True)
        ]
    )
    # A number that one operation makes one lower may be far away after the next
    # ones, such as below the limit of Solarize.
    apart = np.abs(found - expected)
    assert (apart > 2).mean() < 0.0005
    number = rand_augment.OPERATIONS.index(ROUNDED)
    exact = (np.floor(14 * draws[:, ::2]) != number).all(axis=1)
    assert exact.sum() > 12
    assert (apart[exact] > 0).mean() < 0.002
    alone = ops.convert_to_numpy(rand_augment.apply(images[3:4], draws[3:4]))
    assert (alone[0] != found[3]).mean() < 0.002


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
def test_images_of_few_values_keep_them(name):
    # One value; two values; fewer pixels of the others than 255.
    images = np.full((3, 16, 12, 3), 7, np.uint8)
    images[1, :8] = 200
    images[2, 0, :, 1] = np.arange(12)
    draws = np.tile(draws_of(*[(name, 1)] * 3), (3, 1))
    found = ops.convert_to_numpy(rand_augment.apply(images, draws))
    for image, of_image, one in zip(images, draws, found, strict=True):
        expected = rand_augment_of_pillow.apply(image, of_image)
        np.testing.assert_array_equal(one, expected)


def test_draws_at_the_ends():
    """Uniform numbers in float32 may be rounded to 1."""
    images = pictures(2)
    draws = np.stack([np.zeros(6), np.ones(6)]).astype(np.float32)
    found = ops.convert_to_numpy(rand_augment.apply(images, draws))
    np.testing.assert_array_equal(found[0], images[0])
    equalised = rand_augment_of_pillow.apply(images[1], draws[1] - 1e-3)
    np.testing.assert_array_equal(found[1], equalised)
