"""The embedder: images to descriptors of unit length.

Axis letters: B batch, T images of a tuple, H W C image or feature map, D
descriptor length. Images are RGB, 0..255, of any number type; the graph holds
their preprocessing.
"""

import importlib
from pathlib import Path

import keras
from absl import logging
from keras import ops

from sare_tf.model import backbones, drop_path, keras_backbone
from sare_tf.model.augmentation import Augmentation
from sare_tf.model.data_checks import ChecksData, Embedder
from sare_tf.model.loss_weights import TrainsLossWeights
from sare_tf.model.registry import (
    AGGREGATIONS,
    BACKBONES,
    WITH_CLASS_TOKEN,
    WITH_CLUSTERS,
)


def build_embedder(
    *,
    backbone: str | Path | keras.Model = "vgg16",
    aggregation: str = "netvlad",
    num_clusters: int = 64,
    weights: str | Path | None = None,
    cut_layer: str | None = None,
    train_from: str | None = None,
    image_size: tuple[int, int] | None = None,
) -> keras.Model:
    """Makes the network that is trained, exported and served.

    Any Keras model can be the backbone. It takes RGB images, 0..255, float32,
    so its preprocessing is a layer of it, for example a `Rescaling`:

    ```python
    network = keras.applications.ConvNeXtTiny(include_top=False)
    embedder = sare_tf.build_embedder(backbone=network, aggregation="gem")

    backbone = keras.Sequential(
        [keras.layers.Rescaling(1 / 127.5, offset=-1.0), own_network]
    )
    embedder = sare_tf.build_embedder(backbone=backbone)
    ```

    Args:
        backbone: a name in `registry.BACKBONES`; or any Keras model of feature
            maps, [B, H, W, C], or tokens, [B, L, C], or a .keras file of one.
            A model is shared, not copied; its batch normalisation is frozen
            and its dropout switched off, as in every backbone.
        aggregation: a name in `registry.AGGREGATIONS`. All tokens of a Keras
            model are aggregated, without their order, which "rmac", "convap",
            "boq" and "mixvpr" need.
        num_clusters: of those in `registry.WITH_CLUSTERS`.
        weights: of a backbone by name: None for random, "imagenet", or a local
            file; see `backbones.build`. A Keras model has its own. NetVLAD's
            come from `initialise_netvlad`.
        cut_layer: name of the backbone's layer whose output is aggregated; None
            for its own.
        train_from: name of the first layer or block that is trained; None for
            the backbone's own, "aggregation" for none of the backbone.
        image_size: height and width in pixels; None for any, or for the size
            of a backbone that has only one.

    Returns:
        A model named "embedder": [B, H, W, 3] -> float32 [B, D].

    Raises:
        ValueError: an unknown name, weights that do not fit, a backbone of
            other inputs or outputs, a size that it does not take, or the
            image data format channels_first.
        FileNotFoundError: no such file.
    """
    _check_channels_last()
    if aggregation not in AGGREGATIONS:
        raise ValueError(
            f"Expected aggregation to be one of {sorted(AGGREGATIONS)}. "
            f"Received: aggregation={aggregation!r}."
        )
    if isinstance(backbone, str) and backbone in BACKBONES:
        *before, network = backbones.build(
            backbone,
            weights=weights,
            cut_layer=cut_layer,
            train_from=train_from,
            class_token=aggregation in WITH_CLASS_TOKEN,
        )
        _warn_of_random_weights(backbone, weights)
    else:
        before, network = (
            [],
            keras_backbone.build(
                backbone, cut_layer=cut_layer, train_from=train_from
            ),
        )
        _check_no_weights(weights)
    height, width = _size(network, image_size)
    # Keras casts what comes in, uint8 too, to the dtype of the input.
    images = keras.Input((height, width, 3), dtype="float32", name="images")
    features = images
    for layer in (*before, network):
        features = layer(features)
    class_token = []
    if isinstance(features, list):
        features, *class_token = features
    elif aggregation == "class_token":
        raise ValueError(
            "Expected a backbone with a class token, such as dinov2_vits14, "
            "for aggregation='class_token'. Received: backbone="
            f"{getattr(backbone, 'name', backbone)!r}. Choose another "
            "aggregation."
        )
    if len(features.shape) == 3:
        features = _as_map(features, aggregation)
    settings = {"num_clusters": num_clusters}
    aggregate = make_aggregation(
        aggregation, **(settings if aggregation in WITH_CLUSTERS else {})
    )
    descriptors = aggregate(features, *class_token)
    return Embedder(images, descriptors, name="embedder")


def make_aggregation(name: str, **settings) -> keras.layers.Layer:
    """Makes the aggregation of a name in `registry.AGGREGATIONS`.

    Args:
        name: the name, which the layer gets as well.
        **settings: arguments of the layer.
    """
    module, _, layer = AGGREGATIONS[name].rpartition(".")
    make = getattr(importlib.import_module(f"sare_tf.model.{module}"), layer)
    return make(name=name, **settings)


