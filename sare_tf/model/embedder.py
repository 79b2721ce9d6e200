"""The embedder: images to descriptors of unit length.

Axis letters: B batch, T images of a tuple, H W C image or feature map, D
descriptor length. Images are RGB, 0..255, of any number type; the graph holds
their preprocessing.
"""

import importlib
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
from absl import logging
from keras import ops

from sare_tf.model import backbones
from sare_tf.model.augmentation import Augmentation
from sare_tf.model.clusters import check_centres, netvlad_initial_weights
from sare_tf.model.netvlad import NetVLAD
from sare_tf.model.registry import AGGREGATIONS


def build_embedder(
    *,
    backbone: str = "vgg16",
    aggregation: str = "netvlad",
    num_clusters: int = 64,
    weights: str | Path | None = None,
    cut_layer: str | None = None,
    train_from: str | None = None,
    image_size: tuple[int, int] | None = None,
) -> keras.Model:
    """Makes the network that is trained, exported and served.

    Args:
        backbone: a name in `registry.BACKBONES`.
        aggregation: "netvlad", "gem", "mac", "spoc" or "rmac".
        num_clusters: of NetVLAD; the others have none.
        weights: of the backbone: None for random, "imagenet", or a local file;
            see `backbones.build`. NetVLAD's come from `initialise_netvlad`.
        cut_layer: name of the backbone's layer whose output is aggregated; None
            for its own.
        train_from: name of the first layer that is trained; None for the
            backbone's own, "aggregation" for none of the backbone.
        image_size: height and width in pixels; None for any.

    Returns:
        A model named "embedder": [B, H, W, 3] -> float32 [B, D].

    Raises:
        ValueError: unknown name, or weights that do not fit.
        FileNotFoundError: no such file of weights.
    """
    if aggregation not in AGGREGATIONS:
        raise ValueError(
            f"Expected aggregation to be one of {sorted(AGGREGATIONS)}. "
            f"Received: aggregation={aggregation!r}."
        )
    preprocessing, network = backbones.build(
        backbone, weights=weights, cut_layer=cut_layer, train_from=train_from
    )
    if weights is None and backbone != "small":
        logging.warning(
            "%s has random weights; it is meant to start from "
            "--weights=imagenet or a local file.",
            backbone,
        )
    height, width = image_size or (None, None)
    # Keras casts what comes in, uint8 too, to the dtype of the input.
    images = keras.Input((height, width, 3), dtype="float32", name="images")
    features = network(preprocessing(images))
    settings = {"num_clusters": num_clusters}
    aggregate = make_aggregation(
        aggregation, **(settings if aggregation == "netvlad" else {})
    )
    return keras.Model(images, aggregate(features), name="embedder")


def make_aggregation(name: str, **settings) -> keras.layers.Layer:
    """Makes the aggregation of a name in `registry.AGGREGATIONS`.

    Args:
        name: the name, which the layer gets as well.
        **settings: arguments of the layer.
    """
    module, _, layer = AGGREGATIONS[name].partition(".")
    make = getattr(importlib.import_module(f"sare_tf.model.{module}"), layer)
    return make(name=name, **settings)


def over_tuples(
    embedder: keras.Model, *, augmentation: Augmentation | None = None
) -> keras.Model:
    """Applies an embedder to every image of every tuple.

    Args:
        embedder: a model named "embedder", [B, H, W, 3] -> [B, D]. It is
            shared, not copied: training the result trains it.
        augmentation: varies the images in training; None: they stay as they
            are.

    Returns:
        [B, T, H, W, 3] -> float32 [B, T, D], for any B and T. With an
        augmentation it takes {"images": the same, "draws": float32 [B, T, R]},
        as `tuple_dataset` gives them. The embedder is its layer "embedder",
        also after it was saved and loaded.

    Raises:
        ValueError: another name.
    """
    _check_name(embedder)
    tuples = keras.Input(
        (None, *embedder.input_shape[1:]), dtype="float32", name="images"
    )
    # float32: a mixed policy must not round the images.
    merge = MergeTuples(dtype="float32", name="merge_tuples")
    split = SplitTuples(dtype="float32", name="split_tuples")
    images, inputs = merge(tuples), tuples
    if augmentation is not None:
        draws = keras.Input((None, augmentation.num_draws), name="draws")
        images = augmentation(images, merge(draws))
        inputs = {"images": tuples, "draws": draws}
    descriptors = embedder(images)  # [B * T, D]
    return keras.Model(inputs, split(descriptors, tuples), name="over_tuples")


