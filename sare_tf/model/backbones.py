"""Backbones: from RGB images, 0..255, to feature maps.

A backbone consists of its preprocessing, which computes in float32, and a model
named "backbone", [B, H, W, 3] -> [B, h, w, C]. H and W may be unknown. The
features of an image depend neither on the other images of the batch nor on
`training`: batch normalisation uses its stored statistics, and dropout is off.
So mining, training and the exported model see the same features.
"""

import importlib
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from sare_tf.dataset.interpolation import Interpolation
from sare_tf.model import image_range, published_files
from sare_tf.model.keras_backbone import (
    layer_named,
    make_repeatable,
    train_after,
)
from sare_tf.model.pretrained import weights_file
from sare_tf.model.registry import BACKBONES, Backbone
from sare_tf.model.torchvision import published_weights
from sare_tf.model.vit_outputs import ClassToken, PatchMap


@keras.saving.register_keras_serializable(package="sare_tf")
class Preprocessing(layers.Layer):
    """Subtracts a mean from each channel and divides by a deviation.

    The layer warns once of images that are not in 0..255; see `RangeWarning`.
    It also keeps how encoded images become its input, which the exported graph
    does.

    Args:
        mean: one value per channel, in the order after `blue_first`.
        deviation: one value per channel, in the order after `blue_first`.
        blue_first: whether to turn RGB into BGR first.
        image_size: height and width that the network was published with; None
            for none.
        interpolation: "bilinear" or "bicubic", by which images get their size;
            see `Interpolation`.
        rounded: whether resized images are rounded to whole numbers.

    Call arguments:
        images: RGB, 0..255.

    Input shape:
        [B, H, W, 3].

    Output shape:
        The same as the input.
    """

    def __init__(
        self,
        mean,
        deviation,
        blue_first=False,
        image_size=None,
        interpolation="bilinear",
        rounded=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.mean = tuple(mean)
        self.deviation = tuple(deviation)
        self.blue_first = blue_first
        self.image_size = image_size and tuple(image_size)
        self.interpolation = Interpolation(kind=interpolation, rounded=rounded)
        self.warn_of_range = image_range.RangeWarning()

    def call(self, images, training=None):
        self.warn_of_range(images, training=training)
        images = ops.cast(images, self.compute_dtype)
        if self.blue_first:
            images = ops.flip(images, axis=-1)
        mean = ops.convert_to_tensor(self.mean, dtype=images.dtype)
        deviation = ops.convert_to_tensor(self.deviation, dtype=images.dtype)
        return (images - mean) / deviation

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "mean": self.mean,
            "deviation": self.deviation,
            "blue_first": self.blue_first,
            "image_size": self.image_size,
            "interpolation": self.interpolation.kind,
            "rounded": self.interpolation.rounded,
        }


# Arguments of `Preprocessing` that a backbone takes over.
_PREPROCESSING = ("mean", "deviation", "blue_first")


def build(
    name: str,
    *,
    weights: str | Path | None = None,
    cut_layer: str | None = None,
    train_from: str | None = None,
    class_token: bool = False,
):
    """Builds a backbone.

    Args:
        name: a name in `registry.BACKBONES`.
        weights: None for random weights; "imagenet", which Keras downloads;
            the name of a published file, see `published_files`, which is
            downloaded from where its authors host it; or a local file, whose
            format is recognised by its content. Files
            of Keras are .h5 and .weights.h5 with the whole network without
            its top, as in keras.applications, and .keras with the same or with
            a model of this package, whose backbone and preprocessing are used.
            For the networks of torchvision and DINOv2, also the published
            file: .pth, safetensors, or the same arrays as .npz.
        cut_layer: name of the layer whose output is the feature map. The
            activation of a convolution is left out. None: the default of the
            backbone.
        train_from: name of the first layer or block to train; later layers up
            to the cut are trained, too. "aggregation" trains none of them.
            None: the default of the backbone.
        class_token: whether to output the class token, too, if the backbone
            has one.

    Returns:
        The preprocessing layer, and the model named "backbone". Its output is
        the feature map, or a list of feature map and class token, [B, C].

    Raises:
        ValueError: unknown name of a backbone or a layer, no download of
            Keras, or a file that does not fit.
        FileNotFoundError: no such file or name.
        ConnectionError: a published file cannot be downloaded.
    """
    if name not in BACKBONES:
        raise ValueError(
            f"Expected backbone to be one of {sorted(BACKBONES)}. "
            f"Received: backbone={name!r}."
        )
    recipe = BACKBONES[name]
    weights = _located(weights)
    backbone = cut(
        _network(name, recipe, weights),
        cut_layer or recipe.cut_layer,
        train_from=train_from or recipe.train_from,
        class_token=class_token,
        name=name,
    )
    settings = recipe.preprocessing
    if _is_file(weights) and weights_file.kind_of(Path(weights)) == "keras":
        settings = _copy_weights(backbone, Path(weights)) or settings
    preprocessing = Preprocessing(
        **settings, dtype="float32", name="preprocessing"
    )
    return preprocessing, backbone


