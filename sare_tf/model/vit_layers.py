"""The layers of DINOv2's vision transformers.

Axis letters: B images, H W pixels, h w patches of 14 pixels, R registers, N =
1 + R + h * w tokens in the order class token, registers, patches row by row,
D length of a token.

Source: github.com/facebookresearch/dinov2, models/vision_transformer.py and
layers/.
"""

import keras
from keras import layers, ops

from sare_tf.model import drop_path
from sare_tf.model.position_grid import interpolate
from sare_tf.model.vit_architectures import GRID, PATCH
from sare_tf.model.vit_sizes import check_size

# models/vision_transformer.py, init_weights.
DEVIATION = 0.02


@keras.saving.register_keras_serializable(package="sare_tf")
class TokenEmbedding(layers.Layer):
    """Images to tokens: patches with their positions, behind a class token.

    Args:
        dimension: D.
        num_registers: R; registers have no position.
        antialias: how positions are interpolated for other sizes than 518
            pixels; see `position_grid`.

    Call arguments:
        images: preprocessed.

    Input shape:
        [B, H, W, 3]. Known sizes that are no multiples of 14 are refused with
        what to give; where they are unknown, the graph fails on them.

    Output shape:
        [B, N, D].
    """

    def __init__(self, dimension, num_registers=0, antialias=False, **kwargs):
        super().__init__(**kwargs)
        self.dimension = dimension
        self.num_registers = num_registers
        self.antialias = antialias
        self.input_spec = layers.InputSpec(ndim=4, axes={-1: 3})

    def build(self, input_shape):
        near_zero = keras.initializers.RandomNormal(stddev=1e-6)
        small = keras.initializers.TruncatedNormal(stddev=DEVIATION)
        self.kernel = self.add_weight(
            shape=(PATCH, PATCH, 3, self.dimension),
            initializer=small,
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(self.dimension,), initializer="zeros", name="bias"
        )
        self.class_token = self.add_weight(
            shape=(self.dimension,), initializer=near_zero, name="class_token"
        )
        # Of the class token, and of patches row by row.
        self.positions = self.add_weight(
            shape=(1 + GRID**2, self.dimension),
            initializer=small,
            autocast=False,
            name="positions",
        )
        self.registers = None
        if self.num_registers:
            self.registers = self.add_weight(
                shape=(self.num_registers, self.dimension),
                initializer=near_zero,
                name="registers",
            )

    def call(self, images):
        shape = ops.shape(images)
        check_size(shape)
        batch, rows, columns = shape[0], shape[1] // PATCH, shape[2] // PATCH
        # A product of matrices, which is what a convolution of this stride is.
        patches = ops.reshape(
            images, (batch, rows, PATCH, columns, PATCH * 3)
        )  # fails here for a size that is no multiple
        patches = ops.transpose(patches, (0, 1, 3, 2, 4))
        patches = ops.reshape(
            patches, (batch, rows * columns, PATCH * PATCH * 3)
        )
        kernel = ops.reshape(self.kernel, (-1, self.dimension))
        grid = ops.reshape(self.positions[1:], (GRID, GRID, self.dimension))
        positions = ops.reshape(
            interpolate(grid, rows, columns, antialias=self.antialias),
            (rows * columns, self.dimension),
        )
        positions = ops.cast(positions, self.compute_dtype) + self.bias
        patches = ops.matmul(patches, kernel) + positions
        first = self.class_token + ops.cast(
            self.positions[0], self.compute_dtype
        )
        prefix = first[None]
        if self.registers is not None:
            prefix = ops.concatenate([prefix, self.registers], axis=0)
        prefix = ops.broadcast_to(
            prefix, (batch, 1 + self.num_registers, self.dimension)
        )
        return ops.concatenate([prefix, patches], axis=1)

    def compute_output_spec(self, images):
        check_size(images.shape)
        batch, height, width, _ = images.shape
        count = None
        if height and width:
            count = 1 + self.num_registers
            count += (height // PATCH) * (width // PATCH)
        return keras.KerasTensor(
            (batch, count, self.dimension), dtype=self.compute_dtype
        )

    def get_config(self):
        return {
            **super().get_config(),
            "dimension": self.dimension,
            "num_registers": self.num_registers,
            "antialias": self.antialias,
        }


@keras.saving.register_keras_serializable(package="sare_tf")
class SelfAttention(layers.Layer):
    """Softmax attention between all tokens of an image.

    Flash attention where the backend and the device have it, so that no
    weights of tokens times tokens are kept.

    Args:
        num_heads: each takes a slice of D.

    Call arguments:
        qkv: queries, keys and values one after the other.

    Input shape:
        [B, N, 3 * D].

    Output shape:
        [B, N, D].
    """

    def __init__(self, num_heads, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def call(self, qkv):
        batch, count, length = ops.shape(qkv)
        head = length // (3 * self.num_heads)
        qkv = ops.reshape(qkv, (batch, count, 3, self.num_heads, head))
        if keras.backend.backend() == "tensorflow":
            mixed = _attend(*ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4))))
        else:
            query, key, value = (qkv[:, :, part] for part in range(3))
            mixed = ops.dot_product_attention(query, key, value)
        return ops.reshape(mixed, (batch, count, self.num_heads * head))

    def compute_output_spec(self, qkv):
        return keras.KerasTensor(
            (*qkv.shape[:2], qkv.shape[2] // 3), dtype=self.compute_dtype
        )

    def get_config(self):
        return {**super().get_config(), "num_heads": self.num_heads}


@keras.saving.register_keras_serializable(package="sare_tf")
class SwiGLU(layers.Layer):
    """The first half of the channels as SiLU gate of the second half.

    Call arguments:
        x: both halves.

    Input shape:
        [B, N, 2 * M].

    Output shape:
        [B, N, M].
    """

    def call(self, x):
        gate, value = ops.split(x, 2, axis=-1)
        return ops.silu(gate) * value

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] // 2)


