"""RandAugment in batches: three random operations on each image, of fourteen.

Axis letters: B batch, H W image, R random numbers of an image. Images are RGB,
whole numbers in 0..255, as float32; so are results, which are what Pillow
computes for images of bytes: it cuts off what lies behind the point, but rounds
luma and smoothed images.

An image needs two uniform numbers, 0..1, for each of its operations: one
chooses the operation, one its sign. No operation depends on other images.

- Identity.
- ShearX, ShearY, TranslateX, TranslateY, Rotate: bilinear, black outside.
- Brightness, Color, Contrast, Sharpness: away from, or towards, a black image,
  the image without colours, its mean grey, or the smoothed image.
- Posterize, Solarize, AutoContrast, Equalize: a table of values for each
  channel.

Sources: Cubuk, Zoph, Shlens, Le, "RandAugment: Practical Automated Data
Augmentation with a Reduced Search Space", NeurIPS 2020. Operations and
magnitudes are those of torchvision/transforms/autoaugment.py, `RandAugment`,
on Pillow's images; three operations of magnitude 9, interpolated bilinearly, as
networks on GSV-Cities are trained (SALAD, main.py).
"""

import math

from keras import ops

NUM_OPERATIONS = 3
OPERATIONS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
# Of magnitudes 0..30: torchvision's default, of 31 bins.
_MAGNITUDE = 9 / 30
_SHEAR = 0.3 * _MAGNITUDE
# Of the side of an image.
_TRANSLATION = 150 / 331 * _MAGNITUDE
_ROTATION = math.radians(30.0) * _MAGNITUDE
_BLEND = 0.9 * _MAGNITUDE
_BITS = 8 - round(4 * _MAGNITUDE)
# Values from 178.5 on are inverted.
_SOLARIZE_FROM = math.ceil(255 * (1 - _MAGNITUDE))
# ITU-R BT.601, in 65536ths: Pillow, Convert.c, L24.
_LUMA = (19595.0, 38470.0, 7471.0)
# More than float32 rounds a blended value by, and less than blended values
# differ from the next whole number.
_ROUNDING = 1e-4


def apply(images, draws):
    """Applies `NUM_OPERATIONS` random operations to each image.

    Args:
        images: [B, H, W, 3], 0..255; rounded to whole numbers.
        draws: uniform numbers in 0..1, [B, 2 * NUM_OPERATIONS]: for each
            operation in turn its choice and its sign, negative below a half.

    Returns:
        float32 [B, H, W, 3], whole numbers in 0..255.
    """
    images = ops.round(ops.cast(images, "float32"))
    for operation in range(NUM_OPERATIONS):
        choice, sign = draws[:, 2 * operation], draws[:, 2 * operation + 1]
        chosen = ops.floor(choice * len(OPERATIONS))
        # A draw that was rounded to 1 has the last operation.
        chosen = ops.minimum(chosen, len(OPERATIONS) - 1.0)
        sign = ops.where(sign < 0.5, -1.0, 1.0)

        def is_(name, chosen=chosen):
            return ops.equal(chosen, float(OPERATIONS.index(name)))

        # Each leaves images alone that chose none of its operations.
        images = _move(images, is_, sign)
        images = _blend(images, is_, sign)
        images = _look_up(images, is_)
    return images


def _move(images, is_, sign):
    """Shears, translates and rotates, by the place that a pixel comes from."""
    height, width = (
        ops.cast(size, "float32") for size in ops.shape(images)[1:3]
    )
    ones, zeros = ops.ones_like(sign), ops.zeros_like(sign)
    angle = ops.where(is_("Rotate"), sign * _ROTATION, 0.0)
    cosine, sine = ops.cos(angle), ops.sin(angle)
    # x' = a x + b y + c, y' = d x + e y + f, of the middles of pixels.
    a = e = ops.where(is_("Rotate"), cosine, ones)
    b = ops.where(is_("ShearX"), sign * _SHEAR, -sine)
    d = ops.where(is_("ShearY"), sign * _SHEAR, sine)
    # torchvision cuts translations to whole pixels.
    to_right = sign * ops.floor(width * _TRANSLATION)
    to_below = sign * ops.floor(height * _TRANSLATION)
    x, y = width / 2, height / 2
    c = ops.where(is_("TranslateX"), -to_right, zeros)
    f = ops.where(is_("TranslateY"), -to_below, zeros)
    c = ops.where(is_("Rotate"), x - cosine * x + sine * y, c)
    f = ops.where(is_("Rotate"), y - sine * x - cosine * y, f)
    moved = _sample(images, (a, b, c, d, e, f))
    moves = ops.equal(a, a) & False
    for name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"):
        moves = moves | is_(name)
    return ops.where(moves[:, None, None, None], moved, images)


