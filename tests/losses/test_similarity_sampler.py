"""Records read by TensorFlow Similarity's sampler; its package is an extra."""

import importlib.util
import io

import numpy as np
import pytest
import tensorflow as tf
import toy_training
from PIL import Image
from toy_search import jpeg

from sare_tf.records import records
from sare_tf.records.records import Records
from sare_tf.training import similarity_sampler

installed = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_similarity") is None,
    reason="without TensorFlow Similarity: make test-extras",
)
# Deprecations in its dependencies.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """6 train places with 4 database images and 4 queries each."""
    root = tmp_path_factory.mktemp("data")
    return Records(toy_training.records(root, database=4, queries=4))


def serialised(opened, pattern):
    paths = sorted(str(path) for path in opened.path.glob(pattern))
    return tf.data.TFRecordDataset(paths)


def test_an_example_is_an_image_and_the_label_of_its_place(opened):
    read = similarity_sampler.similarity_example(height=32, width=32)
    table = opened.manifest[opened.manifest["split"] == "train"]
    labels = {}
    for row, example in zip(
        table.itertuples(), serialised(opened, "train-*"), strict=True
    ):
        image, label = read(example)
        [encoded] = opened.read_images(table.loc[[row.Index]])
        np.testing.assert_array_equal(
            image, np.asarray(Image.open(io.BytesIO(encoded)))
        )
        labels.setdefault(row.place_id, set()).add(int(label))
    assert len(labels) == 6
    # One label a place, in both roles, and no label twice.
    assert all(len(found) == 1 for found in labels.values())
    assert len(set.union(*labels.values())) == 6
    assert all(0 <= label < 2**24 for label in set.union(*labels.values()))


def test_images_without_a_place_are_no_place_together():
    read = similarity_sampler.similarity_example(height=32, width=32)
    found = [
        int(read(records.serialise(jpeg(0, 0), image_id=name, place=""))[1])
        for name in ("a", "b", "c", "a")
    ]
    assert len(set(found)) == 3
    assert found[0] == found[3]


def sampled(opened, num_repeat=1, **options):
    from tensorflow_similarity import samplers

    return samplers.TFRecordDatasetSampler(
        str(opened.path),
        similarity_sampler.similarity_example(height=32, width=32),
        shard_suffix="train-*.tfrecord",
        num_repeat=num_repeat,
        **options,
    )


@installed
def test_each_batch_has_whole_places(opened):
    """Of 48 images 6 batches, 2 images at a time: 4 places, 2 of each shard."""
    batches = list(sampled(opened, example_per_class=2, batch_size=8))
    assert [images.shape for images, _ in batches] == [(8, 32, 32, 3)] * 6
    for _, labels in batches:
        pairs = labels.numpy().reshape(-1, 2)
        np.testing.assert_array_equal(pairs[:, 0], pairs[:, 1])
    every = np.concatenate([labels for _, labels in batches])
    _, counts = np.unique(every, return_counts=True)
    assert counts.tolist() == [8] * 6


@installed
def test_the_rest_of_a_place_comes_with_the_next_one(opened):
    """In 3s, six places of 4 are aaa abb bbc ccc, and ddd dee eef fff: 4 of 8
    are of one place, in each of 2 shards."""
    batches = sampled(opened, example_per_class=3, batch_size=3)
    alike = [len(np.unique(labels)) == 1 for _, labels in batches]
    assert (len(alike), sum(alike)) == (16, 8)


@installed
def test_a_model_trains_on_them_with_the_losses_of_similarity(opened):
    import keras

    from sare_tf import losses

    keras.utils.set_random_seed(0)
    embedder = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(8),
            keras.layers.UnitNormalization(),
        ]
    )
    loss = losses.SimilarityLoss(loss="circle")
    embedder.compile(keras.optimizers.Adam(0.01), loss=loss)
    before = embedder.get_weights()
    history = embedder.fit(
        sampled(opened, num_repeat=-1, example_per_class=4, batch_size=16),
        epochs=4,
        steps_per_epoch=3,
        shuffle=False,
        verbose=0,
    )
    assert all(0 < value < np.inf for value in history.history["loss"])
    for one, other in zip(before, embedder.get_weights(), strict=True):
        assert np.abs(one - other).max() > 0
