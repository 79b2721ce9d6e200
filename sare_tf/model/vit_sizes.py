"""Images whose sides are no multiples of a vision transformer's patch.

Axis letters: B images, H W pixels, h w patches of 14 pixels, C channels.
"""

import keras
import numpy as np
from keras import layers, ops

from sare_tf.model.position_grid import antialiased_matrix
from sare_tf.model.vit_architectures import PATCH


def check_size(shape) -> None:
    """Refuses a known size that patches do not fill."""
    sides = dict(zip(("height", "width"), shape[1:3], strict=True))
    known = {k: side for k, side in sides.items() if isinstance(side, int)}
    if any(side % PATCH or not side for side in known.values()):
        received = ", ".join(f"{k}={side}" for k, side in known.items())
        flags = " ".join(
            f"--image_{k}={_nearest(side)}" for k, side in known.items()
        )
        raise ValueError(
            f"Expected images whose height and width are multiples of {PATCH}, "
            f"the patch of this network. Received: {received}. Give {flags}, "
            "or build it with other_sizes='resize'."
        )


def _nearest(side: int) -> int:
    # Halves to even, as Python and PyTorch's users of these networks round.
    return max(round(side / PATCH), 1) * PATCH


@keras.saving.register_keras_serializable(package="sare_tf")
class ResizeToPatches(layers.Layer):
    """Resizes images so that both sides are the nearest multiples of 14.

    Bilinear with antialiasing, as the evaluations of MegaLoc and of
    github.com/gmberton/VPR-methods-evaluation do it.

    Call arguments:
        images: of any range.

    Input shape:
        [B, H, W, C].

    Output shape:
        [B, 14 h, 14 w, C].
    """

    def call(self, images):
        # By matrices: `ops.image.resize` does not take unknown sizes.
        rows, columns = (
            _resizing_matrix(side) for side in ops.shape(images)[1:3]
        )
        images = ops.einsum("hi,bijc->bhjc", rows, images)
        return ops.einsum("wj,bhjc->bhwc", columns, images)

    def compute_output_spec(self, images):
        batch, *sides, channels = images.shape
        sides = [side and _nearest(side) for side in sides]
        return keras.KerasTensor((batch, *sides, channels), dtype=images.dtype)


def _resizing_matrix(side):
    if isinstance(side, int):
        matrix = antialiased_matrix(_nearest(side), side, bilinear=True)
        return np.float32(matrix)
    patches = ops.round(ops.cast(side, "float32") / PATCH)
    size = ops.cast(ops.maximum(patches, 1.0), "int32") * PATCH
    matrix = antialiased_matrix(size, side, math=ops, bilinear=True)
    return ops.cast(matrix, "float32")


@keras.saving.register_keras_serializable(package="sare_tf")
class CropToPatches(layers.Layer):
    """Crops the middle of images, so that both sides are multiples of 14.

    An odd number of pixels is split as torchvision's CenterCrop does it, which
    AnyLoc uses. Images of less than 14 pixels are refused.

    Call arguments:
        images: of any range.

    Input shape:
        [B, H, W, C].

    Output shape:
        [B, 14 h, 14 w, C].
    """

    def call(self, images):
        self._check(images.shape)
        for axis in (1, 2):
            side = ops.shape(images)[axis]
            size = side // PATCH * PATCH
            first = _half(side - size)
            images = ops.take(images, first + ops.arange(size), axis=axis)
        return images

    def _check(self, shape):
        sides = [side for side in shape[1:3] if isinstance(side, int)]
        if any(side < PATCH for side in sides):
            raise ValueError(
                f"Expected images of at least {PATCH} x {PATCH} pixels, one "
                f"patch. Received: {tuple(shape[1:3])}. Give larger "
                "--image_height and --image_width."
            )

    def compute_output_spec(self, images):
        self._check(images.shape)
        batch, *sides, channels = images.shape
        sides = [side and side // PATCH * PATCH for side in sides]
        return keras.KerasTensor((batch, *sides, channels), dtype=images.dtype)


def _half(count):
    """Half of a number of pixels; halves are rounded to even."""
    if isinstance(count, int):
        return round(count / 2)
    return ops.cast(ops.round(ops.cast(count, "float32") / 2), "int32")
