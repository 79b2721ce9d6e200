"""Augmentation of training images, computed on the device.

Axis letters: B batch, H W image, R random numbers of an image. Images are RGB,
0..255, of any number type; augmented images are float32 [B, H, W, 3] with the
same range and size.

The random numbers come with the images: `draws`, [B, R], uniform in 0..1. The
result depends only on image and draws, so it is the same on every device, on
any number of replicas, and when an image is embedded twice. The training
datasets make draws from a seed.

- randaugment: three random operations of fourteen, see `rand_augment`.
- crop: enlarges a region with 0.75 to 1 of both sides to the whole image.
- perspective: moves the corners of the region towards its centre.
- colour: changes contrast, and the gain of each channel (exposure and colour
  cast).
- grey: removes the colours of one image in five (Chen et al., "A Simple
  Framework for Contrastive Learning of Visual Representations", ICML 2020,
  appendix A).
- erase: fills a rectangle of one image in two with the mean colour of the
  image. Area, shape and probability are those of Zhong et al., "Random Erasing
  Data Augmentation", AAAI 2020, section 3.
"""

from collections.abc import Sequence

import keras
from keras import ops

from sare_tf.model import rand_augment
from sare_tf.model.registry import AUGMENTATION_DRAWS

_SMALLEST_SIDE = 0.75
# Relative to the sides of the region. Corners only move inwards, so that no
# pixel outside the image is needed.
_CORNER_MOVE = 0.15
_EXPOSURE = (0.7, 1.35)
_CAST = (0.88, 1.12)
_CONTRAST = (0.75, 1.3)
_GREY_SHARE = 0.2
# ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)
_ERASED_SHARE = 0.5
_ERASED_AREA = (0.02, 0.4)
# Height over width is between this and its inverse.
_ERASED_ASPECT = 0.3


def augment(images, draws, *, effects):
    """Returns augmented images.

    Args:
        images: [B, H, W, 3], 0..255.
        draws: uniform numbers in 0..1, [B, R]. R is the sum of the counts
            in `AUGMENTATION_DRAWS` of the effects, in the order of that table.
        effects: names in `AUGMENTATION_DRAWS`.

    Returns:
        float32 [B, H, W, 3], 0..255.
    """
    images = ops.cast(images, "float32")
    of_effect, start = {}, 0
    for name, count in AUGMENTATION_DRAWS.items():
        if name in effects:
            of_effect[name] = draws[:, start : start + count]
            start += count
    if "randaugment" in effects:
        images = rand_augment.apply(images, of_effect["randaugment"])
    if "perspective" in effects:
        region = _region(of_effect.get("crop"), draws)
        images = _sample(images, _corners(region, of_effect["perspective"]))
    elif "crop" in effects:
        images = _enlarge(images, _region(of_effect["crop"], draws))
    if "colour" in effects:
        images = _recolour(images, of_effect["colour"])
    if "grey" in effects:
        chosen = of_effect["grey"][:, :, None, None] < _GREY_SHARE
        luma = ops.sum(images * ops.array(_LUMA), axis=-1, keepdims=True)
        images = ops.where(chosen, luma, images)
    if "erase" in effects:
        images = _erase(images, of_effect["erase"])
    return images


