import io

import numpy as np
import pytest
import tensorflow as tf
import toy_search
from PIL import Image

from sare_tf.dataset import image_decoding
from sare_tf.records.records import Records
from sare_tf.runtime import tfdata_threads
from sare_tf.training import datasets
from sare_tf.training.batches import AugmentationDraws


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return Records(toy_search.records(tmp_path_factory.mktemp("pipeline")))


@pytest.fixture(scope="module")
def pixels(opened):
    """All images in the order of the manifest, decoded by PIL."""
    return [
        np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
        for encoded in opened.read_images(opened.manifest)
    ]


def test_images_in_the_order_of_the_rows(opened, pixels):
    count = len(opened.manifest)
    order = np.random.default_rng(1).permutation(np.arange(count).repeat(3))
    dataset = datasets.image_dataset(
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
        np.testing.assert_array_equal(image, pixels[position])


def test_tuples_hold_the_images_named(opened, pixels):
    tuples = np.random.default_rng(2).integers(0, len(opened.manifest), (9, 5))
    dataset = datasets.tuple_dataset(
        opened, tuples, height=32, width=32, tuples_per_batch=4
    )
    batches = list(dataset.as_numpy_iterator())
    # 9 tuples make 2 full batches of 4.
    assert [batch.shape for batch, _ in batches] == [(4, 5, 32, 32, 3)] * 2
    assert [zeros.shape for _, zeros in batches] == [(4,)] * 2
    found = np.concatenate([batch for batch, _ in batches])
    for images_of_tuple, positions in zip(found, tuples[:8], strict=True):
        for image, position in zip(images_of_tuple, positions, strict=True):
            np.testing.assert_array_equal(image, pixels[position])
    assert int(dataset.cardinality()) == 2


def draws_of(opened, draws):
    tuples = np.zeros((6, 3), np.int64)
    dataset = datasets.tuple_dataset(
        opened, tuples, height=32, width=32, tuples_per_batch=2, draws=draws
    )
    return np.stack([x["draws"] for x, _ in dataset.as_numpy_iterator()])


def test_draws_are_uniform_seeded_and_differ_between_images(opened):
    found = draws_of(opened, AugmentationDraws(50, seed=3))
    assert found.shape == (3, 2, 3, 50)
    np.testing.assert_array_equal(
        found, draws_of(opened, AugmentationDraws(50, seed=3))
    )
    assert (
        found != draws_of(opened, AugmentationDraws(50, seed=4))
    ).mean() > 0.99
    assert len(np.unique(found)) > 0.99 * found.size
    assert found.min() >= 0
    assert found.max() < 1
    # 900 numbers: the mean's standard deviation is 0.01.
    assert abs(found.mean() - 0.5) < 0.04


def test_images_of_a_tuple_may_have_the_same_draws(opened):
    found = draws_of(opened, AugmentationDraws(5, same_in_group=True))
    np.testing.assert_array_equal(found, found[:, :, :1].repeat(3, axis=2))
    assert len(np.unique(found)) == found.size / 3


def test_batches_do_not_depend_on_the_number_of_threads(opened):
    tuples = np.random.default_rng(4).integers(0, len(opened.manifest), (40, 3))
    found = []
    for threads in (1, 5):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        dataset = datasets.tuple_dataset(
            opened,
            tuples,
            height=32,
            width=32,
            draws=AugmentationDraws(2, seed=1),
        ).with_options(options)
        found.append([x for x, _ in dataset.as_numpy_iterator()])
    tf.nest.map_structure(np.testing.assert_array_equal, *found)


@pytest.mark.parametrize("same_draws", [False, True])
def test_parts_of_batches_make_the_whole(opened, same_draws):
    """Images and draws; the remainder of a batch is no part of any."""
    tuples = np.random.default_rng(3).integers(0, len(opened.manifest), (9, 3))

    def batches(part):
        dataset = datasets.tuple_dataset(
            opened,
            tuples,
            height=32,
            width=32,
            draws=AugmentationDraws(4, same_in_group=same_draws),
            part=part,
        )
        return list(dataset.as_numpy_iterator())

    whole = batches((0, 1))
    assert len(whole) == 2
    halves = [batches((n, 2)) for n in range(2)]
    for (x, zeros), *parts in zip(whole, *halves, strict=True):
        assert [len(zeros) for _, zeros in parts] == [2, 2]
        assert zeros.shape == (4,)
        for name in ("images", "draws"):
            joined = np.concatenate([part[name] for part, _ in parts])
            np.testing.assert_array_equal(joined, x[name])


@pytest.mark.parametrize("shape", [(4, 2), (4,)])
def test_tuples_of_a_wrong_shape(opened, shape):
    with pytest.raises(ValueError, match="Expected tuples of shape"):
        datasets.tuple_dataset(
            opened, np.zeros(shape, np.int64), height=32, width=32
        )


def test_fewer_tuples_than_a_batch(opened):
    with pytest.raises(ValueError, match="3 tuples, tuples_per_batch=4"):
        datasets.tuple_dataset(
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
        np.testing.assert_array_equal(image_decoding.decode(data), expected)


def test_an_image_of_the_right_size_keeps_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3))
    data = encoded(pixels.astype(np.uint8), "PNG")
    np.testing.assert_array_equal(
        image_decoding.load(data, height=24, width=32), pixels
    )


def test_resizing_by_half_averages_with_a_triangle():
    """Along a row, halving weighs pixels by 1, 3, 3, 1 over 8."""
    row = np.random.default_rng(0).integers(0, 256, 16)
    image = np.broadcast_to(row[None, :, None], (4, 16, 3)).astype(np.uint8)
    found = image_decoding.resize(tf.constant(image), height=4, width=8).numpy()
    for x in range(1, 7):
        window = row[2 * x - 1 : 2 * x + 3]
        expected = np.dot(window, [1, 3, 3, 1]) / 8
        assert abs(found[2, x, 0] - expected) <= 0.5 + 1e-4
    assert found.dtype == np.uint8


@pytest.mark.parametrize("shape", [(37, 53), (1, 1), (20, 16), (90, 7)])
def test_resizing_is_tensorflows_to_the_bit(shape):
    rng = np.random.default_rng(1)
    batch = rng.integers(0, 256, (3, *shape, 3)).astype(np.uint8)
    expected = tf.image.resize(batch, (20, 31), antialias=True).numpy()
    expected = expected.round().astype(np.uint8)
    found = image_decoding.resize(batch, height=20, width=31)
    np.testing.assert_array_equal(found, expected)
    one = image_decoding.resize(batch[1], height=20, width=31)
    np.testing.assert_array_equal(one, expected[1])


def test_no_pipeline_tunes_itself(opened):
    size = {"height": 8, "width": 8}
    tuples = np.zeros((8, 3), np.int64)
    for dataset in (
        datasets.image_dataset(opened, opened.manifest, **size),
        datasets.tuple_dataset(
            opened, tuples, **size, draws=AugmentationDraws(3)
        ),
    ):
        options = dataset.options()
        assert options.autotune.enabled is False
        assert (
            options.threading.private_threadpool_size == tfdata_threads.THREADS
        )
