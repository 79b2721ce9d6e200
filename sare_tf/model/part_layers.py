"""Layers that put parts of a graph together; no saved network has them."""

import math

import keras
from keras import ops

from sare_tf.model import drop_path


def check_repeatable(part: keras.Model, flag: str) -> None:
    """Refuses layers that give other outputs when they are called again.

    Args:
        part: layers that are called twice, or once for all steps.
        flag: the flag that needs it, for the message.

    Raises:
        ValueError: names the layer.
    """
    for layer in part._flatten_layers():
        # Dropout of a rate of 0 keeps its generator.
        if hasattr(layer, "seed_generator") and getattr(layer, "rate", 1):
            raise ValueError(
                f"Expected layers that do not depend on chance, for {flag}. "
                f"Received: the layer {layer.name!r}, a "
                f"{type(layer).__name__}. Leave {flag} out."
            )


class Recomputed(keras.layers.Layer):
    """Computes a block again for its gradients, instead of keeping it.

    The random numbers of stochastic depth, which do not come as tensors of the
    call, are the same both times.

    Args:
        block: the layers, a model of a list of tensors.

    Call arguments:
        tensors: list of the block's inputs.
    """

    def __init__(self, block, **kwargs):
        super().__init__(dtype="float32", autocast=False, **kwargs)
        self.block = block
        self.built = True

    def call(self, tensors, training=None):
        draws = drop_path.current()

        def compute(*tensors):
            with drop_path.given(draws):
                outputs = self.block(list(tensors), training=training)
            return keras.tree.flatten(outputs)[0]

        if not training:
            return compute(*tensors)
        return keras.remat(compute)(*tensors)

    def compute_output_spec(self, tensors, training=None):
        outputs = self.block.compute_output_spec(list(tensors))
        return keras.tree.flatten(outputs)[0]


class Concatenated(keras.layers.Layer):
    """Tensors of images, [B, ...] each, as one vector per image, [B, F]."""

    def call(self, tensors):
        flat = [
            ops.reshape(each, (ops.shape(each)[0], math.prod(each.shape[1:])))
            for each in tensors
        ]
        return flat[0] if len(flat) == 1 else ops.concatenate(flat, axis=1)

    def compute_output_spec(self, tensors):
        length = sum(math.prod(each.shape[1:]) for each in tensors)
        return keras.KerasTensor((None, length), dtype=self.compute_dtype)


class Separated(keras.layers.Layer):
    """The reverse of `Concatenated`.

    Args:
        shapes: shapes of the tensors of an image.

    Call arguments:
        features: [B, F].

    Output shape:
        List of [B, ...].
    """

    def __init__(self, shapes, **kwargs):
        super().__init__(**kwargs)
        self.shapes = tuple(shapes)

    def call(self, features):
        tensors, start = [], 0
        for shape in self.shapes:
            end = start + math.prod(shape)
            tensors.append(ops.reshape(features[:, start:end], (-1, *shape)))
            start = end
        return tensors

    def compute_output_spec(self, features):
        return [
            keras.KerasTensor((None, *shape), dtype=self.compute_dtype)
            for shape in self.shapes
        ]


class BlankImages(keras.layers.Layer):
    """Images of a size, for layers that read nothing else of them.

    Args:
        size: height and width.

    Call arguments:
        features: [B, F].

    Output shape:
        [B, height, width, 3].
    """

    def __init__(self, size, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.size = tuple(size)

    def call(self, features):
        return ops.zeros((ops.shape(features)[0], *self.size, 3))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.size, 3)