def initialise_netvlad(
    embedder: keras.Model,
    images: Iterable,
    *,
    centres: np.ndarray | None = None,
    seed: int = 0,
    locations_per_image: int = 100,
) -> None:
    """Sets NetVLAD's weights from local descriptors of training images.

    The original code takes 100 random locations of each of 500 images. Given
    centres replace those of k-means; the descriptors then say only how sharp
    the assignment to them is.

    Args:
        embedder: a model of `build_embedder` with NetVLAD.
        images: batches of images, [B, H, W, 3]: a tf.data.Dataset, or any
            other iterable.
        centres: [K, C], such as `read_centres` reads; None for k-means.
        seed: of the locations and of k-means.
        locations_per_image: local descriptors taken from an image, or all
            that it has if those are fewer.

    Raises:
        ValueError: no NetVLAD in the embedder, or centres or descriptors that
            `netvlad_initial_weights` refuses.
    """
    found = [layer for layer in embedder.layers if isinstance(layer, NetVLAD)]
    if len(found) != 1:
        raise ValueError(
            "Expected an embedder with one NetVLAD layer. Received: "
            f"layers {[layer.name for layer in embedder.layers]}."
        )
    layer = found[0]
    if centres is not None:  # before the images are embedded
        centres = check_centres(
            centres,
            num_clusters=layer.num_clusters,
            channels=layer.centres.shape[1],
        )
    below = keras.Model(embedder.input, layer.input)
    rng = np.random.default_rng(seed)
    descriptors = []
    for batch in images:
        # Not by `predict`, which would repeat a batch on every replica.
        maps = ops.convert_to_numpy(below(batch, training=False))
        locations = maps.reshape(len(maps), -1, maps.shape[-1])
        count = min(locations_per_image, locations.shape[1])
        for image in locations:
            chosen = rng.choice(len(image), count, replace=False)
            descriptors.append(image[chosen].astype(np.float32))
    if not descriptors:
        raise ValueError(
            "Expected images to initialise NetVLAD from. Received: none."
        )
    assignment, centres = netvlad_initial_weights(
        np.concatenate(descriptors),
        layer.num_clusters,
        centres=centres,
        seed=seed,
    )
    layer.assignment.assign(assignment)
    layer.centres.assign(centres)
    logging.info(
        "Initialised %d NetVLAD clusters from %d images.",
        layer.num_clusters,
        len(descriptors),
    )


def in_float32(network: keras.Model) -> keras.Model:
    """Makes a network compute in float32, whatever it was trained in.

    Args:
        network: whose weights are float32, as mixed policies keep them.

    Returns:
        The same network.
    """
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            in_float32(layer)
        layer.dtype_policy = "float32"
    return network


def float32_copy(network: keras.Model) -> keras.Model:
    """Returns a network that computes in float32, and leaves this one as it is.

    Args:
        network: any model that Keras can save.

    Returns:
        The network itself if it computes in float32, else a copy.
    """
    if _computes_in_float32(network):
        return network
    copy = type(network).from_config(network.get_config())
    copy.set_weights(network.get_weights())
    return in_float32(copy)


def _computes_in_float32(layer: keras.layers.Layer) -> bool:
    return layer.compute_dtype == "float32" and all(
        map(_computes_in_float32, getattr(layer, "layers", []))
    )


def _check_name(embedder: keras.Model) -> None:
    if embedder.name != "embedder":
        raise ValueError(
            "Expected a model named 'embedder', by which checkpoints find it. "
            f"Received: embedder.name={embedder.name!r}."
        )


@keras.saving.register_keras_serializable(package="sare_tf")
class MergeTuples(keras.layers.Layer):
    """Puts the images of all tuples into one batch.

    Call arguments:
        tuples: images of tuples, or anything else that each image has.

    Input shape:
        [B, T, ...].

    Output shape:
        [B * T, ...].
    """

    def call(self, tuples):
        batch, count, *of_image = ops.shape(tuples)
        return ops.reshape(tuples, (batch * count, *of_image))

    def compute_output_shape(self, input_shape):
        return (None, *input_shape[2:])


@keras.saving.register_keras_serializable(package="sare_tf")
class SplitTuples(keras.layers.Layer):
    """Puts descriptors back into tuples: the reverse of `MergeTuples`.

    Call arguments:
        descriptors: of all images of all tuples.
        tuples: the images; only B and T are read from them.

    Input shape:
        [B * T, D] and [B, T, H, W, C].

    Output shape:
        [B, T, D].
    """

    def call(self, descriptors, tuples):
        batch, count = ops.shape(tuples)[:2]
        return ops.reshape(descriptors, (batch, count, descriptors.shape[-1]))

    def compute_output_shape(self, descriptors_shape, tuples_shape):
        return (*tuples_shape[:2], descriptors_shape[-1])
