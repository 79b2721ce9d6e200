"""VGG16 of keras.applications without its top: only a backbone.

Its ImageNet weights are Caffe's: they take BGR minus the mean of each channel.
"""

import zipfile
from pathlib import Path

import keras

from sare_tf.model import backbones, registry
from sare_tf.model.pretrained import weights_file
from sare_tf.weights.imported_network import VGG16_LAYERS, ImportedNetwork


def read(source: Path) -> ImportedNetwork:
    """Reads .h5 or .weights.h5 with the weights, or .keras with the model.

    Args:
        source: the file.

    Raises:
        ValueError: it is damaged, or of another network.
    """
    if zipfile.is_zipfile(source):
        try:
            with weights_file.named_for_keras(source) as named:
                network = keras.saving.load_model(named, compile=False)
        except (ValueError, TypeError, OSError) as error:
            raise ValueError(
                "Expected a model that Keras saved. Received: source="
                f"{str(source)!r} ({error}). Save only its weights, or get "
                "the file again."
            ) from error
    else:
        _, network = backbones.build("vgg16", weights=source)
    layers = {
        layer.name: layer.get_weights()
        for layer in network.layers
        if layer.weights
    }
    if tuple(layers) != VGG16_LAYERS:
        others = [name for name in layers if name not in VGG16_LAYERS]
        raise ValueError(
            "Expected VGG16 of keras.applications without its top. Received: "
            f"source={str(source)!r} with {len(layers)} layers that have "
            f"weights, among them {others[:5]}. A model of this package needs "
            "no import: export takes its checkpoint."
        )
    return ImportedNetwork(
        source="keras",
        backbone="vgg16",
        layers=layers,
        preprocessing=registry.BACKBONES["vgg16"].preprocessing,
    )
