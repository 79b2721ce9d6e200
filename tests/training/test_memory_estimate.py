"""Estimates against counts by hand."""

import dataclasses

import keras
import numpy as np

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


IMAGE = 32 * 16 * 3


def test_activations_of_a_chain_by_hand():
    """Of an image: 32 x 16 x 3 rescaled, 16 x 8 x 4, then 16 x 8 x 8 numbers.

    All three are kept until the maximum. Its gradient takes the memory of the
    third one, and is kept with the first two while the gradient of the second
    is made, of an image as columns, of 3 x 3 x 4 numbers for each location,
    twice: for the gradients by inputs and by weights.
    """
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
    assert needed["activations of a step"] == 5 * 4 * (
        rescaled + 2 * first + second
    ) + 4 * 2 * (16 * 8 * 3 * 3 * 4)


def test_blocks_that_are_computed_again_and_stored_features():
    """Nine convolutions with as many numbers: three blocks of three."""
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
        return needed["activations of a step"] / (5 * 4 * 32 * 16 * 8)

    # Of an image as columns, as numbers of one output.
    columns = 2 * 3 * 3 / 5
    # Two gradients beside nine outputs, or beside three and two inputs.
    assert 9 < activations("stage0") < 11.1 + columns
    assert 5 < activations("stage0", recompute_blocks=True) < 7.1 + columns
    assert 3 < activations("stage6") < 5.1 + columns
    # The output that the first trained one reads is the stored one.
    assert 3 < activations("stage6", cache_frozen=True) < 5.1 + columns


def test_a_step_in_chunks_holds_the_images_of_one():
    def activations(images, **changes):
        return memory_estimate.memory(
            _embedder(),
            TrainingOptions(**OPTIONS, loss="place_sare_joint", **changes),
            dataclasses.replace(WORK, images_per_step=images),
        )["activations of a step"]

    assert activations(8, chunk_images=2) == activations(2)
    assert activations(8) > 2 * activations(2)


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
