"""Heads by their names, over feature maps and over tokens."""

import dataclasses

import keras
import numpy as np
import pytest
import toy_vit
from keras import ops

from sare_tf.model import build_embedder, heads, initialise_netvlad, registry

# Length of the descriptor of C channels, with 3 clusters.
LENGTHS = {
    "gem_linear": lambda _: 512,
    "convap": lambda _: 4 * 1024,
    "mixvpr": lambda _: 4096,
    "salad": lambda _: 256 + 3 * 128,
    "salad_linear": lambda _: 8448,
    "boq": lambda _: 12288,
    "supervlad": lambda channels: 3 * channels,
    "netvlad_linear": lambda _: 3 * 128,
    "hard_vlad": lambda channels: 3 * channels,
    "class_token": lambda channels: channels,
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A vision transformer of two blocks."""
    recipe = dataclasses.replace(
        registry.BACKBONES["dinov2_vits14"],
        arguments={"architecture": toy_vit.architecture()},
        train_from="block1_norm1",
    )
    monkeypatch.setitem(registry.BACKBONES, "tiny", recipe)


def pictures(height, width):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (2, height, width, 3)).astype(np.uint8)


def test_every_head_has_a_name():
    modules = {
        registry.AGGREGATIONS[name].rpartition(".")[0] for name in LENGTHS
    }
    names = {
        module.__name__.rpartition("model.")[2] for module in heads.MODULES
    }
    assert modules == names
    assert set(registry.AGGREGATIONS) == {
        *("netvlad", "gem", "mac", "spoc", "rmac"),
        *LENGTHS,
    }


@pytest.mark.parametrize("name", LENGTHS)
def test_over_tokens(name):
    embedder = build_embedder(
        backbone="tiny", aggregation=name, num_clusters=3, image_size=(42, 56)
    )
    images = pictures(42, 56)
    if name in registry.WITH_CENTRES:
        initialise_netvlad(embedder, [images])
    found = ops.convert_to_numpy(embedder(images))
    assert found.shape == (2, LENGTHS[name](128))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    alone = ops.convert_to_numpy(embedder(images[:1]))
    np.testing.assert_allclose(alone[0], found[0], atol=1e-5)
    if name in registry.WITH_CLASS_TOKEN:
        assert embedder.get_layer("backbone").output_names == [
            "patches",
            "class_token",
        ]


@pytest.mark.parametrize("name", LENGTHS)
def test_over_feature_maps(name):
    options = {
        "backbone": "small",
        "aggregation": name,
        "num_clusters": 3,
        "image_size": (24, 32),
    }
    if name == "class_token":
        with pytest.raises(
            ValueError,
            match="with a class token, such as dinov2_vits14.*backbone='small'",
        ):
            build_embedder(**options)
        return
    embedder = build_embedder(**options)
    found = ops.convert_to_numpy(embedder(pictures(24, 32)))
    assert found.shape == (2, LENGTHS[name](96))


def test_the_class_token_is_that_of_the_cut():
    images = pictures(28, 42)
    for cut in (None, "block0_value", "block0_patches"):
        embedder = build_embedder(
            backbone="tiny",
            aggregation="class_token",
            cut_layer=cut,
            train_from="embedding",
        )
        backbone = embedder.get_layer("backbone")
        tokens = keras.Model(
            backbone.input, backbone.get_layer("class_token").input
        )
        tokens = tokens(embedder.get_layer("preprocessing")(images))
        token = ops.convert_to_numpy(tokens)[:, 0]
        if cut == "block0_value":
            token = token[:, 2 * 128 :]
        expected = token / np.linalg.norm(token, axis=1, keepdims=True)
        found = ops.convert_to_numpy(embedder(images))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_saved_embedder_comes_back(tmp_path):
    embedder = build_embedder(
        backbone="tiny", aggregation="salad", num_clusters=3
    )
    embedder.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = pictures(28, 42)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(loaded(images)),
        ops.convert_to_numpy(embedder(images)),
    )


def test_too_many_clusters_for_the_image():
    with pytest.raises(
        ValueError, match="SALAD. Received: feature maps of 2 x"
    ):
        build_embedder(
            backbone="tiny",
            aggregation="salad",
            num_clusters=64,
            image_size=(28, 28),
        )