def over_tuples(
    embedder: keras.Model,
    *,
    augmentation: Augmentation | None = None,
    path_draws: int = 0,
) -> keras.Model:
    """Applies an embedder to every image of every tuple.

    The result trains on tuples, with a loss over tuples and no targets:

    ```python
    model = sare_tf.over_tuples(embedder)
    model.compile("adam", loss=sare_tf.SARELoss())
    model.fit(tuples, batch_size=4)
    ```

    Args:
        embedder: a model named "embedder", [B, H, W, 3] -> [B, D]. It is
            shared, not copied: training the result trains it.
        augmentation: varies the images in training; None: they stay as they
            are.
        path_draws: random numbers of an image that come with the tuples for
            stochastic depth; 0: its layers draw them.

    Returns:
        A `TupleNetwork`, [B, T, H, W, 3] -> float32 [B, T, D], for any B and
        T. With an augmentation it takes {"images": the same, "draws": float32
        [B, T, R]}, as `tuple_dataset` gives them; with path_draws also
        "path_draws", of as many numbers. The embedder is its layer "embedder",
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
    if path_draws:
        path = keras.Input((None, path_draws), name="path_draws")
        images = drop_path.TakesPathDraws(dtype="float32")(images, path)
        inputs = {"images": tuples, "path_draws": path}
    if augmentation is not None:
        draws = keras.Input((None, augmentation.num_draws), name="draws")
        images = augmentation(images, merge(draws))
        inputs = {"images": tuples, "draws": draws}
        if path_draws:
            inputs["path_draws"] = path
    descriptors = embedder(images)  # [B * T, D]
    return TupleNetwork(inputs, split(descriptors, tuples), name="over_tuples")


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


def _check_channels_last() -> None:
    layout = keras.config.image_data_format()
    if layout != "channels_last":
        raise ValueError(
            "Expected the image data format channels_last, [B, H, W, C]. "
            f"Received: image_data_format={layout!r}. Call "
            'keras.config.set_image_data_format("channels_last") first, or set '
            "it in ~/.keras/keras.json."
        )


def _warn_of_random_weights(backbone: str, weights: str | Path | None) -> None:
    if weights is None and backbone != "small":
        logging.warning(
            "%s has random weights; it is meant to start from "
            "--weights=imagenet or a local file.",
            backbone,
        )


def _check_no_weights(weights: str | Path | None) -> None:
    if weights is not None:
        raise ValueError(
            "Expected weights=None with a Keras model as the backbone, which "
            f"has its own. Received: weights={str(weights)!r}. Load them into "
            "the model first."
        )


def _size(
    network: keras.Model, image_size: tuple[int, int] | None
) -> tuple[int | None, int | None]:
    """Returns the input size of an embedder over a backbone."""
    fixed = tuple(network.input_shape[1:3])
    asked = tuple(image_size or fixed)
    if any(
        own not in (None, size) for own, size in zip(fixed, asked, strict=True)
    ):
        raise ValueError(
            f"Expected image_size={fixed}, the only one that the backbone "
            f"takes. Received: image_size={asked}."
        )
    return asked


def _as_map(tokens, aggregation: str):
    """Returns tokens as a feature map of one column, [B, L, 1, C]."""
    if aggregation in ("rmac", "convap", "boq", "mixvpr"):
        raise ValueError(
            "Expected a backbone that outputs feature maps, [B, H, W, C], for "
            f"aggregation={aggregation!r}, which looks at where a location is. "
            "Received: tokens of "
            f"shape {tuple(tokens.shape)}. Choose another aggregation, or let "
            "the backbone end in a keras.layers.Reshape."
        )
    return keras.layers.Reshape((-1, 1, tokens.shape[-1]), name="locations")(
        tokens
    )


def _check_name(embedder: keras.Model) -> None:
    if embedder.name != "embedder":
        raise ValueError(
            "Expected a model named 'embedder', by which checkpoints find it. "
            f"Received: embedder.name={embedder.name!r}."
        )


@keras.saving.register_keras_serializable(package="sare_tf")
class TupleNetwork(TrainsLossWeights, ChecksData, keras.Model):
    """Embeds tuples, and trains on them without targets.

    `over_tuples` makes it. `fit`, `evaluate` and `validation_data` take tuples
    as they are: a query, a positive and negatives need no target. Targets are
    allowed, one for each tuple, and ignored by the losses over tuples. Keras
    uses `sample_weight` only with targets.

    A `SARELoss` with an `InverseBandwidth` is trained with the network and
    saved with it, as in a `PlaceNetwork`.

    Call arguments:
        tuples: images of tuples, RGB, 0..255, of any number type.

    Input shape:
        [B, T, H, W, 3].

    Output shape:
        [B, T, D].
    """

    def call(self, inputs, training=None, mask=None):
        path = inputs.get("path_draws") if isinstance(inputs, dict) else None
        if path is not None:
            path = ops.reshape(path, (-1, path.shape[-1]))
        with drop_path.given(path):
            return super().call(inputs, training=training, mask=mask)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        if y is None:
            # Keras computes a loss only of targets.
            y = ops.zeros_like(y_pred[:, 0, 0])
        return super().compute_loss(x, y, y_pred, sample_weight, training)


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
