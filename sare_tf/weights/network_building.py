"""An imported network -> the embedder, and back."""

import keras
import numpy as np

from sare_tf.model import NetVLAD, Whitening, backbones
from sare_tf.model.data_checks import Embedder
from sare_tf.model.embedder import make_aggregation
from sare_tf.model.registry import POOLINGS
from sare_tf.weights.imported_network import (
    VGG16_LAYERS,
    GeMWeights,
    ImportedNetwork,
    NetVLADWeights,
)


def build(
    imported: ImportedNetwork,
    *,
    aggregation: str | None = None,
    whitening_dimension: int | None = None,
) -> keras.Model:
    """Makes the embedder of an imported network.

    Args:
        imported: the network, from `weight_files.read`.
        aggregation: for a file of only a backbone: "gem", "mac", "rmac" or
            "spoc".
        whitening_dimension: None: whitened as the source is; 0: not whitened;
            else the first dimensions of its whitening.

    Returns:
        A model named "embedder": [B, H, W, 3] -> float32 [B, D]. Whitening is
        its last layer, and is not trained.

    Raises:
        ValueError: the aggregation does not fit, or the source has no such
            whitening.
    """
    _, network = backbones.build(
        imported.backbone, cut_layer=imported.cut_layer
    )
    _assign(network, imported)
    preprocessing = backbones.Preprocessing(
        **imported.preprocessing, dtype="float32", name="preprocessing"
    )
    images = keras.Input((None, None, 3), dtype="float32", name="images")
    features = network(preprocessing(images))
    layer = _make_aggregation(imported, aggregation)
    descriptors = layer(features)
    _set_aggregation(layer, imported.aggregation)
    descriptors = _whiten(descriptors, imported, whitening_dimension)
    return Embedder(images, descriptors, name="embedder")


def _whiten(descriptors, imported: ImportedNetwork, dimension: int | None):
    """Whitens descriptors, [B, D] -> [B, dimension]; see `build`."""
    available = 0 if imported.projection is None else len(imported.bias)
    dimension = available if dimension is None else dimension
    if not dimension:
        return descriptors
    if dimension > available:
        raise ValueError(
            f"Expected whitening to at most the {available} dimensions that "
            f"the source has. Received: whitening_dimension={dimension}. Leave "
            "it out; export can fit whitening to records."
        )
    whitening = Whitening(dimension, trainable=False, name="whitening")
    descriptors = whitening(descriptors)
    whitening.projection.assign(imported.projection[:, :dimension])
    whitening.bias.assign(imported.bias[:dimension])
    return descriptors


def take_apart(embedder: keras.Model) -> ImportedNetwork:
    """Returns the network that `build` makes this embedder of.

    Args:
        embedder: a model named "embedder" over VGG16 with NetVLAD.

    Raises:
        ValueError: it has another backbone or aggregation.
    """
    layers = {layer.name: layer for layer in embedder.layers}
    preprocessing = layers.get("preprocessing")
    backbone = layers.get("backbone")
    aggregating = layers.get("netvlad")
    whitening = layers.get("whitening")
    convolutions = {}
    if preprocessing is not None and backbone is not None:
        convolutions = {
            layer.name: layer.get_weights()
            for layer in backbone.layers
            if layer.weights
        }
    if aggregating is None or tuple(convolutions) != VGG16_LAYERS:
        raise ValueError(
            "Expected VGG16 up to conv5_3 with NetVLAD. Received: layers "
            f"{list(layers)}, and {list(convolutions)[:3]} ... in the "
            "backbone. Other networks have no place in these files."
        )
    settings = preprocessing.get_config()
    return ImportedNetwork(
        source="sare_tf",
        backbone="vgg16",
        layers=convolutions,
        preprocessing={
            name: settings[name] for name in ("mean", "deviation", "blue_first")
        },
        aggregation=NetVLADWeights(
            assignment=np.asarray(aggregating.assignment),
            centres=np.asarray(aggregating.centres),
            bias=np.asarray(aggregating.assignment_bias)
            if aggregating.use_bias
            else None,
            clamped=aggregating.clamped,
        ),
        projection=np.asarray(whitening.projection) if whitening else None,
        bias=np.asarray(whitening.bias) if whitening else None,
    )


def _assign(network: keras.Model, imported: ImportedNetwork) -> None:
    """Sets the weights of every layer of the backbone."""
    layers = {layer.name: layer for layer in network.layers if layer.weights}
    differing = sorted(layers.keys() ^ imported.layers.keys())
    if differing:
        raise ValueError(
            f"Expected weights of each layer of {imported.backbone}, and of no "
            f"other. Received: {', '.join(differing[:8])} in only one of both."
        )
    for name, layer in layers.items():
        expected = [tuple(weight.shape) for weight in layer.weights]
        received = [array.shape for array in imported.layers[name]]
        if expected != received:
            raise ValueError(
                f"Expected weights of shapes {expected} for {name} of "
                f"{imported.backbone}. Received: shapes {received}. It is "
                "another network."
            )
        layer.set_weights(imported.layers[name])


def _make_aggregation(
    imported: ImportedNetwork, aggregation: str | None
) -> keras.layers.Layer:
    weights = imported.aggregation
    if isinstance(weights, NetVLADWeights):
        return NetVLAD(
            num_clusters=len(weights.centres),
            use_bias=weights.bias is not None,
            clamped=weights.clamped,
            name="netvlad",
        )
    if isinstance(weights, GeMWeights):
        return make_aggregation(
            "gem",
            p=weights.exponent,
            unit_locations=weights.unit_locations,
        )
    if aggregation not in POOLINGS:
        raise ValueError(
            f"Expected an aggregation, {', '.join(POOLINGS)}, for a file that "
            f"holds only a backbone. Received: aggregation={aggregation!r}. "
            "Give --aggregation; for NetVLAD, train with the file as --weights."
        )
    return make_aggregation(aggregation)


def _set_aggregation(
    layer: keras.layers.Layer, weights: NetVLADWeights | GeMWeights | None
) -> None:
    if isinstance(weights, NetVLADWeights):
        expected = tuple(layer.centres.shape)
        if weights.centres.shape != expected:
            raise ValueError(
                f"Expected NetVLAD of {expected[1]} channels, which the "
                "backbone has. Received: centres of "
                f"{np.shape(weights.centres)[1]}."
            )
        layer.assignment.assign(weights.assignment)
        layer.centres.assign(weights.centres)
        if weights.bias is not None:
            layer.assignment_bias.assign(weights.bias)
