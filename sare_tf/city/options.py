"""Options of the rendered city."""

from typing import ClassVar

from sare_tf.runtime.common_options import (
    ImageSizeOptions,
    OutOptions,
    SeedOptions,
    WorkerOptions,
)
from sare_tf.runtime.options import option, options


@options
class CityOptions(OutOptions, SeedOptions, ImageSizeOptions, WorkerOptions):
    """Options of `synthetic_city`."""

    REQUIRED: ClassVar = ("out",)

    places: int = option(300, "Places of the city.", minimum=1)
    database_per_place: int = option(
        4, "Database pictures of a place.", has_flag=False
    )
    queries_per_place: int = option(
        2, "Query pictures of a place.", has_flag=False
    )
