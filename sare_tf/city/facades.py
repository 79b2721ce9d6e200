"""Facades: walls with their texture, roofs, and what is on them."""

import numpy as np

from sare_tf.city import building as buildings
from sare_tf.city import ground_floors, pixels, windows
from sare_tf.city.building import Building
from sare_tf.city.facade_canvas import LEDGE, FacadeCanvas, column_of, row_of

# Roof -> share of buildings.
_ROOFS = {"cornice": 0.4, "mansard": 0.26, "gable": 0.18, "parapet": 0.16}
_TILES = ((92, 66, 58), (70, 74, 82), (120, 78, 62))


def paint_gap(
    canvas: FacadeCanvas,
    rng: np.random.Generator,
    *,
    x_m: float,
    width_m: float,
) -> None:
    """Paints a gateway in a garden wall between two houses."""
    tone = int(rng.integers(70, 150))
    canvas.box(x_m, 0, width_m, 2.4, (tone, tone - 8, tone - 16))
    canvas.box(x_m, 2.4, width_m, 0.15, (tone + 20,) * 3, kind=LEDGE)
    canvas.box(x_m + 0.3 * width_m, 0, 0.4 * width_m, 2.2, (60, 62, 58))


def paint_facade(
    canvas: FacadeCanvas,
    rng: np.random.Generator,
    *,
    x_m: float,
    width_m: float,
) -> None:
    """Draws a building and paints its facade."""
    building = buildings.draw_building(rng, x_m=x_m, width_m=width_m)
    _paint_wall(canvas, building, rng)
    if rng.random() < 0.5:
        ground_floors.paint_shop(canvas, building, rng)
    else:
        ground_floors.paint_house_front(canvas, building, rng)
    windows.paint_windows(canvas, building, rng)
    ledge_m = building.ground_m - 0.15
    canvas.box(x_m, ledge_m, width_m, 0.22, building.trim, kind=LEDGE)
    _paint_roof(canvas, building, rng)
    if rng.random() < 0.5:
        pipe_m = x_m + (0.15 if rng.random() < 0.5 else width_m - 0.3)
        canvas.box(pipe_m, 0, 0.14, building.top_m, building.trim * 0.7)
    if rng.random() < 0.14:
        ivy_m = x_m + rng.uniform(0, width_m * 0.6)
        _paint_ivy(canvas, rng, ivy_m, rng.uniform(1.5, 3), building.top_m)
    if rng.random() < 0.22:
        sign_m = x_m + rng.uniform(0.5, width_m - 1)
        ground_floors.paint_hanging_sign(
            canvas, rng, x_m=sign_m, ground_m=building.ground_m
        )


def _paint_wall(
    canvas: FacadeCanvas, building: Building, rng: np.random.Generator
) -> None:
    x_m, width_m = building.x_m, building.width_m
    canvas.box(x_m, 0, width_m, building.top_m, building.wall)
    left, right = column_of(x_m), column_of(x_m + width_m)
    top = row_of(building.top_m)
    if right - left < 2:
        return
    texture = _texture(rng, building.material, row_of(0) - top, right - left)
    colours = np.clip(building.wall * texture[..., None], 0, 255)
    canvas.paste(colours.astype(np.uint8), column=left, row=top)


def _texture(
    rng: np.random.Generator, material: str, rows: int, columns: int
) -> np.ndarray:
    """Relative brightness of a wall: grain, stains and joints."""
    texture = rng.normal(1, 0.03, (rows, columns))
    stains = pixels.smooth_noise(rng, rows, columns, cells=4)
    texture *= 0.9 + 0.2 * stains
    across, down = np.arange(columns), np.arange(rows)[:, None]
    if material == "brick":
        texture[(down % 4 == 0)[:, 0]] *= 1.22
        shift = 4 * ((down // 4) % 2)
        texture *= np.where((across + shift) % 9 == 0, 1.14, 1)
    elif material == "stone":
        texture[(down % 9 == 0)[:, 0]] *= 0.8
        shift = 7 * ((down // 9) % 2)
        texture *= np.where((across + shift) % 15 == 0, 0.84, 1)
    elif material == "panel":
        texture[(down % 20 == 0)[:, 0]] *= 0.7
        texture[:, across % 28 == 0] *= 0.75
    return texture


def _paint_roof(
    canvas: FacadeCanvas, building: Building, rng: np.random.Generator
) -> None:
    x_m, width_m, top_m = building.x_m, building.width_m, building.top_m
    trim = building.trim
    style = str(rng.choice(list(_ROOFS), p=list(_ROOFS.values())))
    tiles = _TILES[int(rng.integers(len(_TILES)))]
    if style == "cornice":
        canvas.box(x_m - 0.1, top_m, width_m + 0.2, 0.45, trim, kind=LEDGE)
        canvas.box(
            x_m - 0.1, top_m + 0.45, width_m + 0.2, 0.5, tiles, kind=LEDGE
        )
    elif style == "parapet":
        height_m = rng.uniform(0.6, 1.2)
        canvas.box(x_m, top_m, width_m, height_m, trim, kind=LEDGE)
    else:
        height_m = rng.uniform(1.8, 3.0)
        canvas.box(x_m - 0.1, top_m, width_m + 0.2, 0.25, trim, kind=LEDGE)
        slope_m = min(width_m / 2, height_m) if style == "gable" else 0.6
        canvas.polygon(
            [
                (x_m, top_m + 0.25),
                (x_m + slope_m, top_m + height_m),
                (x_m + width_m - slope_m, top_m + height_m),
                (x_m + width_m, top_m + 0.25),
            ],
            tiles,
            kind=LEDGE,
        )
    if style == "mansard":
        for left_m in np.arange(x_m + 1.2, x_m + width_m - 1.6, 2.6):
            box_m = (left_m, top_m + 0.6, 0.9, 1.1)
            windows.paint_pane(canvas, box_m, trim, rng, columns=2, bars=0)
    if rng.random() < 0.5:
        chimney_m = x_m + rng.uniform(0.1, 0.8) * width_m
        canvas.box(chimney_m, top_m + 0.4, 0.7, 2.2, (126, 82, 70), kind=LEDGE)


def _paint_ivy(
    canvas: FacadeCanvas,
    rng: np.random.Generator,
    x_m: float,
    width_m: float,
    top_m: float,
) -> None:
    for _ in range(90):
        y_m = top_m * rng.random() ** 1.6
        leaf_m = x_m + width_m * (0.5 + rng.normal(0, 0.22))
        colour = np.array([52, 92, 40]) * rng.uniform(0.7, 1.35)
        canvas.box(leaf_m, y_m, 0.35, 0.35, colour)
