"""Estimates against counts by hand."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from sare_tf.model import build_embedder
from sare_tf.training import memory_estimate, optimizers, step_memory
from sare_tf.training.options import TrainingOptions

OPTIONS = {
    "image_height": 32,
    "image_width": 16,
    "backbone": "small",
    "num_clusters": 4,
    "optimizer": "adam",
    "records": "records",
    "checkpoints": "checkpoints",
}
WORK = memory_estimate.Workload(
    "", "", steps=1, images_per_step=5, queries=7, database=11
)


def _embedder(**changes):
    return build_embedder(
        backbone="small",
        aggregation="netvlad",
        num_clusters=4,
        image_size=(32, 16),
        **changes,
    )


# Of the small network: convolutions without bias, scale and offset of each
# normalisation, the last convolution with bias; NetVLAD's two of 4 x 96.
FIRST = 9 * 3 * 16 + 2 * 16
SECOND = 9 * 16 * 32 + 2 * 32
THIRD = 9 * 32 * 64 + 2 * 64
REST = 9 * 64 * 96 + 96 + 2 * 4 * 96


def test_parameters_trained_and_frozen():
    assert memory_estimate.parameters(_embedder()) == (
        FIRST + SECOND + THIRD + REST,
        0,
    )
    assert memory_estimate.parameters(_embedder(train_from="stage3_conv")) == (
        THIRD + REST,
        FIRST + SECOND,
    )


IMAGE = 32 * 16 * 3


@pytest.mark.parametrize("has_columns", [True, False])
def test_activations_of_a_chain_by_hand(has_columns, monkeypatch):
    """Of an image: 32 x 16 x 3 rescaled, 16 x 8 x 4, then 16 x 8 x 8 numbers.

    All three are kept until the maximum. Its gradient takes the memory of the
    third one, and is kept with the first two while the gradients of the second
    convolution are made, by its inputs and by its 3 x 3 x 4 x 8 weights. They
    are products with columns of 3 x 3 x 4 numbers for each location: the former
    of an image, the latter of all five, which fit. oneDNN needs none.
    """
    is_used = {True: "0", False: "1"}[has_columns]
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", is_used)
    backbone = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(
                4, 3, strides=2, padding="same", use_bias=False
            ),
            keras.layers.Conv2D(8, 3, padding="same", use_bias=False),
        ]
    )
    needed = memory_estimate.memory(
        build_embedder(
            backbone=backbone, aggregation="mac", image_size=(32, 16)
        ),
        TrainingOptions(**OPTIONS),
        WORK,
    )
    rescaled, first, second = 32 * 16 * 3, 16 * 8 * 4, 16 * 8 * 8
    columns = has_columns * 16 * 8 * 3 * 3 * 4
    assert needed["activations and gradients of a step"] == 4 * (
        5 * (rescaled + 2 * first + second)
        + 3 * 3 * 4 * 8
        + columns
        + 5 * columns
    )


def test_blocks_that_are_computed_again_and_stored_features(monkeypatch):
    """Nine convolutions with as many numbers: three blocks of three."""
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    backbone = keras.Sequential(
        [
            keras.layers.Conv2D(
                8, 3, padding="same", activation="relu", name=f"stage{number}"
            )
            for number in range(9)
        ]
    )
    backbone.build((None, 32, 16, 3))

    def activations(train_from, **changes):
        embedder = build_embedder(
            backbone=backbone,
            aggregation="mac",
            image_size=(32, 16),
            train_from=train_from,
        )
        needed = memory_estimate.memory(
            embedder, TrainingOptions(**OPTIONS, **changes), WORK
        )
        needed = needed["activations and gradients of a step"]
        return needed / (5 * 4 * 32 * 16 * 8)

    # Two gradients beside nine outputs, or beside three and two inputs.
    assert 9 < activations("stage0") < 11.2
    assert 5 < activations("stage0", recompute_blocks=True) < 7.2
    assert 3 < activations("stage6") < 5.2
    # The output that the first trained one reads is the stored one.
    assert 3 < activations("stage6", cache_frozen=True) < 5.2


def test_products_of_permuted_tensors_take_copies():
    """Of attention: the queries and keys have another order, weights have not.

    In 2 x 3 x 4 x 5 numbers, 3 tokens and 4 heads: to compute with matrices of
    a head, the heads come first.
    """
    spec = tf.TensorSpec((2, 3, 4, 5))

    @tf.function(autograph=False)
    def attend(query, key):
        weights = tf.einsum("btnh,bsnh->bnts", query, key)
        return tf.einsum("bnts,bsnh->btnh", weights, key)

    graph = attend.get_concrete_function(spec, spec).graph
    first, second = (
        each for each in graph.get_operations() if each.type == "Einsum"
    )
    size = 4 * 2 * 3 * 4 * 5
    assert step_memory._work_space(first) == 2 * size
    assert step_memory._work_space(second) == 2 * size


def test_a_step_in_chunks_holds_the_images_of_one():
    def activations(images, **changes):
        return memory_estimate.memory(
            _embedder(),
            TrainingOptions(**OPTIONS, loss="place_sare_joint", **changes),
            dataclasses.replace(WORK, images_per_step=images),
        )["activations and gradients of a step"]

    # With gradients of the weights, which do not become more.
    assert activations(256, chunk_images=2) == activations(2)
    assert activations(256) > 4 * activations(2)


def test_large_weights_are_updated_in_more_memory_than_a_small_image_takes(
    monkeypatch,
):
    """Two at a time: 3 x 3 x 8 x 512 and 3 x 3 x 512 x 16 numbers, twice."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    backbone = keras.Sequential(
        [
            keras.layers.Conv2D(8, 3, strides=4, use_bias=False),
            keras.layers.Conv2D(512, 3, padding="same", use_bias=False),
            keras.layers.Conv2D(16, 3, padding="same", use_bias=False),
        ]
    )
    needed = memory_estimate.memory(
        build_embedder(
            backbone=backbone, aggregation="mac", image_size=(16, 16)
        ),
        TrainingOptions(**OPTIONS | {"image_height": 16}),
        WORK,
    )
    first, second, third = 9 * 3 * 8, 9 * 8 * 512, 9 * 512 * 16
    assert needed["activations and gradients of a step"] == 4 * (
        first + 3 * (second + third)
    )


