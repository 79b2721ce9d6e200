"""Position embeddings for other sizes than those they were trained for.

A grid of embeddings [S, S, D] becomes [h, w, D] by one matrix per axis: the
bicubic interpolation of PyTorch, in the two forms that DINOv2 has. Other
interpolations, also those of the same name, give other features.

Source: github.com/facebookresearch/dinov2, models/vision_transformer.py,
interpolate_pos_encoding; aten/src/ATen/native/UpSample.h and
UpSampleKernel.cpp of PyTorch.
"""

import numpy as np
from keras import ops

# Added to the target size of networks without registers, so that rounding
# never loses a row: interpolate_offset. It shifts all samples.
_OFFSET = 0.1
# Of the weights until they are made: the fourth digit of a position counts.
_PRECISION = "float64"


def interpolate(grid, height, width, *, antialias):
    """Interpolates a grid of embeddings.

    Args:
        grid: float32 [S, S, D].
        height: h, an int; or a tensor, where it is unknown.
        width: w, as `height`.
        antialias: as networks with registers have it.

    Returns:
        float32 [h, w, D].
    """
    side, _, length = grid.shape
    rows, columns = matrices(height, width, side, antialias=antialias)
    flat = ops.reshape(grid, (side, side * length))
    rows_done = ops.reshape(
        ops.matmul(rows, flat), (height, side, length)
    )  # [h, S, D]
    return ops.matmul(columns, rows_done)


def matrices(height, width, side, *, antialias):
    """The weights of both axes.

    Args:
        height: h, an int; or a tensor, where it is unknown.
        width: w, as `height`.
        side: S.
        antialias: as networks with registers have it.

    Returns:
        float32 [h, S] and [w, S]: numpy where the sizes are known, so that a
        graph holds them as constants.
    """
    make = antialiased_matrix if antialias else plain_matrix
    if isinstance(height, int) and isinstance(width, int):
        if height == width == side:
            rows = columns = np.eye(side)
        else:
            rows, columns = (make(size, side) for size in (height, width))
        return np.float32(rows), np.float32(columns)
    native = ops.logical_and(
        ops.equal(height, side), ops.equal(width, side)
    )  # the original then leaves the grid as it is
    result = []
    for size in (height, width):
        same = ops.equal(ops.arange(size)[:, None], ops.arange(side)[None, :])
        resized = ops.cast(make(size, side, math=ops), "float32")
        result.append(ops.where(native, ops.cast(same, "float32"), resized))
    return tuple(result)


def plain_matrix(size, side, *, math=np):
    """Weights of one axis, as of networks without registers.

    Four taps, at the border the nearest one; their sum is 1 up to rounding.

    Args:
        size: of the target.
        side: of the source.
        math: numpy; or keras.ops, where `size` is a tensor.

    Returns:
        [size, side].
    """
    source = _centres(size, side, math=math, offset=_OFFSET) - 0.5
    first = math.floor(source)
    t = (source - first)[:, None]
    steps = math.array([-1.0, 0.0, 1.0, 2.0], dtype=_PRECISION)[None, :]
    weights = _cubic(t - steps, -0.75, math=math)  # [size, 4]
    taps = math.clip(first[:, None] + steps, 0, side - 1)
    positions = math.arange(side, dtype=_PRECISION)
    hits = math.equal(taps[..., None], positions)  # [size, 4, side]
    return math.sum(math.where(hits, weights[..., None], 0.0), axis=1)


def antialiased_matrix(size, side, *, math=np, bilinear=False):
    """Weights of one axis, as of networks with registers.

    PyTorch's interpolation with antialias=True, also that of images.

    Args:
        size: of the target.
        side: of the source.
        math: numpy; or keras.ops, where sizes are tensors.
        bilinear: instead of bicubic.

    Returns:
        [size, side], whose rows have the sum 1.
    """
    stretch = math.array(side, dtype=_PRECISION)
    stretch = math.maximum(stretch / math.array(size, dtype=_PRECISION), 1.0)
    centres = _centres(size, side, math=math)[:, None]
    reach = (1.0 if bilinear else 2.0) * stretch
    positions = math.arange(side, dtype=_PRECISION)[None, :]
    inside = math.logical_and(
        positions >= math.floor(centres - reach + 0.5),
        positions < math.floor(centres + reach + 0.5),
    )
    x = (positions - centres + 0.5) / stretch
    if bilinear:
        weights = math.maximum(1.0 - math.abs(x), 0.0)
    else:
        weights = _cubic(x, -0.5, math=math)
    weights = math.where(inside, weights, 0.0)
    return weights / math.sum(weights, axis=1, keepdims=True)


def _centres(size, side, *, math, offset=0.0):
    """Where the middle of each target lies in the source."""
    targets = math.arange(size, dtype=_PRECISION)
    scale = math.array(side, dtype=_PRECISION)
    scale = scale / (math.array(size, dtype=_PRECISION) + offset)
    return (targets + 0.5) * scale


def _cubic(x, a, *, math):
    """Keys's kernel with coefficient `a`."""
    x = math.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    return math.where(x <= 1.0, near, math.where(x < 2.0, far, 0.0))
