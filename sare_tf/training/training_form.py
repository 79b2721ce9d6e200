"""The form in which a network is trained: see `graph_parts`.

The network that is saved is always the whole one. What is trained shares its
weights, optimizer, loss and memory.
"""

from pathlib import Path

import keras
import tensorflow as tf

from sare_tf.model import graph_parts
from sare_tf.training import compiled_network, datasets, folder_features
from sare_tf.training.frozen_features import FrozenFeatures, digest_of
from sare_tf.training.options import TrainingOptions
from sare_tf.training.training_data import TrainingData


def of(
    network: keras.Model, data: TrainingData, strategy: tf.distribute.Strategy
) -> tuple[keras.Model, TrainingData]:
    """Returns what is trained, and the data that it takes.

    Args:
        network: the whole network, compiled.
        data: data to train on.
        strategy: strategy of the training.

    Raises:
        BlockingIOError, ValueError: see `folder_features.build`; or no layer
            is frozen.
    """
    options = data.options
    embedder = network.get_layer("embedder")
    with strategy.scope():
        if not options.cache_frozen:
            form = compiled_network.form_of(embedder, options)
            if form is embedder:
                return network, data
            return compiled_network.over(network, form, options), data
        halves = graph_parts.split(
            embedder,
            height=options.image_height,
            width=options.image_width,
            recompute=options.recompute_blocks,
        )
        form = compiled_network.over(network, halves.trained, options)
    return form, data.read_from(_features(halves, data))


def folder_of_features(options: TrainingOptions) -> Path:
    """Returns the folder of the features of a run."""
    return Path(options.frozen_features or Path(options.checkpoints) / "frozen")


def _features(
    halves: graph_parts.Split, data: TrainingData
) -> dict[str, FrozenFeatures]:
    """Opens the features of all images that a run uses, and makes them.

    Returns:
        Fingerprint of records -> their features.
    """
    options = data.options

    def images_of(records, rows, batch_size):
        return datasets.image_dataset(
            data.source_of(records),
            rows,
            height=options.image_height,
            width=options.image_width,
            batch_size=batch_size,
        )

    return folder_features.build(
        folder_of_features(options),
        data.images_used(),
        halves.frozen,
        images_of,
        layers={
            "backbone": str(options.backbone),
            "train_from": halves.train_from,
            "layers": digest_of(halves.frozen),
            "image_height": options.image_height,
            "image_width": options.image_width,
            "dtype": halves.dtype,
            "numbers": halves.frozen.output_shape[-1],
        },
        batch_size=options.batch_size,
        bad=data.bad,
    )
