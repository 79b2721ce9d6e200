"""Networks that compute in half precision, for inference.

The backbone computes in it: products of matrices, convolutions, and what lies
between. Its kernels are stored in it, which halves the size of an export. The
preprocessing before it, normalisations inside, aggregation, whitening and
descriptors stay float32.
"""

import itertools

import keras
from keras import layers

from sare_tf.model import folding
from sare_tf.model.registry import PRECISIONS

# Layers whose weights are stored in half precision: nearly all weights.
_STORED = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


def with_precision(embedder: keras.Model, precision: str) -> keras.Model:
    """Returns an embedder whose backbone computes in half precision.

    It is for inference and export, not for training, and runs fastest where
    the processor multiplies in that type. The descriptors stay float32 and of
    unit length; they differ a little from those in float32, see
    `--measured_images` of `export`.

    ```python
    half = sare_tf.with_precision(embedder, "mixed_bfloat16")
    sare_tf.export(half, "runs/mine/export", height=322, width=322)
    ```

    Args:
        embedder: a model of `build_embedder`, `load_embedder` or
            `import_weights`, which is not changed.
        precision: "mixed_bfloat16", of the range of float32 and 8 bits; or
            "mixed_float16", of 11 bits, which overflows above 65,504.

    Returns:
        A model of the same inputs and outputs, float32 ones.

    Raises:
        ValueError: another precision, or an embedder without a layer
            "backbone" of Keras layers.
    """
    if precision not in PRECISIONS[1:]:
        raise ValueError(
            f"Expected precision to be one of {', '.join(PRECISIONS[1:])}. "
            f"Received: precision={precision!r}."
        )
    folded = folding.fold(embedder)
    names = [layer.name for layer in folded.layers]
    if "backbone" not in names or not folding.is_functional(
        folded.get_layer("backbone")
    ):
        raise ValueError(
            "Expected an embedder with a layer 'backbone' of Keras layers, as "
            f"build_embedder makes it. Received: layers {names}."
        )

    def replace(layer):
        if layer.name == "backbone":
            return _lowered(layer, precision)
        return layer

    return folding.cloned(folded, replace)


def precision_of(embedder: keras.Model) -> str:
    """Returns the precision of `with_precision`; "float32" for other models."""
    for layer in embedder.layers:
        if layer.name == "backbone":
            types = {weight.dtype for weight in layer.weights}
            for precision in PRECISIONS[1:]:
                if precision.removeprefix("mixed_") in types:
                    return precision
    return PRECISIONS[0]


def _lowered(network: keras.Model, precision: str) -> keras.Model:
    """Returns a functional model in another precision, with its weights.

    Layers before the first one with weights handle pixels, and are kept.
    """
    pixels = list(
        itertools.takewhile(lambda layer: not layer.weights, network.layers)
    )
    pairs = []

    def replace(layer):
        if not isinstance(layer, layers.Layer) or layer in pixels:
            return layer
        if folding.is_functional(layer):
            return _lowered(layer, precision)
        policy = precision
        if type(layer) in _STORED:
            policy = precision.removeprefix("mixed_")
        new = type(layer).from_config({**layer.get_config(), "dtype": policy})
        pairs.append((layer, new))
        return new

    lowered = folding.cloned(network, replace)
    for layer, new in pairs:
        new.set_weights(layer.get_weights())
    return lowered
