import io

import numpy as np
import pytest
import tensorflow as tf
import toy_search
from PIL import Image

from sare_tf import images, pipeline
from sare_tf.records import Records


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return Records(toy_search.records(tmp_path_factory.mktemp("pipeline")))


def with_pil(opened, position):
    [encoded] = opened.read_images(opened.manifest.iloc[[position]])
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def test_images_in_the_order_of_the_rows(opened):
    count = len(opened.manifest)
    order = np.random.default_rng(1).permutation(np.arange(count).repeat(3))
    dataset = pipeline.image_dataset(
        opened,
        opened.manifest.iloc[order],
        height=32,
        width=32,
        batch_size=7,
    )
    batches = list(dataset.as_numpy_iterator())
    assert [len(batch) for batch in batches[:-1]] == [7] * (len(batches) - 1)
    found = np.concatenate(batches)
    assert found.dtype == np.uint8
    for image, position in zip(found, order, strict=True):
        np.testing.assert_array_equal(image, with_pil(opened, position))


def test_tuples_hold_the_images_named(opened):
    tuples = np.random.default_rng(2).integers(0, len(opened.manifest), (9, 5))
    dataset = pipeline.tuple_dataset(
        opened, tuples, height=32, width=32, tuples_per_batch=4
    )
    batches = list(dataset.as_numpy_iterator())
    # 9 tuples make 2 full batches of 4.
    assert [batch.shape for batch, _ in batches] == [(4, 5, 32, 32, 3)] * 2
    assert [zeros.shape for _, zeros in batches] == [(4,)] * 2
    found = np.concatenate([batch for batch, _ in batches])
    for images_of_tuple, positions in zip(found, tuples[:8], strict=True):
        for image, position in zip(images_of_tuple, positions, strict=True):
            np.testing.assert_array_equal(image, with_pil(opened, position))
    assert int(dataset.cardinality()) == 2


def test_augmentation_is_seeded_and_differs_between_images(opened):
    tuples = np.zeros((4, 3), np.int64)

    def batch(seed):
        dataset = pipeline.tuple_dataset(
            opened, tuples, height=32, width=32, augment=True, seed=seed
        )
        return next(iter(dataset))[0].numpy()

    first = batch(seed=3)
    np.testing.assert_array_equal(first, batch(seed=3))
    assert (first != batch(seed=4)).any()
    flat = first.reshape(12, -1)
    assert len(np.unique(flat, axis=0)) == 12


@pytest.mark.parametrize("shape", [(4, 2), (4,)])
def test_tuples_of_a_wrong_shape(opened, shape):
    with pytest.raises(ValueError, match="Expected tuples of shape"):
        pipeline.tuple_dataset(
            opened, np.zeros(shape, np.int64), height=32, width=32
        )


def test_fewer_tuples_than_a_batch(opened):
    with pytest.raises(ValueError, match="3 tuples, tuples_per_batch=4"):
        pipeline.tuple_dataset(
            opened, np.zeros((3, 4), np.int64), height=32, width=32
        )


def encoded(pixels, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def test_decoding_equals_pil():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 56, 3)).astype(np.uint8)
    for data in (
        encoded(pixels, "PNG"),
        encoded(pixels, "JPEG", quality=80, subsampling=0),
        encoded(pixels, "JPEG", quality=60),
        encoded(pixels[..., 0], "JPEG", quality=90),
    ):
        expected = Image.open(io.BytesIO(data)).convert("RGB")
        np.testing.assert_array_equal(images.decode(data), expected)


def test_an_image_of_the_right_size_keeps_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3))
    data = encoded(pixels.astype(np.uint8), "PNG")
    np.testing.assert_array_equal(
        images.load(data, height=24, width=32), pixels
    )


def test_resizing_by_half_averages_with_a_triangle():
    """Along a row, halving weighs pixels by 1, 3, 3, 1 over 8."""
    row = np.random.default_rng(0).integers(0, 256, 16)
    image = np.broadcast_to(row[None, :, None], (4, 16, 3)).astype(np.uint8)
    found = images.resize(tf.constant(image), height=4, width=8).numpy()
    for x in range(1, 7):
        window = row[2 * x - 1 : 2 * x + 3]
        expected = np.dot(window, [1, 3, 3, 1]) / 8
        assert abs(found[2, x, 0] - expected) <= 0.5 + 1e-4
    assert found.dtype == np.uint8
