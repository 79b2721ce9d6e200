"""Trees, street furniture, traffic and people in front of the facades."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from sare_tf.city.camera import View
from sare_tf.city.moment import Moment
from sare_tf.city.place import PAVEMENT_M, Place
from sare_tf.city.sprites import SPRITES

# Means per picture. Larger values are harder.
TRAFFIC = 0.6
PEOPLE = 1.2

# Vehicle -> share.
_VEHICLES = {"car": 0.72, "van": 0.22, "bus": 0.06}
# Distance from the edge of the pavement to the middle of a lane.
_NEAR_FACADES_M, _NEAR_CAMERA_M = 1.1, 4.0


class _Object(NamedTuple):
    kind: str
    x_m: float
    z_m: float
    rng: np.random.Generator


def draw_objects(
    image: Image.Image,
    place: Place,
    moment: Moment,
    view: View,
    rng: np.random.Generator,
) -> None:
    """Draws what stands and moves in front of the facades into an image.

    Args:
        image: of the rays of the view, which is changed.
        place: its trees and street furniture.
        moment: the season.
        view: where the camera is.
        rng: source of traffic and people.
    """
    objects = [
        _Object(
            thing.kind,
            thing.x_m,
            view.distance_m - thing.front_m,
            np.random.default_rng(thing.seed),
        )
        for thing in place.objects
    ]
    objects += _passing(view, rng)
    for thing in sorted(objects, key=lambda thing: -thing.z_m):
        _draw(image, thing, moment, view)


def _passing(view: View, rng: np.random.Generator) -> list[_Object]:
    """Vehicles and people of one picture."""
    objects = []
    edge_m = view.distance_m - PAVEMENT_M
    for _ in range(rng.poisson(TRAFFIC)):
        kind = str(rng.choice(list(_VEHICLES), p=list(_VEHICLES.values())))
        lane_m = _NEAR_FACADES_M
        # Vans and buses stay on the far lane, where they hide less.
        if kind == "car":
            lane_m = rng.choice([_NEAR_FACADES_M, _NEAR_CAMERA_M], p=[0.7, 0.3])
        x_m = rng.uniform(-16, 16)
        objects.append(_Object(kind, x_m, edge_m - lane_m, rng))
    for _ in range(rng.poisson(PEOPLE)):
        z_m = view.distance_m - rng.uniform(0.6, 2.8)
        objects.append(_Object("person", rng.uniform(-10, 10), z_m, rng))
    return objects


def _draw(
    image: Image.Image, thing: _Object, moment: Moment, view: View
) -> None:
    sprite, width_m, height_m = SPRITES[thing.kind](thing.rng, moment)
    foot = view.project(thing.x_m, 0.0, thing.z_m)
    if foot is None:
        return
    column, row, scale = foot
    width, height = round(width_m * scale), round(height_m * scale)
    is_beside = column + width < 0 or column - width > view.width
    if is_beside or not 2 <= width <= 4 * view.width or height < 2:
        return
    left = round(column - width / 2)
    if thing.kind in _VEHICLES:
        shadow = Image.new("L", (width, max(2, height // 8)), 120)
        image.paste((12, 12, 14), (left, round(row) - 1), shadow)
    sprite = sprite.resize((width, height), Image.Resampling.BILINEAR)
    image.paste(sprite, (left, round(row - height)), sprite)
