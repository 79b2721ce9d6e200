"""All pictures of one place, with the names that `readers.at_names` reads."""

import math

import numpy as np

from sare_tf.city.districts import SPLITS, Position
from sare_tf.city.moment import Moment, draw_moment
from sare_tf.city.options import CityOptions
from sare_tf.city.place import paint_place
from sare_tf.city.rendering import render

_ZONE = "32@T"
# Standard deviation and largest error of the coordinates in the names, on each
# axis.
_GPS_M = 1.6
_GPS_MAX_M = 4.0


def place_pictures(
    options: CityOptions, split: str, number: int, position: Position
) -> list[tuple[str, bytes]]:
    """Renders the database and query pictures of a place.

    Each is taken at a time of its own.

    Args:
        options: number and size of the pictures, and the seed of the city.
        split: district of the place.
        number: number of the place in its district.
        position: position of the place.

    Returns:
        The name below `images`, and the JPEG, of each picture.
    """
    seed = (options.seed, SPLITS.index(split), number)
    place = paint_place(seed)
    rng = np.random.default_rng((*seed, 1))
    pictures = []
    for role, count in (
        ("database", options.database_per_place),
        ("queries", options.queries_per_place),
    ):
        for view in range(count):
            moment = draw_moment(rng)
            encoded = render(
                place,
                moment,
                rng,
                width=options.image_width,
                height=options.image_height,
            )
            picture_id = f"{split}{number:04d}{role[0]}{view}"
            name = _name(moment, position, picture_id, rng)
            pictures.append((f"{split}/{role}/{name}", encoded))
    return pictures


def _name(
    moment: Moment,
    position: Position,
    picture_id: str,
    rng: np.random.Generator,
) -> str:
    """The name, which holds what a GPS receiver would report."""
    right = math.radians(position.heading_deg + 90)
    error = np.clip(rng.normal(0, _GPS_M, 2), -_GPS_MAX_M, _GPS_MAX_M)
    east_m = position.east_m + moment.x_m * math.sin(right) + error[0]
    north_m = position.north_m + moment.x_m * math.cos(right) + error[1]
    heading = round(position.heading_deg + moment.yaw_deg) % 360
    day = int(rng.integers(1, 29))
    hour = 21 if moment.night else int(rng.integers(8, 18))
    year = int(rng.integers(2019, 2025))
    timestamp = f"{year}{moment.month:02d}{day:02d}_{hour:02d}0000"
    note = "night" if moment.night else moment.weather
    return (
        f"@{east_m:010.2f}@{north_m:010.2f}@{_ZONE}@@@{picture_id}"
        f"@@{heading:03d}@{round(moment.pitch_deg):03d}@@@{timestamp}@{note}"
        "@.jpg"
    )
