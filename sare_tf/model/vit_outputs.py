"""What is taken from the tokens of a vision transformer: maps, class token.

Axis letters as in `vit_layers`.
"""

import keras
from keras import layers, ops

from sare_tf.model.vit_architectures import PATCH


@keras.saving.register_keras_serializable(package="sare_tf")
class PatchMap(layers.Layer):
    """Tokens of the patches as a feature map.

    Args:
        num_prefix: number of tokens before the patches.
        part: which of the equal slices of the channels.
        num_parts: number of the slices.
        num_leading: number of first tokens that stand for the whole image.

    Call arguments:
        tokens: of all kinds.
        images: what they are tokens of; only H and W are read from them.

    Input shape:
        [B, N, C] and [B, H, W, 3].

    Output shape:
        [B, h, w, C / num_parts].
    """

    # Numbers of the arguments of which the call reads only the shape.
    ONLY_SHAPES_OF = (1,)

    def __init__(
        self, num_prefix, part=0, num_parts=1, num_leading=1, **kwargs
    ):
        super().__init__(**kwargs)
        self.num_leading = num_leading
        self.num_prefix = num_prefix
        self.part = part
        self.num_parts = num_parts

    def call(self, tokens, images):
        batch, height, width = ops.shape(images)[:3]
        length = tokens.shape[-1] // self.num_parts
        start = self.part * length
        patches = tokens[:, self.num_prefix :, start : start + length]
        return ops.reshape(
            patches, (batch, height // PATCH, width // PATCH, length)
        )

    def compute_output_spec(self, tokens, images):
        batch, *sides = images.shape[:3]
        sides = [side and side // PATCH for side in sides]
        length = tokens.shape[-1] // self.num_parts
        return keras.KerasTensor(
            (batch, *sides, length), dtype=self.compute_dtype
        )

    def get_config(self):
        return {
            **super().get_config(),
            "num_prefix": self.num_prefix,
            "part": self.part,
            "num_parts": self.num_parts,
            "num_leading": self.num_leading,
        }


@keras.saving.register_keras_serializable(package="sare_tf")
class ClassToken(layers.Layer):
    """The first token of each image, or the first ones one after the other.

    Args:
        part: which of the equal slices of the channels.
        num_parts: number of the slices.
        count: number of tokens.

    Call arguments:
        tokens: of all kinds.

    Input shape:
        [B, N, C].

    Output shape:
        [B, count * C / num_parts].
    """

    def __init__(self, part=0, num_parts=1, count=1, **kwargs):
        super().__init__(**kwargs)
        self.count = count
        self.part = part
        self.num_parts = num_parts

    def call(self, tokens):
        length = tokens.shape[-1] // self.num_parts
        start = self.part * length
        first = tokens[:, : self.count, start : start + length]
        return ops.reshape(first, (ops.shape(tokens)[0], self.count * length))

    def compute_output_shape(self, input_shape):
        length = input_shape[2] // self.num_parts
        return (input_shape[0], self.count * length)

    def get_config(self):
        return {
            **super().get_config(),
            "part": self.part,
            "num_parts": self.num_parts,
            "count": self.count,
        }