@keras.saving.register_keras_serializable(package="sare_tf")
class Augmentation(keras.layers.Layer):
    """Augments images in training, and returns them unchanged otherwise.

    `over_tuples` and `PlaceNetwork` put the layer in front of the embedder, so
    that images are augmented in training, and not in mining, validation or
    serving.

    Sources: Cubuk et al., NeurIPS 2020 ("randaugment"); Chen et al., ICML 2020,
    appendix A ("grey"); Zhong et al., AAAI 2020, section 3 ("erase").

    Args:
        effects: one or more of "randaugment", "crop", "perspective", "colour",
            "grey" and "erase"; their order does not matter.

    Call arguments:
        images: RGB, 0..255, of any number type.
        draws: uniform numbers in 0..1, `num_draws` for each image.
        training: whether to augment the images.

    Input shape:
        [B, H, W, 3] and [B, num_draws].

    Output shape:
        [B, H, W, 3], float32.

    Example:

    ```python
    augmentation = sare_tf.Augmentation(["crop", "colour"])
    model = sare_tf.over_tuples(embedder, augmentation=augmentation)
    dataset = sare_tf.tuple_dataset(
        records,
        tuples,
        height=480,
        width=640,
        draws=sare_tf.AugmentationDraws(augmentation.num_draws),
    )
    ```
    """

    def __init__(self, effects: Sequence[str], **kwargs):
        # float32: a mixed policy must not round the images.
        super().__init__(
            **{"dtype": "float32", "name": "augmentation"} | kwargs
        )
        effects = list(effects)
        unknown = sorted(set(effects) - set(AUGMENTATION_DRAWS))
        if unknown or not effects or len(set(effects)) < len(effects):
            known = ", ".join(AUGMENTATION_DRAWS)
            raise ValueError(
                f"Expected one or more of {known}, each once. "
                f"Received: effects={effects}."
            )
        self.effects = effects

    @property
    def num_draws(self) -> int:
        """The random numbers that each image needs, R."""
        return sum(AUGMENTATION_DRAWS[name] for name in self.effects)

    def call(self, images, draws, training=False):
        if draws.shape[-1] != self.num_draws:
            raise ValueError(
                f"Expected {self.num_draws} draws of an image for the effects "
                f"{self.effects}. Received: draws.shape={tuple(draws.shape)}. "
                "Make the dataset with draws=AugmentationDraws("
                "augmentation.num_draws)."
            )
        if not training:
            return ops.cast(images, "float32")
        return augment(images, draws, effects=self.effects)

    def compute_output_shape(self, images_shape, draws_shape):
        del draws_shape
        return images_shape

    def get_config(self):
        return {**super().get_config(), "effects": self.effects}


def _between(draws, low, high):
    return low + (high - low) * draws


def _region(crop, draws):
    """Returns left, top and side of the region, each [B, 1], in 0..1."""
    if crop is None:
        zeros = ops.zeros_like(draws[:, :1])
        return zeros, zeros, zeros + 1.0
    side = _between(crop[:, :1], _SMALLEST_SIDE, 1.0)
    room = 1.0 - side
    return crop[:, 1:2] * room, crop[:, 2:3] * room, side


def _enlarge(images, region):
    """Enlarges the region to the whole image, bilinearly, axis by axis."""
    _, height, width, _ = ops.shape(images)
    left, top, side = region
    rows = _weights(top, side, height)  # [B, H, H]
    columns = _weights(left, side, width)  # [B, W, W]
    images = ops.einsum("byh,bhwc->bywc", rows, images)
    return ops.einsum("bxw,bywc->byxc", columns, images)


def _weights(start, side, size):
    """Returns bilinear weights, [B, output pixels, input pixels]."""
    pixels = ops.cast(ops.arange(size), "float32")
    last = ops.cast(size - 1, "float32")
    positions = start * last + side * pixels  # [B, size]
    return ops.relu(1.0 - ops.abs(positions[:, :, None] - pixels))


def _corners(region, draws):
    """Returns x and y of the moved corners, each [B, 4], in 0..1.

    The order is clockwise from the upper left corner.
    """
    left, top, side = region
    move = draws * _CORNER_MOVE
    inward_x = ops.array([[1.0, -1.0, -1.0, 1.0]])
    inward_y = ops.array([[1.0, 1.0, -1.0, -1.0]])
    x = ops.array([[0.0, 1.0, 1.0, 0.0]]) + inward_x * move[:, :4]
    y = ops.array([[0.0, 0.0, 1.0, 1.0]]) + inward_y * move[:, 4:]
    return left + side * x, top + side * y


