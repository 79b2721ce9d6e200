"""Ground floors: shops, house fronts, and signs with marks like letters."""

import numpy as np

from sare_tf.city import windows
from sare_tf.city.building import Building
from sare_tf.city.facade_canvas import LEDGE, PANE, Colour, FacadeCanvas


def paint_shop(
    canvas: FacadeCanvas, building: Building, rng: np.random.Generator
) -> None:
    """Paints shop windows, a door, the board above, and maybe an awning."""
    x_m, width_m = building.x_m, building.width_m
    ground_m = building.ground_m
    front = rng.integers(25, 200, 3)
    canvas.box(x_m + 0.1, 0, width_m - 0.2, ground_m - 0.3, front)
    bays = max(2, int(width_m / rng.uniform(1.8, 3.0)))
    door = int(rng.integers(bays))
    bay_m = (width_m - 0.5) / bays - 0.15
    for bay in range(bays):
        left_m = x_m + 0.25 + bay * (width_m - 0.5) / bays
        low_m = 0.05 if bay == door else rng.uniform(0.4, 0.6)
        high_m = ground_m - 1.2 - low_m
        canvas.box(left_m, low_m, bay_m, high_m, (66, 72, 78), kind=PANE)
        if bay != door:
            _paint_goods(canvas, rng, left_m, low_m, bay_m)
    _paint_board(canvas, building, rng)
    if rng.random() < 0.45:
        stripe = rng.integers(40, 235, 3)
        lefts_m = np.arange(x_m + 0.2, x_m + width_m - 0.5, 0.45)
        for number, left_m in enumerate(lefts_m):
            colour = stripe if number % 2 else (232, 228, 218)
            canvas.box(left_m, ground_m - 1.65, 0.45, 0.62, colour, kind=LEDGE)


def _paint_goods(
    canvas: FacadeCanvas,
    rng: np.random.Generator,
    x_m: float,
    y_m: float,
    width_m: float,
) -> None:
    for _ in range(3):
        canvas.box(
            x_m + rng.uniform(0, 0.7) * width_m,
            y_m + 0.05,
            rng.uniform(0.15, 0.4),
            rng.uniform(0.2, 0.8),
            rng.integers(40, 235, 3),
        )


def _paint_board(
    canvas: FacadeCanvas, building: Building, rng: np.random.Generator
) -> None:
    """Paints the board above a shop, with letters."""
    x_m, width_m = building.x_m, building.width_m
    y_m = building.ground_m - 1.0
    board = rng.integers(15, 235, 3)
    canvas.box(x_m + 0.2, y_m, width_m - 0.4, 0.72, board)
    ink = (240, 236, 220) if board.mean() < 128 else (30, 28, 34)
    size_m = 0.5
    letter_m = x_m + rng.uniform(0.5, 0.3 * width_m)
    y_m = building.ground_m - 0.9
    for _ in range(int(rng.integers(4, 10))):
        if letter_m + size_m * 0.6 > x_m + width_m - 0.5:
            return
        _paint_letter(canvas, rng, letter_m, y_m, size_m, ink)
        letter_m += size_m * 0.85


def paint_house_front(
    canvas: FacadeCanvas, building: Building, rng: np.random.Generator
) -> None:
    """Paints a plinth, a door and the windows of a dwelling."""
    x_m, width_m = building.x_m, building.width_m
    trim = building.trim
    canvas.box(x_m, 0, width_m, rng.uniform(0.4, 0.9), trim * 0.85)
    door_m = x_m + rng.uniform(0.15, 0.7) * width_m
    colour = rng.integers(20, 180, 3)
    canvas.box(door_m - 0.15, 0, 1.4, 2.65, trim)
    canvas.box(door_m, 0.1, 1.1, 2.2, colour)
    canvas.box(door_m + 0.12, 1.2, 0.35, 0.85, colour * 0.7)
    canvas.box(door_m + 0.62, 1.2, 0.35, 0.85, colour * 0.7)
    if rng.random() < 0.3:
        plate_m = door_m - 1.6 if door_m - x_m > 2 else door_m + 1.5
        canvas.box(plate_m, 1.2, 0.5, 0.4, rng.integers(150, 250, 3))
    window_m = rng.uniform(0.9, 1.5)
    pitch_m = window_m * rng.uniform(1.5, 2.2)
    for left_m in np.arange(x_m + 0.6, x_m + width_m - window_m, pitch_m):
        if abs(left_m + window_m / 2 - door_m - 0.55) > window_m / 2 + 0.8:
            box_m = (left_m, 1.0, window_m, building.ground_m - 1.9)
            frame = (228, 224, 216)
            windows.paint_pane(canvas, box_m, frame, rng, columns=2, bars=0)
            canvas.box(
                left_m - 0.1, 0.88, window_m + 0.2, 0.12, trim, kind=LEDGE
            )


def paint_hanging_sign(
    canvas: FacadeCanvas,
    rng: np.random.Generator,
    *,
    x_m: float,
    ground_m: float,
) -> None:
    """Paints a sign above the ground floor, three letters high."""
    colour = rng.integers(20, 240, 3)
    canvas.box(x_m, ground_m + 0.3, 0.75, 1.9, colour)
    ink = (240, 238, 228) if colour.mean() < 128 else (30, 30, 36)
    for number in range(3):
        y_m = ground_m + 0.45 + 0.58 * number
        _paint_letter(canvas, rng, x_m + 0.15, y_m, 0.4, ink)


def _paint_letter(
    canvas: FacadeCanvas,
    rng: np.random.Generator,
    x_m: float,
    y_m: float,
    size_m: float,
    ink: Colour,
) -> None:
    """Paints a mark like a letter: strokes on a grid of three by three."""
    for stroke in rng.choice(9, int(rng.integers(4, 7)), replace=False):
        row, column = divmod(int(stroke), 3)
        canvas.box(
            x_m + column * size_m / 5,
            y_m + row * size_m / 3,
            size_m / 5,
            size_m / 3.2,
            ink,
        )
