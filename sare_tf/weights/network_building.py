"""What a file of weights holds -> the embedder, and the other way."""

import keras
import numpy as np

from sare_tf.model import NetVLAD, Whitening, backbones
from sare_tf.model.embedder import make_aggregation
from sare_tf.model.registry import AGGREGATIONS
from sare_tf.weights.imported_network import (
    VGG16_LAYERS,
    Found,
    GeMWeights,
    NetVLADWeights,
)


def build(
    found: Found,
    *,
    aggregation: str | None = None,
    whitening_dimension: int | None = None,
) -> keras.Model:
    """Makes the embedder, with all that was found in its graph.

    Args:
        found: what `weight_files.read` returned.
        aggregation: for a backbone alone: "gem", "mac", "rmac" or "spoc".
        whitening_dimension: None: whitened as the source is; 0: not whitened;
            else the first dimensions of its whitening.

    Returns:
        A model named "embedder": [B, H, W, 3] -> float32 [B, D]. Whitening is
        its last layer, and is not trained.

    Raises:
        ValueError: an aggregation that does not fit, or a whitening that is
            not there.
    """
    _, network = backbones.build(found.backbone, cut_layer=found.cut_layer)
    _assign(network, found)
    preprocessing = backbones.Preprocessing(
        **found.preprocessing, dtype="float32", name="preprocessing"
    )
    images = keras.Input((None, None, 3), dtype="float32", name="images")
    features = network(preprocessing(images))
    layer = _aggregation(found, aggregation)
    descriptors = layer(features)
    _set_aggregation(layer, found.aggregation)
    if whitening_dimension is None and found.projection is not None:
        whitening_dimension = len(found.bias)
    if whitening_dimension:
        available = 0 if found.projection is None else len(found.bias)
        if whitening_dimension > available:
            raise ValueError(
                f"Expected whitening to at most the {available} dimensions "
                "that the source has. Received: "
                f"whitening_dimension={whitening_dimension}. Leave it out; "
                "export can fit whitening to records."
            )
        whitening = Whitening(
            whitening_dimension, trainable=False, name="whitening"
        )
        descriptors = whitening(descriptors)
        whitening.projection.assign(found.projection[:, :whitening_dimension])
        whitening.bias.assign(found.bias[:whitening_dimension])
    return keras.Model(images, descriptors, name="embedder")


def take_apart(embedder: keras.Model) -> Found:
    """What a file of weights would hold to make this embedder.

    Args:
        embedder: a model named "embedder" over VGG16 with NetVLAD.

    Raises:
        ValueError: it has another backbone or aggregation.
    """
    layers = {layer.name: layer for layer in embedder.layers}
    parts = [layers.get(name) for name in ("preprocessing", "backbone")]
    aggregating = layers.get("netvlad")
    whitening = layers.get("whitening")
    convolutions = {}
    if all(parts):
        convolutions = {
            layer.name: layer.get_weights()
            for layer in parts[1].layers
            if layer.weights
        }
    if aggregating is None or tuple(convolutions) != VGG16_LAYERS:
        raise ValueError(
            "Expected VGG16 up to conv5_3 with NetVLAD. Received: layers "
            f"{list(layers)}, and {list(convolutions)[:3]} ... in the "
            "backbone. Other networks have no place in these files."
        )
    settings = parts[0].get_config()
    return Found(
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


def _assign(network: keras.Model, found: Found) -> None:
    """Sets the weights of every layer of the backbone."""
    layers = {layer.name: layer for layer in network.layers if layer.weights}
    differing = sorted(layers.keys() ^ found.layers.keys())
    if differing:
        raise ValueError(
            f"Expected weights of each layer of {found.backbone}, and of no "
            f"other. Received: {', '.join(differing[:8])} in one of both "
            "alone."
        )
    for name, layer in layers.items():
        expected = [tuple(weight.shape) for weight in layer.weights]
        received = [array.shape for array in found.layers[name]]
        if expected != received:
            raise ValueError(
                f"Expected weights of shapes {expected} for {name} of "
                f"{found.backbone}. Received: shapes {received}. It is "
                "another network."
            )
        layer.set_weights(found.layers[name])


def _aggregation(found: Found, aggregation: str | None) -> keras.layers.Layer:
    weights = found.aggregation
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
    poolings = [name for name in AGGREGATIONS if name != "netvlad"]
    if aggregation not in poolings:
        raise ValueError(
            f"Expected an aggregation, {', '.join(poolings)}, for a file that "
            f"holds a backbone alone. Received: aggregation={aggregation!r}. "
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
