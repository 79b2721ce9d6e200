"""The sizes of images that an embedder takes, and was published with."""

import keras

from sare_tf.model.backbones import Preprocessing
from sare_tf.model.vit_architectures import PATCH
from sare_tf.model.vit_layers import TokenEmbedding
from sare_tf.model.vit_sizes import CropToPatches, ResizeToPatches


def chosen(
    embedder: keras.Model, height: int | None, width: int | None
) -> tuple[int, int]:
    """Returns the size that is given, or else the one of the embedder.

    Raises:
        ValueError: none is given, and the embedder takes any.
    """
    size = embedder.input_shape[1:3]
    preprocessing = preprocessing_of(embedder)
    if None in size and preprocessing and preprocessing.image_size:
        size = preprocessing.image_size
    height = size[0] if height is None else height
    width = size[1] if width is None else width
    if None in (height, width):
        raise ValueError(
            "Expected the height and width of images, which this embedder was "
            f"not published with. Received: height={height}, width={width}. "
            "Give both, in pixels."
        )
    return height, width


def preprocessing_of(embedder: keras.Model) -> Preprocessing | None:
    """Returns the preprocessing layer of an embedder; None: it has none."""
    for layer in embedder.layers:
        if isinstance(layer, Preprocessing):
            return layer
    return None


def step(embedder: keras.Model) -> int:
    """Returns what sides are multiples of: 1, a patch, 0 for only one size."""
    if None not in embedder.input_shape[1:3]:
        return 0
    inner = [embedder] + [
        layer for layer in embedder.layers if isinstance(layer, keras.Model)
    ]
    kinds = {type(layer) for model in inner for layer in model.layers}
    fits = kinds & {ResizeToPatches, CropToPatches}
    return PATCH if TokenEmbedding in kinds and not fits else 1