def cut(
    network: keras.Model,
    cut_layer: str,
    *,
    train_from: str,
    name: str,
    class_token: bool = False,
) -> keras.Model:
    """Makes a backbone of a whole network, which it shares.

    Args:
        network: the network, [B, H, W, 3] to anything.
        cut_layer: name of the layer whose output is the feature map, without
            the activation that a convolution may hold.
        train_from: name of the first layer that is trained; see `build`.
        name: of the network, for messages.
        class_token: also give the class token at the cut, if there is one.

    Returns:
        The model named "backbone"; see `build`.

    Raises:
        ValueError: unknown name of a layer.
    """
    last = layer_named(
        cut_layer,
        [layer for layer in network.layers[1:] if _is_feature_map(layer)],
        f"cut_layer to be a layer of {name} that gives feature maps",
    )
    if isinstance(last, layers.Conv2D):
        last.activation = keras.activations.linear
    outputs = last.output
    if class_token and isinstance(last, PatchMap):
        tokens, _ = last.input
        first = ClassToken(
            last.part, last.num_parts, last.num_leading, name="class_token"
        )
        outputs = [outputs, first(tokens)]
    backbone = keras.Model(network.input, outputs, name="backbone")
    train_after(backbone, train_from, name)
    make_repeatable(backbone)
    return backbone


def _is_feature_map(layer) -> bool:
    """Tells a [B, H, W, C] output from those of squeeze-and-excitation."""
    return tuple(layer.output.shape[:3]) == (None, None, None)


def _network(name, recipe, weights) -> keras.Model:
    """Builds the whole network; weights of a .keras file follow later."""
    if weights is None:
        return _make(recipe, None)
    if weights == "imagenet":
        return _with_downloaded_weights(name, recipe)
    path = Path(weights)
    kind = weights_file.kind_of(path)
    if kind is None:
        raise ValueError(
            "Expected a file of weights that Keras, PyTorch, safetensors or "
            f"NumPy saved. Received: weights={str(path)!r}, which is none of "
            "them, or damaged. If it was downloaded, see whether it is a web "
            "page or cut off."
        )
    network = _make(recipe, None)
    if kind == "hdf5":
        _load_all(network, path, name)
    elif kind in weights_file.ARRAYS_BY_NAME:
        _assign_published(network, path, name, recipe)
    return network


def _is_file(weights) -> bool:
    return weights not in (None, "imagenet")


def _located(weights):
    """Returns the path of a file, which is downloaded if it is a name's."""
    if not _is_file(weights) or Path(weights).is_file():
        return weights
    published = published_files.find(str(weights))
    if published is None:
        raise FileNotFoundError(
            "Expected weights to be 'imagenet' or a file, or the name of a "
            "published one, such as mobilenet_v2. Received: "
            f"weights={str(weights)!r}, which does not exist. For random "
            "weights, leave it out."
        )
    return published_files.get(published)


