"""Any Keras model as a backbone: RGB images, 0..255, to features.

The model holds its own preprocessing. Its features are a feature map,
[B, h, w, C], or tokens, [B, L, C], such as those of a vision transformer.
"""

from collections.abc import Sequence
from pathlib import Path

import keras
from keras import layers

from sare_tf.model.registry import BACKBONES

# Instead of the first layer that is trained: what comes after the backbone.
AGGREGATION = "aggregation"
_FEATURES = "feature maps, [B, H, W, C], or tokens, [B, L, C], with known C"


def build(
    backbone: keras.Model | str | Path,
    *,
    cut_layer: str | None = None,
    train_from: str | None = None,
) -> keras.Model:
    """Makes a backbone of a Keras model.

    The model is shared, not copied: training the backbone trains it. As in
    every backbone, batch normalisation uses its stored statistics and dropout
    is off.

    Args:
        backbone: the model, or a .keras file of one; images, RGB 0..255,
            float32 [B, H, W, 3], to features.
        cut_layer: name of the layer whose output is taken; None for the
            model's own output.
        train_from: name of the first layer or block that is trained, with all
            layers after it; "aggregation" for none of them; None for the
            layers that are trainable in the model.

    Returns:
        A model named "backbone", [B, H, W, 3] -> [B, h, w, C] or [B, L, C].

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown name, a file that Keras cannot load, a model of
            other inputs or outputs, or an unknown layer.
    """
    if not isinstance(backbone, keras.Model):
        backbone = _load(backbone)
    images, features = _graph(backbone)
    if cut_layer is not None:
        cut = layer_named(
            cut_layer,
            backbone.layers,
            f"cut_layer to be a layer of {backbone.name}",
        )
        features = cut.output
    _check_shapes(backbone, images, features)
    network = keras.Model(images, features, name="backbone")
    if train_from is not None:
        train_after(network, train_from, backbone.name)
    make_repeatable(network)
    return network


def layer_named(
    name: str, candidates: Sequence[layers.Layer], expected: str
) -> layers.Layer:
    """Returns the layer of a name.

    Raises:
        ValueError: none of the candidates has it; the message begins with what
            was expected.
    """
    for layer in candidates:
        if layer.name == name:
            return layer
    raise ValueError(
        f"Expected {expected}. Received: {name!r}. There are: "
        f"{', '.join(layer.name for layer in candidates)}."
    )


def train_after(backbone: keras.Model, train_from: str, name: str) -> None:
    """Freezes the layers before the first one that is trained.

    TensorFlow removes from the graph of a training step what no gradient of a
    trained weight needs: it keeps nothing of frozen layers.

    Args:
        backbone: the layers, in their order.
        train_from: name of that layer; or of its block, with which the names
            of the block's layers begin, such as "block8" for "block8_norm1";
            or "aggregation" to freeze all.
        name: of the backbone, for the message.

    Raises:
        ValueError: no such layer.
    """
    candidates, first = backbone.layers[1:], None
    if train_from != AGGREGATION:
        first = _first_layer_of(train_from, candidates) or layer_named(
            train_from,
            candidates,
            f"train_from to be {AGGREGATION!r} or a layer or block of {name} "
            f"up to its cut, {candidates[-1].name}",
        )
    trained = False
    for layer in backbone.layers:
        trained = trained or layer is first
        layer.trainable = trained


def _first_layer_of(
    block: str, candidates: Sequence[layers.Layer]
) -> layers.Layer | None:
    """Returns the first layer of a block, or None if no layer has its name."""
    for layer in candidates:
        if layer.name == block or layer.name.startswith(f"{block}_"):
            return layer
    return None


def make_repeatable(layer: layers.Layer) -> None:
    """Makes the features of an image independent of its batch and of chance."""
    for inner in getattr(layer, "layers", []):
        make_repeatable(inner)
    # Frozen, it uses stored statistics in every mode.
    if isinstance(layer, layers.BatchNormalization):
        layer.trainable = False
    if isinstance(layer, layers.Dropout):
        layer.rate = 0.0


def _load(backbone: str | Path) -> keras.Model:
    path = Path(backbone)
    if path.suffix != ".keras":
        raise ValueError(
            f"Expected backbone to be one of {sorted(BACKBONES)}, a "
            "keras.Model or a .keras file of one. Received: "
            f"backbone={str(backbone)!r}."
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a .keras file. Received: backbone={str(path)!r}, which "
            "does not exist."
        )
    try:
        return keras.saving.load_model(path, compile=False)
    # A class that is not registered is a TypeError.
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise ValueError(
            "Expected a .keras file that Keras can load. Received: "
            f"backbone={str(path)!r} ({error})"
        ) from error


def _graph(backbone: keras.Model):
    """Returns the symbolic input and output of a model."""
    tensors = [getattr(backbone, name, None) for name in ("inputs", "outputs")]
    if None in tensors:
        # A subclassed or unbuilt model, which takes images of any size.
        images = keras.Input((None, None, 3), dtype="float32", name="images")
        return images, backbone(images)
    if [len(each) for each in tensors] != [1, 1]:
        raise ValueError(
            "Expected a backbone with one input and one output. Received: a "
            f"model with {len(tensors[0])} inputs and {len(tensors[1])} "
            "outputs. Name one by cut_layer, or make a keras.Model of them."
        )
    return tensors[0][0], tensors[1][0]


def _check_shapes(backbone, images, features) -> None:
    if len(images.shape) != 4 or images.shape[-1] != 3:
        raise ValueError(
            "Expected a backbone of RGB images, [B, H, W, 3]. Received: "
            f"{backbone.name} with inputs of shape {tuple(images.shape)}."
        )
    shape = getattr(features, "shape", None)
    if shape is None or len(shape) not in (3, 4) or shape[-1] is None:
        received = (
            f"outputs of shape {tuple(shape)}" if shape else "several outputs"
        )
        raise ValueError(
            f"Expected a backbone that outputs {_FEATURES}. Received: "
            f"{backbone.name} with {received}. Leave out its pooling and "
            "its classifier (include_top=False in keras.applications), or name "
            "a layer before them by cut_layer."
        )
