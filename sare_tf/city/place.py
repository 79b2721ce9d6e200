"""A place: one side of a street, painted as a function of its seed."""

import dataclasses
from typing import NamedTuple

import numpy as np

from sare_tf.city import facades
from sare_tf.city.facade_canvas import STRIP_M, FacadeCanvas

PAVEMENT_M = 3.2
GAPS = 0.06  # share of gaps between the buildings

# Street furniture and trees -> share.
_FURNITURE = {
    "tree": 0.34,
    "lamp": 0.2,
    "sign": 0.14,
    "bench": 0.1,
    "shelter": 0.06,
    "bin": 0.08,
    "bollards": 0.08,
}
_BETWEEN_FURNITURE_M = 3


class StreetObject(NamedTuple):
    """A tree or a piece of street furniture.

    Attributes:
        kind: a key of `sprites.SPRITES`.
        x_m: along the street.
        front_m: distance from the facades towards the camera.
        seed: of its looks.
    """

    kind: str
    x_m: float
    front_m: float
    seed: int


@dataclasses.dataclass(frozen=True)
class Place:
    """A painted place.

    Attributes:
        facade: colours of the strip of facades, uint8 [h, w, 3], from the
            roofs down to the ground.
        kinds: what each pixel of the strip shows, uint8 [h, w], see
            `facade_canvas`.
        panes: number of the window pane, which decides whether it is lit at
            night, int16 [h, w].
        distance_m: from the camera to the facades, on average.
        objects: trees and street furniture.
        ground: colours of pavement and road, float32 [2, 3].
        skyline_m: heights of the houses far behind, float32 [60].
    """

    facade: np.ndarray
    kinds: np.ndarray
    panes: np.ndarray
    distance_m: float
    objects: list[StreetObject]
    ground: np.ndarray
    skyline_m: np.ndarray


def paint_place(seed: tuple[int, ...]) -> Place:
    """Paints a place; the same seed gives the same place."""
    rng = np.random.default_rng(seed)
    canvas = FacadeCanvas()
    x_m = -STRIP_M / 2 - rng.uniform(0, 6)
    while x_m < STRIP_M / 2:
        width_m = rng.uniform(5.5, 13.5)
        if rng.random() < GAPS:
            width_m *= 0.5
            facades.paint_gap(canvas, rng, x_m=x_m, width_m=width_m)
        else:
            facades.paint_facade(canvas, rng, x_m=x_m, width_m=width_m)
        x_m += width_m
    objects = _draw_furniture(rng)
    pavement = rng.uniform(0.45, 0.68) * rng.normal(1, 0.04, 3)
    road = rng.uniform(0.24, 0.38) * rng.normal(1, 0.02, 3)
    return Place(
        facade=canvas.colours(),
        kinds=canvas.kinds(),
        panes=canvas.panes(),
        distance_m=float(rng.uniform(10.5, 13.5)),
        objects=objects,
        ground=np.stack([pavement, road]).astype(np.float32),
        skyline_m=rng.uniform(8, 26, 60).astype(np.float32),
    )


def _draw_furniture(rng: np.random.Generator) -> list[StreetObject]:
    objects = []
    for _ in range(int(rng.integers(3, 8))):
        kind = rng.choice(list(_FURNITURE), p=list(_FURNITURE.values()))
        x_m = rng.uniform(-20, 20)
        if any(abs(o.x_m - x_m) < _BETWEEN_FURNITURE_M for o in objects):
            continue
        front_m = rng.uniform(1.6, 2.8)
        seed = int(rng.integers(1 << 30))
        objects.append(StreetObject(str(kind), x_m, front_m, seed))
    return objects
