"""Options of `locate`."""

from typing import ClassVar

from sare_tf.dataset.options import RadiusOptions
from sare_tf.pages import map_tiles
from sare_tf.records.options import RecordsFolderOptions
from sare_tf.runtime.common_options import BatchOptions
from sare_tf.runtime.options import option, options, path_option
from sare_tf.search.options import NeighbourOptions, SearchOptions
from sare_tf.serving.options import ServableOptions


@options
class LocateOptions(
    SearchOptions,
    NeighbourOptions,
    ServableOptions,
    RecordsFolderOptions,
    RadiusOptions,
    BatchOptions,
):
    """Options of `locate`."""

    REQUIRED: ClassVar = ("index",)

    photos: tuple[str, ...] = path_option(
        (),
        "JPEG or PNG files, folders of them, or patterns.",
        has_flag=False,
    )
    json: bool = option(
        False, "Print the answers as JSON, one object per photograph."
    )
    picture: str | None = path_option(
        None,
        "PNG file in which locate draws photographs and their matches; needs "
        "--records.",
    )
    serve: bool = option(
        False,
        "Open a web page that locates the photographs dropped on it; needs "
        "--records and the extra web.",
    )
    host: str = option(
        "127.0.0.1",
        "Address that --serve listens at. Everyone who reaches an address "
        "other than this machine's own sees the database's images.",
    )
    port: int = option(
        8008, "Port of --serve; 0: any.", minimum=0, maximum=65535
    )
    upload_mebibytes: int = option(
        20, "Largest size of a photograph sent to --serve.", minimum=1
    )
    map_tiles: str | None = option(
        None,
        "Streets that the page of --serve offers to draw below its map: "
        "openstreetmap, or the address of tiles with {z}, {x} and {y}. Who "
        "asks for them on the page tells that server where the map is. None: "
        "the page loads nothing from other servers.",
    )

    def __post_init__(self):
        super().__post_init__()
        self.require_model()
        if self.map_tiles is not None:
            map_tiles.named(self.map_tiles)
        if self.serve:
            self.require("index", "records")
            if self.photos:
                raise ValueError(
                    "Expected no photographs with --serve: they are sent to "
                    f"the page. Received: {self.photos[0]!r}. Leave out one of "
                    "the two."
                )
        elif not self.photos:
            raise ValueError(
                "Expected at least one photograph. Received: photos=[]. Name "
                "files, folders or patterns after the flags."
            )
        elif self.picture is not None and self.records is None:
            raise ValueError(
                "Expected the records of the index for a picture of matches. "
                "Received: records=None. Give --records."
            )
