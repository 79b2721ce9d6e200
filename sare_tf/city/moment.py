"""When and from where a picture is taken: month, weather, hour and view.

The constants decide how much pictures of one place differ. Larger values make
the city harder.
"""

import dataclasses

import numpy as np

POSITION_M = 1.9  # standard deviation along the street
YAW_DEG = 6.5  # standard deviation of the heading
ZOOM = (0.88, 1.22)  # focal length, relative
NIGHT = 0.05  # share of pictures after dusk

# Weather -> share of pictures.
WEATHER = {
    "clear": 0.4,
    "overcast": 0.32,
    "rain": 0.14,
    "fog": 0.06,
    "snow": 0.08,
}


@dataclasses.dataclass(frozen=True)
class Moment:
    """The time, weather and view of a picture.

    Attributes:
        x_m: position of the camera along the street.
        back_m: distance of the camera behind its usual line.
        yaw_deg: heading, positive to the right of straight across.
        pitch_deg: positive upwards.
        zoom: focal length, relative.
        month: 1 to 12.
        weather: a key of `WEATHER`.
        night: whether it is after dusk.
    """

    x_m: float
    back_m: float
    yaw_deg: float
    pitch_deg: float
    zoom: float
    month: int
    weather: str
    night: bool


def draw_moment(rng: np.random.Generator) -> Moment:
    """Draws a time, a weather and a view. It snows from November to March."""
    month = int(rng.integers(1, 13))
    weather = str(rng.choice(list(WEATHER), p=list(WEATHER.values())))
    if weather == "snow" and 3 < month < 11:
        weather = "overcast"
    return Moment(
        x_m=float(np.clip(rng.normal(0, POSITION_M), -5, 5)),
        back_m=float(rng.uniform(-1.2, 1.2)),
        yaw_deg=float(np.clip(rng.normal(0, YAW_DEG), -24, 24)),
        pitch_deg=float(rng.normal(7, 1.5)),
        zoom=float(rng.uniform(*ZOOM)),
        month=month,
        weather=weather,
        night=bool(rng.random() < NIGHT),
    )
