"""Estimates against counts by hand."""

import dataclasses

import keras
import numpy as np
import pytest

from sare_tf.model import build_embedder
from sare_tf.training import memory_estimate, optimizers
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


# Numbers per image of 32 x 16: the image, three layers a stage, the map of
# 4 x 2 locations, the descriptor.
IMAGE, STAGES = 32 * 16 * 3, (16 * 8 * 16, 8 * 4 * 32, 4 * 2 * 64)
END = 4 * 2 * 96 + 4 * 96


@pytest.mark.parametrize(
    ("train_from", "numbers"),
    [
        # All outputs are kept, the image before them, and two gradients.
        ("stage1_conv", IMAGE + 3 * sum(STAGES) + END + 2 * STAGES[0]),
        # Two outputs of the first stage at a time are more: 4,096 numbers.
        # From the third stage on: 512 * 3 + 1,152 kept, 1,024 before them.
        ("stage3_conv", 3 * STAGES[2] + END + STAGES[1] + 2 * STAGES[0]),
    ],
)
def test_activations_that_a_step_keeps(train_from, numbers):
    for precision, size in (("float32", 4), ("mixed_bfloat16", 2)):
        needed = memory_estimate.memory(
            _embedder(train_from=train_from),
            TrainingOptions(**OPTIONS, precision=precision),
            WORK,
        )
        assert needed["activations of a step"] == 5 * size * numbers


@pytest.mark.parametrize("is_nested", [False, True])
def test_activations_of_a_keras_model_as_the_backbone(is_nested):
    network = keras.Sequential(
        [
            keras.layers.Conv2D(4, 3, strides=2, padding="same"),
            keras.layers.Conv2D(8, 3, padding="same"),
        ]
    )
    if is_nested:
        network.build((None, 32, 16, 3))
    backbone = keras.Sequential([keras.layers.Rescaling(1 / 255), network])
    needed = memory_estimate.memory(
        build_embedder(backbone=backbone, aggregation="mac"),
        TrainingOptions(**OPTIONS),
        WORK,
    )
    first, second, rescaled = 16 * 8 * 4, 16 * 8 * 8, 32 * 16 * 3
    # All outputs are kept, the image before them, and two gradients.
    numbers = rescaled + first + second + 8 + 2 * rescaled
    assert needed["activations of a step"] == 5 * 4 * numbers


def test_the_other_parts():
    needed = memory_estimate.memory(
        _embedder(),
        TrainingOptions(
            **OPTIONS, cache_dtype="float16", averaging_momentum=0.9
        ),
        WORK,
    )
    count = FIRST + SECOND + THIRD + REST
    assert needed["weights"] == needed["gradients of the weights"] == 4 * count
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
