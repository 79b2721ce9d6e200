"""Layers as TensorFlow computes them fastest.

Each computes the same as the layer that it holds, whose weights it shares, in
the forms that TensorFlow's graph optimiser (Grappler, remapper) fuses into one
operation with oneDNN: products of matrices with BiasAdd and GELU, convolutions
with BiasAdd and ReLU. They are for graphs that are exported, and have no
configuration.
"""

import keras
import tensorflow as tf
from keras import layers


class _Holding(layers.Layer):
    """Computes what another layer computes.

    Args:
        layer: the layer.
    """

    def __init__(self, layer):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.layer = layer
        self.built = True

    @classmethod
    def takes(cls, layer) -> bool:
        """Whether the form computes what this layer does."""
        return getattr(layer, "quantization_mode", None) is None

    def compute_output_spec(self, *inputs):
        return self.layer.compute_output_spec(*inputs)


class FusedDense(_Holding):
    """A dense layer over the last axis."""

    def call(self, x):
        layer = self.layer
        kernel = tf.convert_to_tensor(layer.kernel)
        y = tf.matmul(tf.reshape(x, (-1, kernel.shape[0])), kernel)
        if layer.bias is not None:
            y = tf.nn.bias_add(y, tf.convert_to_tensor(layer.bias))
        y = activated(y, layer.activation)
        return tf.reshape(y, (*_shape(x)[:-1], kernel.shape[1]))


class FusedConv2D(_Holding):
    """A convolution."""

    @classmethod
    def takes(cls, layer) -> bool:
        return (
            super().takes(layer)
            and layer.data_format == "channels_last"
            and layer.groups == 1
        )

    def call(self, x):
        layer = self.layer
        y = tf.nn.conv2d(
            x,
            tf.convert_to_tensor(layer.kernel),
            strides=layer.strides,
            padding=layer.padding.upper(),
            dilations=layer.dilation_rate,
        )
        if layer.bias is not None:
            y = tf.nn.bias_add(y, tf.convert_to_tensor(layer.bias))
        return activated(y, layer.activation)


class FusedDepthwiseConv2D(_Holding):
    """A depthwise convolution."""

    @classmethod
    def takes(cls, layer) -> bool:
        return (
            super().takes(layer)
            and layer.data_format == "channels_last"
            # What TensorFlow has no kernel for.
            and len(set(layer.strides)) == 1
            and set(layer.dilation_rate) == {1}
        )

    def call(self, x):
        layer = self.layer
        y = tf.nn.depthwise_conv2d(
            x,
            tf.convert_to_tensor(layer.kernel),
            strides=(1, *layer.strides, 1),
            padding=layer.padding.upper(),
        )
        if layer.bias is not None:
            y = tf.nn.bias_add(y, tf.convert_to_tensor(layer.bias))
        return activated(y, layer.activation)


class FusedSelfAttention(_Holding):
    """Softmax attention between all tokens of an image."""

    def call(self, qkv):
        heads = self.layer.num_heads
        batch, count, _ = _shape(qkv)
        head = qkv.shape[-1] // (3 * heads)
        qkv = tf.reshape(qkv, (batch, count, 3, heads, head))
        query, key, value = tf.unstack(tf.transpose(qkv, (2, 0, 3, 1, 4)))
        scale = tf.constant(head**-0.5, query.dtype)
        logits = tf.matmul(query * scale, key, transpose_b=True)
        mixed = tf.matmul(tf.nn.softmax(logits), value)
        mixed = tf.transpose(mixed, (0, 2, 1, 3))
        return tf.reshape(mixed, (batch, count, heads * head))


def activated(x, activation):
    """Applies an activation of Keras, in the form that is fused."""
    if activation in (None, keras.activations.linear):
        return x
    if activation is keras.activations.gelu:
        return tf.nn.gelu(x, approximate=False)
    return activation(x)


def _shape(x):
    dynamic = tf.shape(x)
    return [
        dynamic[axis] if size is None else size
        for axis, size in enumerate(x.shape)
    ]
