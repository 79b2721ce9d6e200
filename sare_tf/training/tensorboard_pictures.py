"""Pictures of training: the hardest tuples, thumbnails of a projector.

Images are RGB, uint8, [H, W, 3].
"""

import math

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from sare_tf.records.records import Records
from sare_tf.training import datasets
from sare_tf.training.hard_negatives import Mined

_TUPLES = 6
_NEGATIVES = 4
_LONGEST_SIDE = 200
_FRAME = 4
_GAP = 6
_CAPTION = 18
# Red and green that colour-blind people tell apart (Okabe and Ito, 2008).
_QUERY, _POSITIVE, _NEGATIVE = (90, 90, 90), (0, 158, 115), (213, 94, 0)


def fit(height: int, width: int, *, longest: int) -> tuple[int, int]:
    """The size with the same shape whose longer side is `longest`."""
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def hardest_tuples(
    records: Records,
    tuples: np.ndarray,
    found: Mined,
    *,
    height: int,
    width: int,
) -> np.ndarray:
    """One row per tuple: the query, its positive, its nearest negatives.

    The tuples are those whose positive is farthest compared with the nearest
    negative. Below the images stand their squared distances to the query.

    Args:
        records: opened records.
        tuples: int [M, T], positions in their manifest.
        found: what the tuples were made of, in the same order.
        height: rows of a network's input, whose shape the images keep.
        width: columns of it.

    Returns:
        uint8 [rows, columns, 3].
    """
    height, width = fit(height, width, longest=_LONGEST_SIDE)
    gain = found.positive_distances - found.negative_distances[:, 0]
    chosen = np.argsort(-gain, kind="stable")[:_TUPLES]
    shown = tuples[chosen, : 2 + _NEGATIVES]
    images = np.concatenate(
        list(
            datasets.image_dataset(
                records,
                records.manifest.iloc[shown.reshape(-1)],
                height=height,
                width=width,
            ).as_numpy_iterator()
        )
    )
    cell_height = height + 2 * _FRAME + _CAPTION + _GAP
    cell_width = width + 2 * _FRAME + _GAP
    rows, columns = shown.shape
    picture = Image.new(
        "RGB",
        (columns * cell_width + _GAP, rows * cell_height + _GAP),
        "white",
    )
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        left = _GAP + column * cell_width
        top = _GAP + row * cell_height
        if column == 0:
            colour, caption = _QUERY, "query"
        elif column == 1:
            distance = found.positive_distances[chosen[row]]
            colour, caption = _POSITIVE, f"positive {distance:.3f}"
        else:
            distance = found.negative_distances[chosen[row], column - 2]
            colour, caption = _NEGATIVE, f"negative {distance:.3f}"
        draw.rectangle(
            (
                left,
                top,
                left + width + 2 * _FRAME - 1,
                top + height + 2 * _FRAME - 1,
            ),
            fill=colour,
        )
        picture.paste(Image.fromarray(image), (left + _FRAME, top + _FRAME))
        draw.text(
            (left, top + height + 2 * _FRAME),
            caption,
            fill=colour,
            font=font,
        )
    return np.asarray(picture)


def sprite(thumbnails: tf.data.Dataset, *, count: int) -> Image.Image:
    """All thumbnails in one square, row by row, as TensorBoard reads it.

    Args:
        thumbnails: batches of images, uint8 [B, h, w, 3].
        count: of all images.

    Returns:
        A picture of n x n thumbnails, n the smallest that holds them.
    """
    side = math.ceil(math.sqrt(count))
    height, width = thumbnails.element_spec.shape[1:3]
    picture = Image.new("RGB", (side * width, side * height), "white")
    for number, image in enumerate(thumbnails.unbatch().as_numpy_iterator()):
        row, column = divmod(number, side)
        picture.paste(Image.fromarray(image), (column * width, row * height))
    return picture
