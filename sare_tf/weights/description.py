"""An imported network in sentences, for the user."""

from collections.abc import Iterable

import keras

from sare_tf import model
from sare_tf.weights.imported_network import ImportedNetwork

# Policy of `model.vit.build` -> what it does.
_OTHER_SIZES = {
    "refuse": " Sides must be multiples of 14.",
    "resize": " Sides are resized to the nearest multiples of 14.",
    "crop": " The middle is cropped to multiples of 14.",
}


def describe(network: ImportedNetwork, embedder: keras.Model) -> list[str]:
    """Describes an imported network in sentences.

    Args:
        network: the network, from `weight_files.read`.
        embedder: the embedder built of it.
    """
    settings = network.preprocessing
    order = "BGR" if settings.get("blue_first") else "RGB"
    lines = [
        f"Network: {network.source}, {network.backbone} to "
        f"{embedder.get_layer('backbone').output_names[0]}; "
        f"{embedder.count_params():,} weights.",
        f"Images: {order}, 0..255, minus "
        f"{numbers(settings['mean'])}, divided by "
        f"{numbers(settings['deviation'])}.",
        _describe_sizes(network, embedder),
    ]
    for layer in embedder.layers:
        if isinstance(layer, model.NetVLAD):
            lines.append(
                f"NetVLAD: {layer.num_clusters} clusters, "
                f"{layer.output.shape[1]} dimensions, the assignment "
                f"{'with' if layer.use_bias else 'without'} a bias."
            )
        elif isinstance(layer, model.Whitening):
            lines.append(f"Whitening: to {layer.dimension} dimensions.")
        elif layer is embedder.layers[-1]:
            lines.append(
                f"Aggregation: {layer.name}, {layer.output.shape[1]} "
                "dimensions."
            )
    if not isinstance(embedder.layers[-1], model.Whitening):
        lines.append("Whitening: none; export can fit it to records.")
    return [*lines, *network.notes]


def _describe_sizes(network: ImportedNetwork, embedder: keras.Model) -> str:
    """Describes the sizes of images, and how they get them."""
    layer = embedder.get_layer("preprocessing")
    size = "any, as it was published"
    if layer.image_size:
        height, width = layer.image_size
        size = f"{height} x {width}, as it was published"
        if network.only_size:
            size = f"{height} x {width}, and no other"
    line = f"Sizes: {size}; resized by {layer.interpolation}."
    if network.transformer is None:
        return line
    return line + _OTHER_SIZES[network.transformer.other_sizes]


def numbers(values: Iterable[float]) -> str:
    """Returns numbers as text, in parentheses."""
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
