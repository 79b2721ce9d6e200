"""What all aggregations share: feature maps in, rows of unit length out."""

import keras
from keras import ops

# In every normalisation: x / sqrt(sum x^2 + 1e-12), as MatConvNet's normalize
# layer has it.
EPSILON = 1e-12


def unit_length(x):
    """Rows of unit length; rows of 0 stay 0.

    Args:
        x: float32, any rank; rows lie along its last axis.

    Returns:
        float32, the shape of `x`.
    """
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.rsqrt(squares + EPSILON)


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
