"""Districts of the city: a grid of streets, with places along them.

Train, val and test are districts of their own, kilometres apart.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Share of the places, and where the district begins, in metres east.
_DISTRICTS = {
    "train": (0.84, 500_000.0),
    "val": (0.06, 510_000.0),
    "test": (0.10, 520_000.0),
}
SPLITS = tuple(_DISTRICTS)
_NORTH_M = 4_500_000.0
_BETWEEN_PLACES_M = 60.0


class Position(NamedTuple):
    """The position of a place.

    Attributes:
        east_m: metres east, UTM.
        north_m: metres north, UTM.
        heading_deg: heading of a camera across the street, from north.
    """

    east_m: float
    north_m: float
    heading_deg: float


def place_positions(num_places: int, *, seed: int) -> dict[str, list[Position]]:
    """Lays out the streets of each district, and places along them.

    Args:
        num_places: number of places in all districts.
        seed: seed of the layout.

    Returns:
        The positions of the places of each split.
    """
    counts = {
        split: max(2, math.floor(share * num_places))
        for split, (share, _) in _DISTRICTS.items()
    }
    counts["train"] += num_places - sum(counts.values())
    return {
        split: _district(count, _DISTRICTS[split][1], (seed, number))
        for number, (split, count) in enumerate(counts.items())
    }


def _district(count: int, east_m: float, seed: Sequence[int]) -> list[Position]:
    """Places in a grid of streets that is as large as they need."""
    rng = np.random.default_rng((*seed, 1))
    candidates = _candidates(2 + math.ceil(math.sqrt(count)), rng)
    kept = []
    for index in rng.permutation(len(candidates)):
        east, north, heading = candidates[index]
        if all(
            math.hypot(east - e, north - n) >= _BETWEEN_PLACES_M
            for e, n, _ in kept
        ):
            kept.append((east, north, heading))
        if len(kept) == count:
            break
    return [
        Position(east_m + e, _NORTH_M + n, heading) for e, n, heading in kept
    ]


def _candidates(
    lines: int, rng: np.random.Generator
) -> list[tuple[float, float, float]]:
    """Positions on the sides of the blocks, which are of uneven size.

    They keep away from the crossings, where streets are too close together.
    """
    candidates = []
    for along_north in (False, True):
        across = np.cumsum(rng.uniform(150, 240, lines))
        crossings = np.cumsum(rng.uniform(150, 240, lines))
        for street in across:
            for start, end in zip(crossings[:-1], crossings[1:], strict=True):
                pitch = rng.uniform(62, 75)
                for along in np.arange(start + 45, end - 45, pitch):
                    bend = rng.uniform(-3, 3)
                    side = int(rng.integers(2))
                    if along_north:
                        place = (street + bend, along, 90.0 + 180 * side)
                    else:
                        place = (along, street + bend, 180.0 * side)
                    candidates.append(place)
    return candidates
