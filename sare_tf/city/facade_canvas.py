"""The strip of facades along a street, drawn on in metres.

x runs along the street from -STRIP_M / 2 to STRIP_M / 2, y upwards from the
ground. Colours are from 0 to 255.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

PIXELS_PER_M = 14
STRIP_M = 64.0
STRIP_HEIGHT_M = 21.0

# What a pixel of the strip shows. Ledges and roofs hold snow.
SKY, WALL, PANE, LEDGE = range(4)

Colour = Sequence[float] | np.ndarray


class FacadeCanvas:
    """Images of the strip: colours, kinds of surface, and numbers of panes."""

    def __init__(self):
        size = (column_of(STRIP_M / 2), round(STRIP_HEIGHT_M * PIXELS_PER_M))
        self._colours = Image.new("RGB", size)
        self._kinds = Image.new("L", size, SKY)
        self._panes = Image.new("I", size, 0)
        self._draws = tuple(
            ImageDraw.Draw(image)
            for image in (self._colours, self._kinds, self._panes)
        )
        self._num_panes = 0

    def colours(self) -> np.ndarray:
        """Returns the colours, uint8 [h, w, 3], from the roofs downwards."""
        return np.asarray(self._colours.convert("RGB"))

    def kinds(self) -> np.ndarray:
        """Returns SKY, WALL, PANE or LEDGE of each pixel, uint8 [h, w]."""
        return np.asarray(self._kinds)

    def panes(self) -> np.ndarray:
        """Returns the number of the pane from 1, or 0, int16 [h, w]."""
        return np.asarray(self._panes).astype(np.int16)

    def box(
        self,
        x_m: float,
        y_m: float,
        width_m: float,
        height_m: float,
        colour: Colour,
        *,
        kind: int = WALL,
    ) -> None:
        """Fills a rectangle, whose foot is at `y_m`.

        A rectangle of the kind PANE is a pane with a number of its own.
        """
        values = self._values(colour, kind)
        self._rectangle((x_m, y_m, width_m, height_m), values)

    def arch(
        self,
        x_m: float,
        y_m: float,
        width_m: float,
        height_m: float,
        colour: Colour,
        *,
        kind: int = WALL,
    ) -> None:
        """Fills a rectangle with a half circle on top, see `box`."""
        values = self._values(colour, kind)
        self._rectangle((x_m, y_m, width_m, height_m - width_m / 2), values)
        left = (x_m + STRIP_M / 2) * PIXELS_PER_M
        top = (STRIP_HEIGHT_M - y_m - height_m) * PIXELS_PER_M
        side = width_m * PIXELS_PER_M
        circle = (
            round(left),
            round(top),
            round(left + side) - 1,
            round(top + side),
        )
        for draw, value in zip(self._draws, values, strict=True):
            draw.pieslice(circle, 180, 360, fill=value)

    def polygon(
        self,
        points_m: Sequence[tuple[float, float]],
        colour: Colour,
        *,
        kind: int,
    ) -> None:
        """Fills a polygon with the corners (x, y)."""
        corners = [
            (
                (x_m + STRIP_M / 2) * PIXELS_PER_M,
                (STRIP_HEIGHT_M - y_m) * PIXELS_PER_M,
            )
            for x_m, y_m in points_m
        ]
        values = self._values(colour, kind)
        for draw, value in zip(self._draws, values, strict=True):
            draw.polygon(corners, fill=value)

    def paste(self, colours: np.ndarray, *, column: int, row: int) -> None:
        """Replaces colours by uint8 [h, w, 3], and leaves the kinds."""
        self._colours.paste(Image.fromarray(colours), (column, row))

    def _values(self, colour: Colour, kind: int) -> tuple:
        """The value of a shape in each of the three images."""
        self._num_panes += kind == PANE
        red, green, blue = (int(c) for c in np.clip(colour, 0, 255))
        pane = self._num_panes if kind == PANE else 0
        return (red, green, blue), kind, pane

    def _rectangle(self, box_m: tuple[float, ...], values: tuple) -> None:
        x_m, y_m, width_m, height_m = box_m
        left = (x_m + STRIP_M / 2) * PIXELS_PER_M
        right = (x_m + width_m + STRIP_M / 2) * PIXELS_PER_M - 1
        bottom = (STRIP_HEIGHT_M - y_m) * PIXELS_PER_M - 1
        top = (STRIP_HEIGHT_M - y_m - height_m) * PIXELS_PER_M
        box = (
            round(left),
            round(top),
            max(round(left), round(right)),
            max(round(top), round(bottom)),
        )
        for draw, value in zip(self._draws, values, strict=True):
            draw.rectangle(box, fill=value)


def column_of(x_m: float) -> int:
    """Returns the column of the strip where x_m is, within the strip."""
    last = round(STRIP_M * PIXELS_PER_M)
    return min(max(0, round((x_m + STRIP_M / 2) * PIXELS_PER_M)), last)


def row_of(y_m: float) -> int:
    """Returns the row of the strip where y_m is, 0 at the top."""
    return round((STRIP_HEIGHT_M - y_m) * PIXELS_PER_M)
