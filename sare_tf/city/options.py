"""Options of the rendered city."""

from typing import ClassVar

from sare_tf.runtime.common_options import (
    ImageSizeOptions,
    OutOptions,
    SeedOptions,
    WorkerOptions,
)
from sare_tf.runtime.options import option, options

# Two places for each of val and test, and as many for train as a batch needs.
_MIN_PLACES = 10
_MIN_PIXELS = 32


@options
class CityOptions(OutOptions, SeedOptions, ImageSizeOptions, WorkerOptions):
    """Options of `synthetic_city`."""

    REQUIRED: ClassVar = ("out",)

    places: int = option(300, "Places of the city.", minimum=1)
    database_per_place: int = option(
        4, "Database pictures of a place.", minimum=1, has_flag=False
    )
    queries_per_place: int = option(
        2, "Query pictures of a place.", minimum=1, has_flag=False
    )

    def __post_init__(self):
        super().__post_init__()
        for name, minimum in (
            ("places", _MIN_PLACES),
            ("image_width", _MIN_PIXELS),
            ("image_height", _MIN_PIXELS),
        ):
            if getattr(self, name) < minimum:
                raise ValueError(
                    f"Expected {name} to be at least {minimum} for a city. "
                    f"Received: {name}={getattr(self, name)}."
                )
