"""Colours of facades, sky and ground in a view, before light."""

import numpy as np

from sare_tf.city import pixels
from sare_tf.city.camera import View
from sare_tf.city.facade_canvas import (
    LEDGE,
    PANE,
    PIXELS_PER_M,
    SKY,
    STRIP_HEIGHT_M,
    STRIP_M,
)
from sare_tf.city.moment import Moment
from sare_tf.city.place import PAVEMENT_M, Place

# Weather -> colour of the sky high up.
_SKY = {
    "clear": (0.36, 0.56, 0.86),
    "overcast": (0.72, 0.75, 0.79),
    "rain": (0.58, 0.61, 0.66),
    "fog": (0.8, 0.81, 0.82),
    "snow": (0.8, 0.82, 0.86),
}


def colour_surfaces(
    place: Place, moment: Moment, view: View, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Colours what the rays of a view meet.

    Returns:
        Colours, float32 [h, w, 3]; and whether a ray meets a lit pane, bool
        [h, w].
    """
    row = ((STRIP_HEIGHT_M - view.y_m) * PIXELS_PER_M).astype(np.int32)
    column = ((view.x_m + STRIP_M / 2) * PIXELS_PER_M).astype(np.int32)
    rows, columns = place.kinds.shape
    row = np.clip(row, 0, rows - 1)  # a ray along the edge of the pavement
    texel = np.where(view.facade, row * columns + column, 0).reshape(-1)
    kinds = place.kinds.reshape(-1)[texel]
    kinds[~view.facade.reshape(-1)] = SKY
    colours = place.facade.reshape(-1, 3)[texel].astype(np.float32)
    colours *= 1 / 255
    sky = np.flatnonzero((kinds == SKY) & ~view.ground.reshape(-1))
    colours[sky] = _sky(place, moment, view, rng, sky)
    if moment.weather == "snow":
        ledges = kinds == LEDGE
        colours[ledges] = 0.35 * colours[ledges] + 0.6
    rays = np.flatnonzero(kinds == PANE)
    panes = place.panes.reshape(-1)[texel[rays]]
    glowing = np.zeros(len(kinds), bool)
    if moment.night:
        is_lit = rng.random(int(place.panes.max()) + 1) < 0.4
        glowing[rays[is_lit[panes]]] = True
    else:
        # Panes mirror the sky, each a little differently.
        sheen = rng.uniform(0.1, 0.5, int(place.panes.max()) + 1)
        amount = sheen[panes][:, None].astype(np.float32)
        mirrored = np.float32((0.62, 0.7, 0.8))
        colours[rays] = (1 - amount) * colours[rays] + amount * mirrored
    colours = colours.reshape(view.height, view.width, 3)
    colours[view.ground] = _ground(place, moment, view, rng)
    return colours, glowing.reshape(view.height, view.width)


def _sky(
    place: Place,
    moment: Moment,
    view: View,
    rng: np.random.Generator,
    rays: np.ndarray,
) -> np.ndarray:
    """Colours of the sky and the houses far behind, for rays [R]."""
    up = view.up.reshape(-1)[rays]
    x_m, y_m = view.x_m.reshape(-1)[rays], view.y_m.reshape(-1)[rays]
    amount = np.clip(up * 1.6, 0, 1)[:, None]
    low = np.float32((0.84, 0.87, 0.9))
    colours = (1 - amount) * low + amount * np.float32(_SKY[moment.weather])
    if moment.weather == "clear":
        clouds = pixels.smooth_noise(rng, view.height, view.width, cells=5)
        clouds = clouds.reshape(-1)[rays]
        cover = np.clip((clouds - rng.uniform(0.45, 0.75)) * 4, 0, 1)[:, None]
        colours = (1 - cover) * colours + cover * 0.95
    houses = len(place.skyline_m)
    # Each is 6 m wide, 2.5 times as far away as the facades.
    house = ((x_m * 2.5) / 6 + houses / 2).astype(np.int32)
    house = np.clip(house, 0, houses - 1)
    is_house = (y_m < place.skyline_m[house]) & (up > -0.02)
    pale = np.float32((0.23, 0.23, 0.24))
    colours[is_house] = 0.55 * colours[is_house] + pale
    return colours


def _ground(
    place: Place, moment: Moment, view: View, rng: np.random.Generator
) -> np.ndarray:
    """Colours of pavement and road, for the rays that meet the ground."""
    x_m, z_m = view.ground_x_m[view.ground], view.ground_z_m[view.ground]
    edge_m = view.distance_m - PAVEMENT_M
    pavement, road = place.ground
    colours = np.empty((len(x_m), 3), np.float32)
    colours[:] = road
    is_pavement = z_m > edge_m
    colours[is_pavement] = pavement
    is_joint = (np.mod(x_m, 0.8) < 0.06) | (np.mod(z_m, 0.8) < 0.06)
    colours[is_pavement & is_joint] *= 0.82
    is_kerb = (z_m > edge_m - 0.18) & ~is_pavement
    colours[is_kerb] = np.minimum(pavement * 1.15, 1)
    is_line = np.abs(z_m - edge_m + 3.3) < 0.09
    colours[is_line & (np.mod(x_m, 5) < 2.4)] = 0.85
    colours *= rng.normal(1, 0.035, len(x_m)).astype(np.float32)[:, None]
    if moment.weather == "rain":
        wet = np.clip(0.45 + 0.5 * np.sin(x_m * 1.7 + z_m), 0.15, 0.8)
        colours = colours * 0.55 + (0.22 * wet[:, None]).astype(np.float32)
    if moment.weather == "snow":
        is_thick = is_pavement | (np.mod(z_m, 2.1) < 1.2)
        amount = np.where(is_thick, 0.85, 0.35)[:, None]
        colours = (1 - amount) * colours + amount * 0.92
    return colours
