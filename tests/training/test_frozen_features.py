"""Training on stored features of frozen layers, against training on images."""

import shutil

import numpy as np
import pytest
import toy_training
import toy_vit
from finished_runs import assert_same_run, comparable

from sare_tf import train
from sare_tf.model.registry import BACKBONES, TORCHVISION, Backbone
from sare_tf.training import frozen_features
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import load_embedder, read_state

CONVOLUTIONS = {**toy_training.OPTIONS, "train_from": "stage3"}
TRANSFORMER = {
    **toy_training.OPTIONS,
    "image_height": 28,
    "image_width": 28,
    "backbone": "toy_vit",
    "aggregation": "salad",
    "num_clusters": 3,
    "train_from": "block1",
    "drop_path": 0.4,
    "loss": "place_sare_joint",
    "places_per_batch": 3,
    "images_per_place": 4,
    "memory_images": 12,
    "memory_after_steps": 1,
    "averaging_momentum": 0.5,
}


@pytest.fixture(autouse=True, scope="module")
def _toy_vit():
    recipe = Backbone(
        network="sare_tf.model.vit.build",
        arguments={"architecture": toy_vit.architecture(depth=3)},
        preprocessing=TORCHVISION,
        cut_layer="patches",
        train_from="block1",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "toy_vit", recipe)
        yield


def run(records, checkpoints, **options):
    return train.run(
        TrainingOptions(records=records, checkpoints=checkpoints, **options)
    )


@pytest.fixture(scope="module")
def recorded(toy_records, tmp_path_factory):
    """A run on features of convolutions, in the folder of the run."""
    return toy_training.RecordedRun(
        tmp_path_factory.mktemp("cached"),
        records=toy_records,
        cache_frozen=True,
        **CONVOLUTIONS,
    )


def assert_close_runs(one, other):
    """Rounding differs: features are computed in other batches."""
    for a, b in zip(comparable(one), comparable(other), strict=True):
        for name in {"loss", "violating"} & a.keys():
            assert a[name] == pytest.approx(b[name], rel=1e-3)
    epochs = [read_state(folder)[1]["last"] for folder in (one, other)]
    assert epochs[0] == epochs[1]
    for a, b in zip(
        *(
            load_embedder(folder, epoch=epochs[0]).get_weights()
            for folder in (one, other)
        ),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_tuples_are_mined_and_trained_on_as_without_a_cache(
    toy_records, recorded, tmp_path
):
    assert_close_runs(
        recorded.finished, run(toy_records, tmp_path / "run", **CONVOLUTIONS)
    )


@pytest.mark.parametrize("recompute", [False, True])
def test_places_with_stochastic_depth_and_a_memory(
    toy_records, tmp_path, recompute
):
    plain = run(toy_records, tmp_path / "plain", **TRANSFORMER)
    other = run(
        toy_records,
        tmp_path / "other",
        cache_frozen=not recompute,
        recompute_blocks=recompute,
        **TRANSFORMER,
    )
    assert_close_runs(plain, other)


def test_a_stopped_run_ends_as_if_undisturbed(
    toy_records, recorded, monkeypatch, tmp_path
):
    """It neither reads images for the network nor computes features again."""
    checkpoints = shutil.copytree(recorded.after[1], tmp_path / "run")

    def refuse(*_, **__):
        raise AssertionError("features are computed again")

    monkeypatch.setattr(frozen_features.strategies, "predict", refuse)
    monkeypatch.setattr("sare_tf.training.split.strategies.predict", _predict)
    run(toy_records, checkpoints, cache_frozen=True, **CONVOLUTIONS)
    assert_same_run(checkpoints, recorded.finished)


def _predict(embedder, rows, dataset_of, *, batch_size, callbacks):
    del callbacks
    assert embedder.input_shape == (None, 8 * 8 * 32)
    dataset = dataset_of(rows, batch_size)
    return embedder.predict(dataset, verbose=0)
