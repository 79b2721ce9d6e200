"""BoQ: learned queries that attend to the locations of an image.

Axis letters: B images, H W positions, L = H * W locations, C channels, D
length of a location after its projection, Q queries of a block, R rows.

Source: Ali-bey, Chaib-draa, Giguere, "BoQ: A Place is Worth a Bag of Learnable
Queries", CVPR 2024; github.com/amaralibey/Bag-of-Queries, src/boq.py.
"""

import keras
from keras import ops

from sare_tf.model.aggregation import unit_length
from sare_tf.model.heads.head import (
    Head,
    attention,
    attention_shapes,
    dense,
    dense_shapes,
    locations,
    norm,
    norm_shapes,
)


def boq(features, weights, *, num_blocks):
    """BoQ descriptors.

    Args:
        features: [B, H, W, C].
        weights: by name, see `BoQ.weight_shapes`.
        num_blocks: of an encoder and queries.

    Returns:
        Rows of unit length, float32 [B, D * R], element d * R + r.
    """
    kernel = ops.convert_to_tensor(weights["projection_kernel"])
    x = ops.conv(ops.cast(features, "float32"), kernel, padding="same")
    x = norm(locations(x + weights["projection_bias"]), weights, "input")
    answers = []
    for block in range(num_blocks):
        x, answer = _block(x, weights, f"block{block}")
        answers.append(answer)
    answers = ops.concatenate(answers, axis=1)  # [B, blocks * Q, D]
    rows = dense(ops.transpose(answers, (0, 2, 1)), weights, "rows")
    batch, length, count = ops.shape(rows)  # [B, D, R]
    return unit_length(ops.reshape(rows, (batch, length * count)), clamped=True)


def _block(x, weights, name):
    """Encoded locations, [B, L, D], and what the queries read of them."""
    mixed = attention(x, x, x, weights, f"{name}_encoder")
    x = norm(x + mixed, weights, f"{name}_encoder_first")
    hidden = ops.relu(dense(x, weights, f"{name}_encoder_hidden"))
    hidden = dense(hidden, weights, f"{name}_encoder_last")
    x = norm(x + hidden, weights, f"{name}_encoder_second")
    # The same for all images.
    queries = ops.convert_to_tensor(weights[f"{name}_queries"])[None]
    mixed = attention(queries, queries, queries, weights, f"{name}_self")
    queries = norm(queries + mixed, weights, f"{name}_query")
    _, count, length = ops.shape(queries)
    queries = ops.broadcast_to(queries, (ops.shape(x)[0], count, length))
    answers = attention(queries, x, x, weights, f"{name}_cross")
    return x, norm(answers, weights, f"{name}_answer")


@keras.saving.register_keras_serializable(package="sare_tf")
class BoQ(Head):
    """Aggregates locations by learned queries.

    Source: Ali-bey et al., CVPR 2024 (see the module). On DINOv2, it takes the
    tokens before the last normalisation: `cut_layer="block11_patches"` for
    ViT-B. With ResNet50 up to conv4_x, its `length` is 512.

    Args:
        length: D, a multiple of 64, the length of a head.
        num_queries: Q.
        num_blocks: of an encoder and queries.
        rows: R.

    Call arguments:
        features: feature maps.

    Input shape:
        [B, H, W, C]; B, H and W may be unknown.

    Output shape:
        [B, D * R], float32 under every dtype policy.
    """

    def __init__(
        self, length=384, num_queries=64, num_blocks=2, rows=32, **kwargs
    ):
        super().__init__(**kwargs)
        if length < 64 or length % 64:
            raise ValueError(
                "Expected a multiple of 64, which a head of attention has. "
                f"Received: length={length}."
            )
        self.length = length
        self.num_queries = num_queries
        self.num_blocks = num_blocks
        self.rows = rows

    def weight_shapes(self, input_shape):
        length = self.length
        shapes = {
            "projection_kernel": (3, 3, input_shape[-1], length),
            "projection_bias": (length,),
            **norm_shapes("input", length),
        }
        for block in range(self.num_blocks):
            name = f"block{block}"
            shapes |= attention_shapes(f"{name}_encoder", length)
            shapes |= norm_shapes(f"{name}_encoder_first", length)
            shapes |= dense_shapes(f"{name}_encoder_hidden", length, 4 * length)
            shapes |= dense_shapes(f"{name}_encoder_last", 4 * length, length)
            shapes |= norm_shapes(f"{name}_encoder_second", length)
            shapes[f"{name}_queries"] = (self.num_queries, length)
            shapes |= attention_shapes(f"{name}_self", length)
            shapes |= norm_shapes(f"{name}_query", length)
            shapes |= attention_shapes(f"{name}_cross", length)
            shapes |= norm_shapes(f"{name}_answer", length)
        return shapes | dense_shapes(
            "rows", self.num_blocks * self.num_queries, self.rows
        )

    def initialisers(self):
        return {
            f"block{block}_queries": keras.initializers.RandomNormal(stddev=1.0)
            for block in range(self.num_blocks)
        }

    def call(self, features):
        return boq(features, self.tensors, num_blocks=self.num_blocks)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.length * self.rows)

    def get_config(self):
        return {
            **super().get_config(),
            "length": self.length,
            "num_queries": self.num_queries,
            "num_blocks": self.num_blocks,
            "rows": self.rows,
        }