def _sample(images, matrix):
    """Values at places between pixels, black outside: Pillow, Geometry.c."""
    batch, height, width, channels = ops.shape(images)
    a, b, c, d, e, f = (one[:, None, None] for one in matrix)
    columns = ops.cast(ops.arange(width), "float32")[None, None, :] + 0.5
    rows = ops.cast(ops.arange(height), "float32")[None, :, None] + 0.5
    x = a * columns + b * rows + c  # [B, H, W]
    y = d * columns + e * rows + f
    inside = (x >= 0) & (x < ops.cast(width, "float32"))
    inside = inside & (y >= 0) & (y < ops.cast(height, "float32"))
    left, top = ops.floor(x - 0.5), ops.floor(y - 0.5)
    to_right, to_below = (x - 0.5 - left)[..., None], (y - 0.5 - top)[..., None]
    left, top = ops.cast(left, "int32"), ops.cast(top, "int32")
    first = ops.arange(batch)[:, None, None] * (height * width)
    pixels = ops.reshape(images, (batch * height * width, channels))

    def at(row, column):
        row = ops.clip(row, 0, height - 1)
        column = ops.clip(column, 0, width - 1)
        return ops.take(pixels, first + row * width + column, axis=0)

    def line(row):
        start = at(row, left)
        return start + (at(row, left + 1) - start) * to_right

    above = line(top)
    value = above + (line(top + 1) - above) * to_below
    return ops.where(inside[..., None], _whole(value), 0.0)


def _blend(images, is_, sign):
    """Goes from another image towards an image, or beyond it."""
    luma = ops.sum(images * ops.array(_LUMA), axis=-1, keepdims=True)
    luma = ops.floor((luma + 32768.0) / 65536.0)
    grey = ops.floor(ops.mean(luma, axis=(1, 2, 3), keepdims=True) + 0.5)
    others = {
        "Brightness": 0.0,
        "Color": luma,
        "Contrast": grey,
        "Sharpness": _smooth(images),
    }
    other = images
    for name, values in others.items():
        other = ops.where(is_(name)[:, None, None, None], values, other)
    factor = ops.where(sign < 0, 1.0 - _BLEND, 1.0 + _BLEND)
    factor = factor[:, None, None, None]
    return _whole(ops.clip(other + (images - other) * factor, 0.0, 255.0))


def _whole(values):
    """Cuts off what lies behind the point, on every device the same way."""
    return ops.floor(values + _ROUNDING)


def _smooth(images):
    """The mean of 3 x 3 pixels, the middle five times; edges stay as they are.

    Pillow, ImageFilter.SMOOTH.
    """
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    sums = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    middle = images[:, 1:-1, 1:-1]
    smooth = ops.floor((sums + 4.0 * middle) / 13.0 + 0.5)
    smooth = ops.concatenate(
        [images[:, 1:-1, :1], smooth, images[:, 1:-1, -1:]], axis=2
    )
    return ops.concatenate([images[:, :1], smooth, images[:, -1:]], axis=1)


def _look_up(images, is_):
    """Replaces values by a table for each image and channel."""
    batch, height, width, channels = ops.shape(images)
    values = ops.arange(256)[None, None]  # [1, 1, 256]
    # The number of an image's channel times 256, [B, 1, 1, C].
    first = ops.reshape(
        ops.arange(batch * channels) * 256, (batch, 1, 1, channels)
    )
    index = ops.reshape(first + ops.cast(images, "int32"), (-1,))
    counts = ops.segment_sum(
        ops.ones_like(index), index, num_segments=batch * channels * 256
    )
    counts = ops.reshape(counts, (batch, channels, 256))
    kept = 2 ** (8 - _BITS)
    tables = {
        "Posterize": ops.floor_divide(values, kept) * kept,
        "Solarize": ops.where(values < _SOLARIZE_FROM, values, 255 - values),
        "AutoContrast": _stretched(values, counts),
        "Equalize": _equalised(values, counts),
    }
    table = ops.broadcast_to(values, (batch, channels, 256))
    for name, of_name in tables.items():
        table = ops.where(is_(name)[:, None, None], of_name, table)
    looked_up = ops.take(ops.reshape(table, (-1,)), index, axis=0)
    looked_up = ops.reshape(looked_up, (batch, height, width, channels))
    return ops.cast(looked_up, "float32")


def _stretched(values, counts):
    """The table of Pillow's ImageOps.autocontrast, [B, C, 256]."""
    low = ops.min(ops.where(counts > 0, values, 255), axis=-1, keepdims=True)
    high = _highest(values, counts)
    stretched = ops.floor_divide(
        (values - low) * 255, ops.maximum(high - low, 1)
    )
    return ops.where(high > low, ops.clip(stretched, 0, 255), values)


def _equalised(values, counts):
    """The table of Pillow's ImageOps.equalize, [B, C, 256]."""
    total = ops.sum(counts, axis=-1, keepdims=True)
    of_highest = ops.take_along_axis(counts, _highest(values, counts), axis=-1)
    step = ops.floor_divide(total - of_highest, 255)
    before = ops.cumsum(counts, axis=-1) - counts
    equalised = ops.floor_divide(
        ops.floor_divide(step, 2) + before, ops.maximum(step, 1)
    )
    return ops.where(step > 0, ops.clip(equalised, 0, 255), values)


def _highest(values, counts):
    """The highest value that occurs, [B, C, 1]."""
    return ops.max(ops.where(counts > 0, values, 0), axis=-1, keepdims=True)
