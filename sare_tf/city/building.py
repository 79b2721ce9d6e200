"""The parameters of a building: size, storeys, material and colours."""

import dataclasses

import numpy as np

# Material -> share of buildings, and colours of walls from 0 to 255.
_MATERIALS = {
    "brick": (
        0.3,
        [(150, 74, 56), (128, 62, 50), (172, 104, 78), (110, 70, 62)],
    ),
    "plaster": (
        0.4,
        [
            (222, 206, 176), (206, 182, 140), (196, 150, 128), (178, 194, 190),
            (226, 222, 212), (214, 172, 108), (160, 176, 150), (190, 160, 172),
        ],
    ),
    "stone": (0.18, [(176, 168, 152), (146, 142, 134), (196, 184, 158)]),
    "panel": (0.12, [(120, 128, 136), (88, 96, 106), (158, 150, 138)]),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Building:
    """A building of the strip.

    Attributes:
        x_m: left edge.
        width_m: along the street.
        material: a key of `_MATERIALS`.
        wall: colour of the wall, float [3] from 0 to 255.
        trim: colour of frames and ledges, float [3] from 0 to 255.
        storeys: number of storeys with the ground floor, 2 to 5.
        ground_m: height of the ground floor.
        storey_m: height of each other storey.
    """

    x_m: float
    width_m: float
    material: str
    wall: np.ndarray
    trim: np.ndarray
    storeys: int
    ground_m: float
    storey_m: float

    @property
    def top_m(self) -> float:
        """The height of the wall, without the roof."""
        return self.ground_m + (self.storeys - 1) * self.storey_m


def draw_building(
    rng: np.random.Generator, *, x_m: float, width_m: float
) -> Building:
    """Draws the parameters of a building."""
    shares = [share for share, _ in _MATERIALS.values()]
    material = str(rng.choice(list(_MATERIALS), p=shares))
    _, colours = _MATERIALS[material]
    wall = np.array(colours[int(rng.integers(len(colours)))], float)
    wall = wall * rng.normal(1, 0.07) * rng.normal(1, 0.03, 3)
    wall = np.clip(wall, 20, 245)
    storeys = int(rng.integers(2, 6))
    ground_m = rng.uniform(3.2, 4.3)
    storey_m = rng.uniform(2.8, 3.5)
    trim = wall * rng.choice([0.62, 1.25]) + rng.normal(0, 8, 3)
    return Building(
        x_m=x_m,
        width_m=width_m,
        material=material,
        wall=wall,
        trim=np.clip(trim, 15, 250),
        storeys=storeys,
        ground_m=ground_m,
        storey_m=storey_m,
    )