def test_the_other_parts():
    needed = memory_estimate.memory(
        _embedder(),
        TrainingOptions(
            **OPTIONS, cache_dtype="float16", averaging_momentum=0.9
        ),
        WORK,
    )
    count = FIRST + SECOND + THIRD + REST
    assert needed["weights"] == 4 * count
    # The decay, and the share of the average that is kept.
    assert needed["decay and momentum of a step"] == 2 * 4 * count
    # Two moments and the average.
    assert needed["state of the optimizer"] == 3 * 4 * count
    pulled = memory_estimate.memory(
        _embedder(train_from="stage3"),
        TrainingOptions(**OPTIONS, l2_to_start=0.1),
        WORK,
    )
    # Two moments, and the start of the backbone's.
    assert pulled["state of the optimizer"] == 4 * (
        2 * (THIRD + REST) + THIRD + REST - 2 * 4 * 96
    )
    assert needed["images of a step"] == 5 * IMAGE * (1 + 4)
    assert needed["mining: descriptors"] == (7 + 11) * 4 * 96 * 2
    assert needed["mining: distances"] == 7 * 11 * 4
    without = memory_estimate.memory(
        _embedder(),
        TrainingOptions(**OPTIONS),
        dataclasses.replace(WORK, queries=0, database=0),
    )
    assert not [part for part in without if part.startswith("mining")]


def test_weights_of_the_loss():
    """100 places: weights, gradient and two arrays of AdamW."""
    needed = memory_estimate.memory(
        _embedder(),
        TrainingOptions(**OPTIONS),
        dataclasses.replace(WORK, places=100),
    )
    size = needed["weights of the loss, with gradient and state"]
    assert size == 4 * 100 * (4 * 96) * 4


def test_the_size_of_a_checkpoint(tmp_path):
    """Within its description of the layers, 1 MiB at most."""
    network = keras.Sequential(
        [keras.Input((512,)), keras.layers.Dense(1024, use_bias=False)]
    )
    network.compile(
        optimizer=optimizers.build("adam", learning_rate=1.0, weight_decay=0.0),
        loss="mse",
    )
    network.optimizer.build(network.trainable_variables)
    network.save(tmp_path / "model.keras")
    size = (tmp_path / "model.keras").stat().st_size
    expected = memory_estimate.checkpoint_bytes(network)
    assert size <= expected <= size + 2**20
    np.testing.assert_allclose(expected, 3 * 512 * 1024 * 4 + 2**20, atol=64)
