"""Descriptors of a split: blocks, and values that are not finite."""

import keras
import numpy as np
import pytest
import toy_training

from sare_tf.records.records import Records
from sare_tf.training import datasets, split


@pytest.fixture(scope="module")
def embedder(toy_run):
    path = toy_run.finished / "epoch-0002" / "model.keras"
    return keras.models.load_model(path).get_layer("embedder")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_embedding_in_blocks_equals_one_call(
    toy_records, embedder, monkeypatch, dtype
):
    options = toy_training.options(cache_dtype=dtype, batch_size=4)
    train = split.Split(Records(toy_records), "train", options)
    monkeypatch.setattr(split, "_EMBED_BLOCK_BYTES", 5 * 4 * 384)
    descriptors = train.embed(embedder, train.database)
    assert descriptors.dtype == dtype
    dataset = datasets.image_dataset(
        train.records, train.database, height=32, width=32, batch_size=12
    )
    expected = embedder.predict(dataset, verbose=0)
    tolerance = 1e-6 if dtype == "float32" else 2**-11
    np.testing.assert_allclose(descriptors, expected, atol=tolerance)


def test_a_descriptor_that_is_not_finite_names_the_image(toy_records, toy_run):
    path = toy_run.finished / "epoch-0000" / "model.keras"
    embedder = keras.models.load_model(path).get_layer("embedder")
    layer = embedder.get_layer("netvlad")
    centres = keras.ops.convert_to_numpy(layer.centres)
    layer.centres.assign(np.full_like(centres, np.nan))
    train = split.Split(Records(toy_records), "train", toy_training.options())
    rows = train.queries.iloc[3:9]
    name = rows["image_id"].iloc[0]
    with pytest.raises(
        ValueError, match=f"finite descriptors.* for {name} and 5 other"
    ):
        train.embed(embedder, rows)
