"""What the heads share: weights by name, and the layers of transformers.

Axis letters: B images, L locations or tokens, C channels, Q queries. Weights
are a mapping from names to float32 tensors; a dense layer `x` is `x_kernel`,
[inputs, outputs], and `x_bias`, a normalisation `x_scale` and `x_bias`.
"""

from collections.abc import Mapping

import keras
from keras import ops

from sare_tf.model.aggregation import Aggregation

# Layer normalisation of PyTorch.
_EPSILON = 1e-5


class Head(Aggregation):
    """An aggregation with more weights than one or two.

    Subclasses say the shapes of their weights by `weight_shapes`; `tensors`
    holds the weights by the same names. An initialiser follows from the end of
    a name: of `_kernel`, `_bias`, `_scale`; others are given by `initialisers`.
    """

    def weight_shapes(self, input_shape) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights by name, for [B, H, W, C]."""
        raise NotImplementedError

    def initialisers(self) -> dict[str, keras.Initializer]:
        """Initialisers of weights, by name."""
        return {}

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                "Expected feature maps, [B, H, W, C], with known C. "
                f"Received: input_shape={tuple(input_shape)}."
            )
        axes = {-1: channels}
        self.input_spec = keras.layers.InputSpec(ndim=4, axes=axes)
        given = self.initialisers()
        usual = {"kernel": "glorot_uniform", "bias": "zeros", "scale": "ones"}
        self.tensors = {
            name: self.add_weight(
                shape=shape,
                initializer=given.get(name) or usual[name.split("_")[-1]],
                autocast=False,
                name=name,
            )
            for name, shape in self.weight_shapes(input_shape).items()
        }


def dense_shapes(name: str, inputs: int, outputs: int) -> dict[str, tuple]:
    """Shapes of the weights of a dense layer."""
    return {f"{name}_kernel": (inputs, outputs), f"{name}_bias": (outputs,)}


def norm_shapes(name: str, length: int) -> dict[str, tuple]:
    """Shapes of the weights of a layer normalisation."""
    return {f"{name}_scale": (length,), f"{name}_bias": (length,)}


def locations(features):
    """Feature maps as rows: [B, H, W, C] -> float32 [B, H * W, C]."""
    batch, height, width, channels = ops.shape(features)
    features = ops.reshape(features, (batch, height * width, channels))
    return ops.cast(features, "float32")


def dense(x, weights: Mapping, name: str):
    """A dense layer over the last axis."""
    kernel = ops.convert_to_tensor(weights[f"{name}_kernel"])
    return ops.matmul(x, kernel) + weights[f"{name}_bias"]


def norm(x, weights: Mapping, name: str):
    """Layer normalisation over the last axis."""
    mean = ops.mean(x, axis=-1, keepdims=True)
    centred = x - mean
    variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
    x = centred * ops.rsqrt(variance + _EPSILON)
    return x * weights[f"{name}_scale"] + weights[f"{name}_bias"]


def attention(query, key, value, weights: Mapping, name: str):
    """Attention of heads of 64 channels, as torch.nn.MultiheadAttention.

    Args:
        query: [B, Q, C].
        key: [B, L, C].
        value: [B, L, C].
        weights: with the dense layers `name`_query, _key, _value and _out.
        name: of the layer.

    Returns:
        [B, Q, C].
    """
    heads = []
    for x, part in ((query, "query"), (key, "key"), (value, "value")):
        x = dense(x, weights, f"{name}_{part}")
        batch, count, length = ops.shape(x)
        heads.append(ops.reshape(x, (batch, count, length // 64, 64)))
    batch, count, number, _ = ops.shape(heads[0])
    mixed = ops.dot_product_attention(*heads)
    mixed = ops.reshape(mixed, (batch, count, number * 64))
    return dense(mixed, weights, f"{name}_out")


def attention_shapes(name: str, length: int) -> dict[str, tuple]:
    """Shapes of the weights of `attention`."""
    shapes = {}
    for part in ("query", "key", "value", "out"):
        shapes |= dense_shapes(f"{name}_{part}", length, length)
    return shapes
