"""The network that options describe: centres, layers, arithmetic."""

import keras
import numpy as np
import pytest
import toy_training

from sare_tf import model
from sare_tf.training import compiled_network


def test_given_centres_and_layers_reach_the_network(tmp_path):
    centres = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    np.save(tmp_path / "centres.npy", centres)
    options = toy_training.options(
        cut_layer="stage3_relu",
        train_from="stage2_conv",
        netvlad_centres=str(tmp_path / "centres.npy"),
    )
    images = np.zeros((4, 32, 32, 3), np.uint8)

    class Images:
        @staticmethod
        def first_images():
            return [images]

    network = compiled_network.build(Images, options)
    layer = network.get_layer("embedder").get_layer("netvlad")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(layer.centres), centres
    )
    trained = {
        weight.path.split("/")[-2] for weight in network.trainable_weights
    }
    assert trained == {
        "stage2_conv",
        "stage2_norm",
        "stage3_conv",
        "stage3_norm",
        "netvlad",
    }


def test_centres_are_only_for_netvlad():
    options = toy_training.options(
        aggregation="gem", netvlad_centres="centres.npy"
    )
    with pytest.raises(ValueError, match="'netvlad' with.*aggregation='gem'"):
        compiled_network.build(None, options)


def test_nothing_to_train_is_refused():
    options = toy_training.options(train_from="aggregation", aggregation="mac")
    with pytest.raises(ValueError, match="'aggregation', aggregation='mac'"):
        compiled_network.build_embedder(options)


def test_a_bfloat16_network_computes_in_float32_when_asked():
    options = toy_training.options(precision="mixed_bfloat16")
    embedder = compiled_network.build_embedder(options)
    conv = embedder.get_layer("backbone").get_layer("stage2_conv")
    assert conv.compute_dtype == "bfloat16"
    plain = compiled_network.build_embedder(toy_training.options())
    plain.set_weights(embedder.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3))
    images = images.astype(np.float32)
    expected = keras.ops.convert_to_numpy(plain(images))
    rough = keras.ops.convert_to_numpy(embedder(images))
    assert rough.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rough, axis=1), 1, atol=1e-5)
    assert abs(rough - expected).max() > 1e-5
    exact = keras.ops.convert_to_numpy(model.in_float32(embedder)(images))
    np.testing.assert_allclose(exact, expected, atol=1e-6)
