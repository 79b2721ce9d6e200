"""Windows of a facade: their rows, styles and panes."""

import dataclasses

import numpy as np

from sare_tf.city.building import Building
from sare_tf.city.facade_canvas import LEDGE, PANE, Colour, FacadeCanvas

# Style -> share of buildings.
_STYLES = {
    "plain": 0.24,
    "arch": 0.14,
    "shutters": 0.16,
    "balcony": 0.16,
    "ribbon": 0.12,
    "framed": 0.18,
}
_RAIL = (40, 42, 46)


@dataclasses.dataclass(frozen=True)
class _Windows:
    """What the windows of a building have in common."""

    style: str
    width_m: float
    height_m: float
    frame: Colour
    trim: Colour
    shutter: Colour
    columns: int
    bars: int


def paint_windows(
    canvas: FacadeCanvas, building: Building, rng: np.random.Generator
) -> None:
    """Paints the windows above the ground floor."""
    columns = max(1, int(building.width_m / rng.uniform(1.7, 3.2)))
    pitch_m = building.width_m / columns
    windows = _draw_windows(building, pitch_m, rng)
    is_blind = rng.random(columns) < 0.08
    for storey in range(building.storeys - 1):
        y_m = (
            building.ground_m
            + storey * building.storey_m
            + 0.62 * (building.storey_m - windows.height_m)
        )
        if windows.style == "ribbon":
            box_m = (
                building.x_m + 0.4,
                y_m,
                building.width_m - 0.8,
                windows.height_m,
            )
            paint_pane(
                canvas, box_m, windows.frame, rng, columns=columns, bars=0
            )
            continue
        for column in range(columns):
            if not is_blind[column]:
                middle_m = building.x_m + (column + 0.5) * pitch_m
                left_m = middle_m - windows.width_m / 2
                _paint_window(canvas, windows, left_m, y_m, rng)


def _draw_windows(
    building: Building, pitch_m: float, rng: np.random.Generator
) -> _Windows:
    width_m = min(rng.uniform(0.9, 1.7), pitch_m * 0.72)
    height_m = building.storey_m * rng.uniform(0.5, 0.78)
    style = str(rng.choice(list(_STYLES), p=list(_STYLES.values())))
    if style == "shutters" and pitch_m <= 1.7 * width_m:
        style = "plain"  # there is no room for shutters
    is_white = rng.random() < 0.6
    return _Windows(
        style=style,
        width_m=width_m,
        height_m=height_m,
        frame=(235, 232, 225) if is_white else building.trim * 0.6,
        trim=building.trim,
        shutter=rng.integers(30, 170, 3),
        columns=int(rng.integers(1, 4)),
        bars=int(rng.integers(0, 3)),
    )


def _paint_window(
    canvas: FacadeCanvas,
    windows: _Windows,
    x_m: float,
    y_m: float,
    rng: np.random.Generator,
) -> None:
    style, trim = windows.style, windows.trim
    width_m, height_m = windows.width_m, windows.height_m
    if style == "framed":
        canvas.box(x_m - 0.18, y_m - 0.15, width_m + 0.36, height_m + 0.4, trim)
    if style == "arch":
        canvas.arch(x_m - 0.1, y_m, width_m + 0.2, height_m + 0.1, trim)
        canvas.arch(x_m, y_m, width_m, height_m, (48, 56, 66), kind=PANE)
    else:
        paint_pane(
            canvas,
            (x_m, y_m, width_m, height_m),
            windows.frame,
            rng,
            columns=windows.columns,
            bars=windows.bars,
        )
    if style == "shutters":
        for side_m in (x_m - 0.42 * width_m, x_m + 1.02 * width_m):
            canvas.box(side_m, y_m, 0.4 * width_m, height_m, windows.shutter)
    if style == "balcony":
        _paint_balcony(canvas, x_m, y_m, width_m + 0.7, trim)
    else:
        canvas.box(x_m - 0.1, y_m - 0.14, width_m + 0.2, 0.13, trim, kind=LEDGE)


def _paint_balcony(
    canvas: FacadeCanvas, x_m: float, y_m: float, width_m: float, trim: Colour
) -> None:
    """Paints a balcony in front of a window with the left edge `x_m`."""
    canvas.box(x_m - 0.35, y_m - 0.2, width_m, 0.18, trim, kind=LEDGE)
    for bar_m in np.arange(x_m - 0.35, x_m + width_m - 0.35, 0.24):
        canvas.box(bar_m, y_m, 0.07, 0.85, _RAIL)
    canvas.box(x_m - 0.35, y_m + 0.82, width_m, 0.07, _RAIL)


def paint_pane(
    canvas: FacadeCanvas,
    box_m: tuple[float, float, float, float],
    frame: Colour,
    rng: np.random.Generator,
    *,
    columns: int,
    bars: int,
) -> None:
    """Paints a window with its frame, sometimes with a curtain or a blind.

    Args:
        canvas: the strip.
        box_m: left edge, foot, width and height with the frame.
        frame: colour of the frame.
        rng: source of the glass and the curtain.
        columns: panes side by side.
        bars: horizontal bars across the panes.
    """
    x_m, y_m, width_m, height_m = box_m
    glass = rng.uniform(0.7, 1.3) * np.array([50, 58, 68])
    canvas.box(x_m, y_m, width_m, height_m, frame)
    inner_m = (x_m + 0.07, y_m + 0.07, width_m - 0.14, height_m - 0.14)
    canvas.box(*inner_m, glass, kind=PANE)
    if rng.random() < 0.25:
        curtain = rng.uniform(140, 220) * rng.normal(1, 0.05, 3)
        drop_m = inner_m[3] * rng.uniform(0.2, 0.6)
        low_m = y_m + height_m - 0.07 - drop_m
        canvas.box(inner_m[0], low_m, inner_m[2], drop_m, curtain)
    for column in range(1, columns):
        bar_m = x_m + width_m * column / columns - 0.04
        canvas.box(bar_m, y_m, 0.08, height_m, frame)
    for bar in range(1, bars + 1):
        bar_m = y_m + height_m * bar / (bars + 1)
        canvas.box(x_m, bar_m, width_m, 0.08, frame)