def _assign_published(network, path, name, recipe) -> None:
    arrays = weights_file.read_arrays(path)
    if recipe.assign is not None:
        _named(recipe.assign)(network, path, arrays, name=name)
        return
    received = published_weights.identify(arrays)
    advice = (
        f"Give --backbone={received}."
        if received
        else "If import_weights reads it, give the model.keras that it writes."
    )
    raise ValueError(
        f"Expected weights of Keras, .h5 or .keras, for backbone={name!r}. "
        f"Received: weights={str(path)!r} with {len(arrays)} arrays, of "
        f"{received or 'another network'}. {advice}"
    )


def _named(path: str) -> Callable[..., Any]:
    """Returns a function by its module and name."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _make(recipe: Backbone, weights: str | None) -> keras.Model:
    make = _named(recipe.network)
    if not recipe.is_application:
        return make(**recipe.arguments)
    # For unknown sizes always: some pad by the parity of a known size.
    return make(
        include_top=False,
        weights=weights,
        input_shape=(None, None, 3),
        **recipe.arguments,
    )


def _load_all(network, path, name) -> None:
    """Loads a .h5 file; refuses it if it leaves any weight untouched."""
    # Keras only warns of some weights that it does not find, and warns of
    # containers that have none. So mark all weights, and look which are left.
    for variable in network.weights:
        variable.assign(ops.full(variable.shape, np.nan, variable.dtype))
    try:
        with (
            warnings.catch_warnings(),
            weights_file.named_for_keras(path) as named,
        ):
            warnings.filterwarnings("ignore", "Skipping nested container")
            network.load_weights(named)
    except (ValueError, OSError, KeyError) as error:
        raise _does_not_fit(path, name) from error
    for variable in network.weights:
        if not np.isfinite(ops.convert_to_numpy(variable)).all():
            raise _does_not_fit(path, name)


def _with_downloaded_weights(name, recipe) -> keras.Model:
    if not recipe.is_application:
        raise ValueError(
            f"Expected weights=None or a local file for backbone={name!r}, of "
            "which Keras has no ImageNet weights. Received: "
            "weights='imagenet'. small trains from scratch; for the others "
            "give the published file, or import a checkpoint, see "
            "sare_tf.import_weights."
        )
    try:
        with warnings.catch_warnings():
            # Without a top, the weights are the same for every input size.
            warnings.filterwarnings("ignore", "`input_shape` is undefined")
            return _make(recipe, "imagenet")
    # Keras raises a bare Exception where a download fails.
    except Exception as error:
        raise ValueError(
            f"Expected to download the ImageNet weights of {name}. Received: "
            f"{error} Without a network, download the file without top of "
            "keras.applications elsewhere and pass its path as weights."
        ) from error


def _copy_weights(backbone, path) -> dict | None:
    """Copies weights from a saved model by layer name.

    Returns:
        The arguments of the model's `Preprocessing`, or None if it has none.
    """
    try:
        with weights_file.named_for_keras(path) as named:
            source = keras.saving.load_model(named, compile=False)
    except (ValueError, TypeError, OSError, zipfile.BadZipFile) as error:
        raise _does_not_fit(path, backbone.name) from error
    settings = None
    for nested in ("embedder", "backbone"):
        inside = {layer.name: layer for layer in source.layers}
        if isinstance(inside.get("preprocessing"), Preprocessing):
            config = inside["preprocessing"].get_config()
            settings = {name: config[name] for name in _PREPROCESSING}
        source = inside.get(nested, source)
    found = {layer.name: layer for layer in source.layers}
    for layer in backbone.layers:
        if not layer.weights:
            continue
        if layer.name not in found:
            raise _does_not_fit(path, f"layer {layer.name}")
        try:
            layer.set_weights(found[layer.name].get_weights())
        except ValueError as error:
            raise _does_not_fit(path, f"layer {layer.name}") from error
    return settings


def _does_not_fit(path, what) -> ValueError:
    return ValueError(
        f"Expected a file with weights of {what}. Received: "
        f"weights={str(path)!r}, which holds another architecture or is "
        "damaged. For .h5 files take the one without top."
    )
