"""Pictures of training: the hardest tuples, thumbnails of a projector.

Images are RGB, uint8, [H, W, 3].
"""

import math
from collections.abc import Sequence

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
    """Returns the size of the same shape whose longer side is `longest`."""
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def hardest_tuples(
    records: Records,
    tuples: np.ndarray,
    mined: Mined,
    *,
    height: int,
    width: int,
) -> np.ndarray:
    """Draws a row per tuple: the query, its positive, its nearest negatives.

    The hardest tuples are those whose positive is farthest compared with the
    nearest negative. Captions are squared distances to the query.

    Args:
        records: opened records.
        tuples: int [M, T], positions in their manifest.
        mined: rows and distances of the tuples, in the same order.
        height: rows of the network's input, whose shape the images keep.
        width: columns of it.

    Returns:
        uint8 [rows, columns, 3].
    """
    height, width = fit(height, width, longest=_LONGEST_SIDE)
    gain = mined.positive_distances - mined.negative_distances[:, 0]
    hardest = np.argsort(-gain, kind="stable")[:_TUPLES]
    shown = tuples[hardest, : 2 + _NEGATIVES]
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
    distances = np.column_stack(
        [
            mined.positive_distances[hardest],
            mined.negative_distances[hardest][:, :_NEGATIVES],
        ]
    )
    captions = [
        caption
        for positive, *negatives in distances
        for caption in (
            (_QUERY, "query"),
            (_POSITIVE, f"positive {positive:.3f}"),
            *((_NEGATIVE, f"negative {each:.3f}") for each in negatives),
        )
    ]
    return _with_captions(images, captions, columns=shown.shape[1])


def _with_captions(
    images: np.ndarray,
    captions: Sequence[tuple[tuple[int, int, int], str]],
    *,
    columns: int,
) -> np.ndarray:
    """Draws images [B, h, w, 3] in frames, row by row, with their captions."""
    height, width = images.shape[1:3]
    cell_height = height + 2 * _FRAME + _CAPTION + _GAP
    cell_width = width + 2 * _FRAME + _GAP
    rows = len(images) // columns
    picture = Image.new(
        "RGB",
        (columns * cell_width + _GAP, rows * cell_height + _GAP),
        "white",
    )
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    for number, (image, (colour, caption)) in enumerate(
        zip(images, captions, strict=True)
    ):
        row, column = divmod(number, columns)
        left, top = _GAP + column * cell_width, _GAP + row * cell_height
        right, bottom = left + width + 2 * _FRAME, top + height + 2 * _FRAME
        draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)
        picture.paste(Image.fromarray(image), (left + _FRAME, top + _FRAME))
        draw.text((left, bottom), caption, fill=colour, font=font)
    return np.asarray(picture)


def sprite(thumbnails: tf.data.Dataset, *, count: int) -> Image.Image:
    """Puts all thumbnails into a square, row by row, as TensorBoard reads it.

    Args:
        thumbnails: batches of images, uint8 [B, h, w, 3].
        count: number of all images.

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
