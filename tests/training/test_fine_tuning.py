"""Runs that start from good weights: rates, starts and stochastic depth."""

import keras
import numpy as np
import pytest
import toy_training
import toy_vit
from finished_runs import assert_same_run

from sare_tf import train
from sare_tf.model import over_tuples
from sare_tf.model.registry import BACKBONES, TORCHVISION, Backbone
from sare_tf.training import compiled_network
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import read_state

# Four patches an image.
VIT = {
    **toy_training.OPTIONS,
    "image_height": 28,
    "image_width": 28,
    "backbone": "toy_vit",
    "aggregation": "gem",
    "train_from": "block1",
    # One round of mining.
    "refresh_every_queries": 0,
    "learning_rate": 0.01,
    "inverse_bandwidth": 10.0,
}
FINE = {
    "backbone_rate": 0.5,
    "head_rate": 2.0,
    "layer_decay": 0.5,
    "drop_path": 0.4,
    "l2_to_start": 0.1,
    "averaging_momentum": 0.5,
}
PLACES = {
    "loss": "place_sare_joint",
    "places_per_batch": 3,
    "images_per_place": 4,
}


@pytest.fixture(autouse=True)
def _toy_vit(monkeypatch):
    recipe = Backbone(
        network="sare_tf.model.vit.build",
        arguments={"architecture": toy_vit.architecture(depth=3)},
        preprocessing=TORCHVISION,
        cut_layer="patches",
        train_from="block1",
    )
    monkeypatch.setitem(BACKBONES, "toy_vit", recipe)


def options(**changes):
    return toy_training.options(**{**VIT, **changes})


@pytest.mark.parametrize(
    "changes",
    [{}, {"augment": ("crop",), "augment_same": True, **PLACES}],
    ids=["tuples", "places"],
)
def test_a_resumed_run_ends_as_if_undisturbed(toy_records, tmp_path, changes):
    settings = {**VIT, **FINE, **changes, "records": toy_records}
    whole = toy_training.RecordedRun(tmp_path, **settings)
    train.run(TrainingOptions(checkpoints=whole.after[1], **settings))
    assert_same_run(whole.after[1], whole.finished)
    frozen, trained = _moved(whole.finished)
    assert {"embedding", "block0"} == frozen
    assert {"block1", "block2", "norm", "gem"} == trained


def _moved(checkpoints):
    """The blocks whose weights stayed, and those whose weights moved."""

    def weights(name):
        model = keras.models.load_model(checkpoints / name / "model.keras")
        return {
            weight.path: weight.numpy()
            for weight in model.get_layer("embedder").weights
        }

    first = weights("epoch-0000")
    last = weights(read_state(checkpoints)[1]["last"])
    blocks = {True: set(), False: set()}
    for path, weight in first.items():
        block = path.split("/")[-2].partition("_")[0]
        blocks[bool((weight != last[path]).any())].add(block)
    return blocks[False] - blocks[True], blocks[True]


def test_stochastic_depth_by_hand():
    """The branches of the last block are left out of the second image."""
    embedder = compiled_network.build_embedder(options(drop_path=0.5))
    network = over_tuples(embedder, path_draws=6)
    rates = [
        layer.drop_rate
        for layer in embedder.get_layer("backbone").layers
        if hasattr(layer, "drop_rate")
    ]
    # Of frozen block 0, and a quarter and a half of blocks 1 and 2.
    assert rates == [0, 0, 0.25, 0.25, 0.5, 0.5]
    images = np.random.default_rng(0).uniform(0, 255, (1, 2, 28, 28, 3))
    draws = np.zeros((1, 2, 6), np.float32)
    draws[0, 1, 4:] = 0.9
    batch = {"images": images.astype(np.float32), "path_draws": draws}
    plain = keras.ops.convert_to_numpy(network(batch, training=False))
    np.testing.assert_array_equal(
        plain, keras.ops.convert_to_numpy(network(batch))
    )
    dropped = keras.ops.convert_to_numpy(network(batch, training=True))
    for block, scale in ((1, 1 / 0.75), (2, 1 / 0.5)):
        _scale(embedder, block, scale)
    kept = keras.ops.convert_to_numpy(network(batch, training=False))
    np.testing.assert_allclose(dropped[0, 0], kept[0, 0], atol=1e-6)
    _scale(embedder, 2, 0.0)
    left_out = keras.ops.convert_to_numpy(network(batch, training=False))
    np.testing.assert_allclose(dropped[0, 1], left_out[0, 1], atol=1e-6)
    assert abs(plain - dropped).max() > 0.01


def _scale(embedder, block, factor):
    for number in (1, 2):
        layer = embedder.get_layer("backbone").get_layer(
            f"block{block}_ls{number}"
        )
        layer.scale.assign(layer.scale * factor)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_path": 1.0}, "below 1. Received: drop_path=1.0"),
        ({"layer_decay": 0.0}, "layer_decay=0. Freeze blocks by --train_from"),
        ({"head_rate": 2.0, "aggregation": "netvlad"}, "Set --netvlad_rate"),
        ({"netvlad_rate": 2.0}, "no clusters of NetVLAD.*Set --head_rate"),
        (
            {"drop_path": 0.1, "backbone": "small", "train_from": None},
            "drop_path=0 with a backbone other than dinov2_",
        ),
        ({"drop_path": 0.1, "chunk_images": 4}, "drop_path=0 with chunks"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        options(**changes)


def test_layer_wise_decay_needs_blocks():
    with pytest.raises(ValueError, match="layer_decay=1 with a backbone other"):
        compiled_network.build(
            None,
            options(backbone="small", train_from=None, layer_decay=0.5),
        )