@keras.saving.register_keras_serializable(package="sare_tf")
class ScaledResidual(layers.Layer):
    """Adds a branch to the tokens, times a trained factor per channel.

    Layer scale and stochastic depth: in training, the branch is left out of
    some images, and larger in the others by as much. The random numbers come
    with the batch, see `drop_path`.

    Args:
        drop_rate: share of the images for which it is left out.
        column: which number of an image the layer takes.

    Call arguments:
        tokens: what the branch is added to.
        branch: the branch.

    Input shape:
        [B, N, D] and [B, N, D].

    Output shape:
        [B, N, D].
    """

    def __init__(self, drop_rate=0.0, column=0, **kwargs):
        super().__init__(**kwargs)
        self.column = column
        self.set_drop_rate(drop_rate)

    def set_drop_rate(self, drop_rate):
        """Changes the share of the images."""
        if not 0 <= drop_rate < 1:
            raise ValueError(
                "Expected a share of images from 0 to below 1. Received: "
                f"drop_rate={drop_rate}."
            )
        self.drop_rate = drop_rate

    def build(self, tokens_shape, branch_shape):
        self.scale = self.add_weight(
            shape=(tokens_shape[-1],), initializer="ones", name="scale"
        )

    def call(self, tokens, branch, training=False):
        branch = branch * self.scale
        if training and self.drop_rate:
            keep = 1.0 - self.drop_rate
            draws = drop_path.drawn(self.column)
            kept = ops.cast(draws < keep, branch.dtype)[:, None, None]
            branch = branch * kept / keep
        return tokens + branch

    def compute_output_shape(self, tokens_shape, branch_shape):
        return tokens_shape

    def get_config(self):
        return {
            **super().get_config(),
            "drop_rate": self.drop_rate,
            "column": self.column,
        }


@keras.saving.register_keras_serializable(package="sare_tf")
class PrependedTokens(layers.Layer):
    """Learned tokens, put before those of every image.

    Source: the aggregation tokens of Lu et al., "Towards Implicit Aggregation:
    Robust Image Representation for Place Recognition in the Transformer Era",
    NeurIPS 2025.

    Args:
        count: number of the learned tokens.

    Call arguments:
        tokens: of all kinds.

    Input shape:
        [B, N, D].

    Output shape:
        [B, count + N, D].
    """

    def __init__(self, count, **kwargs):
        super().__init__(**kwargs)
        self.count = count

    def build(self, input_shape):
        self.learned = self.add_weight(
            shape=(self.count, input_shape[-1]),
            initializer=keras.initializers.TruncatedNormal(stddev=DEVIATION),
            name="learned",
        )

    def call(self, tokens):
        batch, _, length = ops.shape(tokens)
        learned = ops.broadcast_to(self.learned, (batch, self.count, length))
        return ops.concatenate([learned, tokens], axis=1)

    def compute_output_shape(self, input_shape):
        batch, count, length = input_shape
        return (batch, count and count + self.count, length)

    def get_config(self):
        return {**super().get_config(), "count": self.count}


def _attend(query, key, value):
    """Attention as products of matrices; [B, heads, N, head] -> [B, N, ...].

    In TensorFlow, where Keras's attention moves axes for every product, and
    gradients of slices are tensors of the whole size that are mostly zero.
    """
    logits = ops.matmul(
        query * query.shape[-1] ** -0.5, ops.swapaxes(key, 2, 3)
    )
    # In float32, as Keras does it.
    weights = ops.softmax(ops.cast(logits, "float32"))
    mixed = ops.matmul(ops.cast(weights, value.dtype), value)
    return ops.transpose(mixed, (0, 2, 1, 3))
