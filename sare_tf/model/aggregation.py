"""What all aggregations share: feature maps in, rows of unit length out."""

import keras
from keras import ops

# In every normalisation: x / sqrt(sum x^2 + 1e-12), as MatConvNet's normalize
# layer has it; or, clamped, x / max(sqrt(sum x^2), 1e-12), as PyTorch's.
EPSILON = 1e-12


def unit_length(x, *, clamped=False):
    """Rows of unit length; rows of 0 stay 0.

    Args:
        x: float32, any rank; rows lie along its last axis.
        clamped: lengthen short rows, too, as PyTorch's `normalize` does. Else
            a row much shorter than 1e-6 stays short, as in MatConvNet.

    Returns:
        float32, the shape of `x`.
    """
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.rsqrt(bounded(squares, clamped=clamped))


def bounded(squares, *, clamped=False):
    """Squared lengths that can be divided by; see `unit_length`."""
    if clamped:
        return ops.maximum(squares, EPSILON**2)
    return squares + EPSILON


class Aggregation(keras.layers.Layer):
    """[B, H, W, C] -> [B, D], float32 under every dtype policy.

    B, H and W may be unknown. Layers whose D is not C say so in
    `compute_output_shape`.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def compute_output_spec(self, features):
        shape = self.compute_output_shape(features.shape)
        return keras.KerasTensor(shape, dtype="float32")