def _sample(images, corners):
    """Enlarges the quadrilateral between four corners to the whole image.

    Source: Heckbert, "Fundamentals of Texture Mapping and Image Warping", 1989,
    section 2.2.3, square to quadrilateral.
    """
    batch, height, width, channels = ops.shape(images)
    columns = ops.cast(ops.arange(width), "float32")
    rows = ops.cast(ops.arange(height), "float32")
    last_x = ops.cast(width - 1, "float32")
    last_y = ops.cast(height - 1, "float32")
    (x0, x1, x2, x3), (y0, y1, y2, y3) = (
        ops.unstack(of_corners[:, :, None, None], axis=1)
        for of_corners in corners
    )  # each [B, 1, 1]
    sum_x, sum_y = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    right_x, right_y, below_x, below_y = x1 - x2, y1 - y2, x3 - x2, y3 - y2
    area = right_x * below_y - below_x * right_y
    g = (sum_x * below_y - below_x * sum_y) / area
    h = (right_x * sum_y - sum_x * right_y) / area
    u = columns[None, None, :] / last_x
    v = rows[None, :, None] / last_y
    scale = 1.0 / (g * u + h * v + 1.0)  # [B, H, W]
    x = ((x1 - x0 + g * x1) * u + (x3 - x0 + h * x3) * v + x0) * scale * last_x
    y = ((y1 - y0 + g * y1) * u + (y3 - y0 + h * y3) * v + y0) * scale * last_y
    # The last pixel of a line is the right end of the last step.
    left = ops.clip(ops.floor(x), 0.0, last_x - 1.0)
    top = ops.clip(ops.floor(y), 0.0, last_y - 1.0)
    to_right, to_below = (x - left)[..., None], (y - top)[..., None]
    first = ops.arange(batch)[:, None, None] * (height * width)
    index = first + ops.cast(top, "int32") * width + ops.cast(left, "int32")
    pixels = ops.reshape(images, (batch * height * width, channels))

    def line(start):
        a = ops.take(pixels, start, axis=0)
        b = ops.take(pixels, start + 1, axis=0)
        return a + (b - a) * to_right

    above, below = line(index), line(index + width)
    return above + (below - above) * to_below


def _recolour(images, draws):
    draws = draws[:, :, None, None]
    exposure = _between(draws[:, 0:1], *_EXPOSURE)
    cast = ops.transpose(_between(draws[:, 1:4], *_CAST), (0, 2, 3, 1))
    contrast = _between(draws[:, 4:5], *_CONTRAST)
    mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    images = ((images - mean) * contrast + mean) * (exposure * cast)
    return ops.clip(images, 0.0, 255.0)


def _erase(images, draws):
    height, width = (
        ops.cast(size, "float32") for size in ops.shape(images)[1:3]
    )
    chosen = draws[:, 0:1] < _ERASED_SHARE
    area = _between(draws[:, 1:2], *_ERASED_AREA) * height * width
    # Tall and wide are equally likely.
    aspect = _ERASED_ASPECT ** _between(draws[:, 2:3], -1.0, 1.0)
    erased_height = ops.minimum(ops.sqrt(area * aspect), height)
    erased_width = ops.minimum(ops.sqrt(area / aspect), width)
    rows = _inside(draws[:, 3:4], erased_height, height)
    columns = _inside(draws[:, 4:5], erased_width, width)
    erased = chosen[..., None] & rows[:, :, None] & columns[:, None, :]
    mean = ops.mean(images, axis=(1, 2), keepdims=True)
    return ops.where(erased[..., None], mean, images)


def _inside(draw, length, size):
    """Returns a mask of the erased pixels along one axis, bool [B, size]."""
    middles = ops.cast(ops.arange(size), "float32") + 0.5
    start = draw * (size - length)
    return (middles >= start) & (middles < start + length)
