"""Options of `locate`."""

import dataclasses
import os
from typing import Any, ClassVar

from sare_tf.dataset.options import RadiusOptions
from sare_tf.local_features.registry import EXTRACTORS
from sare_tf.pages import map_tiles
from sare_tf.records.options import RecordsFolderOptions
from sare_tf.runtime.common_options import BatchOptions
from sare_tf.runtime.options import Options, option, options, path_option
from sare_tf.search.landmark_options import RERANKERS
from sare_tf.search.options import (
    NeighbourOptions,
    PartOptions,
    PhotoFolderOptions,
    PositionFileOptions,
    PriorOptions,
    RerankOptions,
    SearchOptions,
)
from sare_tf.sequences.options import TrackOptions
from sare_tf.serving.options import ServableOptions


@options
class ServeOptions(Options):
    """What the server of `locate --serve` holds at a time."""

    upload_mebibytes: int = option(
        20, "Largest size of a photograph sent to --serve.", minimum=1
    )
    serve_batch: int = option(
        8,
        "Photographs of several clients that --serve answers together, at "
        "most.",
        minimum=1,
    )
    serve_waiting: int = option(
        64,
        "Photographs that may wait at --serve; more are refused with 503.",
        minimum=1,
        maximum=1000,
    )
    serve_within_s: float = option(
        30.0,
        "Seconds within which --serve answers, or refuses with 503.",
        minimum=0.1,
    )


@options
class LocateOptions(
    SearchOptions,
    PartOptions,
    RerankOptions,
    NeighbourOptions,
    PositionFileOptions,
    PriorOptions,
    ServableOptions,
    RecordsFolderOptions,
    PhotoFolderOptions,
    RadiusOptions,
    BatchOptions,
    TrackOptions,
    ServeOptions,
):
    """Options of `locate`."""

    TAKES_PARTS: ClassVar = True

    photos: tuple[str, ...] = path_option(
        (),
        "JPEG or PNG files, folders of them, or patterns.",
        has_flag=False,
    )
    picture: str | None = path_option(
        None,
        "PNG file in which locate draws photographs and their matches; needs "
        "--records.",
    )
    reject_below: float = option(
        0.0,
        "Declare a photograph not to be in the database if answers of its "
        "confidence are right less often than this, such as 0.5. Needs an "
        "index that evaluate --calibrate has measured, with --rerank if this "
        "is given. 0: never.",
        minimum=0,
        maximum=1,
    )
    keep_warm: bool = option(
        False,
        "Let a process with the loaded index and model answer, and leave it "
        "running for later calls with the same flags, which then take a "
        "fraction of the time.",
    )
    keep_warm_minutes: float = option(
        10.0,
        "Idle minutes after which the process of --keep_warm ends.",
        minimum=0.01,
        maximum=10_000,
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
    map_tiles: str | None = option(
        None,
        "Streets that the page of --serve offers to draw below its map: "
        "openstreetmap, or the address of tiles with {z}, {x} and {y}. Who "
        "asks for them on the page tells that server where the map is. None: "
        "the page loads nothing from other servers.",
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.photo_folder:
            self.require("index")
            self.require_model()
        elif self.reject_below:
            # Without known places, no answer can be measured.
            raise ValueError(
                "Expected an index with a calibration for --reject_below. "
                f"Received: photos={str(self.photo_folder)!r}, whose index has "
                "none. Leave out --reject_below, or evaluate an index of your "
                "own with --calibrate."
            )
        self._check_rerank()
        self._check_parts()
        if self.prior is not None and (self.serve or self.reject_below):
            raise ValueError(
                "Expected no prior with "
                + (
                    "--serve, whose page has fields for it. "
                    if self.serve
                    else "--reject_below: how often answers are right was "
                    "measured without one. "
                )
                + f"Received: a search {self.prior.as_text()}. Leave out one "
                "of the two."
            )
        if self.map_tiles is not None:
            map_tiles.named(self.map_tiles)
        if self.sequence:
            self._check_sequence()
        elif self.serve:
            if not (self.photo_folder or self._only_parts):
                self.require("records")
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
        elif self.picture is not None and not (
            self.records or self.photo_folder or self._only_parts
        ):
            raise ValueError(
                "Expected the records of the index for a picture of matches. "
                "Received: records=None. Give --records."
            )

    def _check_rerank(self) -> None:
        if self.rerank in RERANKERS:
            raise ValueError(
                "Expected local features to re-rank a photograph: rootsift, "
                "xfeat or an export. Received: "
                f"rerank={self.rerank!r}, which evaluate takes."
            )

    def _check_parts(self) -> None:
        """Refuses what needs the descriptors, which stay with the parts."""
        for name, why in (
            ("sequence", "needs the distances of all images"),
            ("keep_warm", "compares index.json with that of its process"),
        ):
            if self.index_parts and getattr(self, name):
                raise ValueError(
                    f"Expected folders as --index with --{name}, which {why}. "
                    f"Received: index={self.index_parts[0]!r}. Leave out one "
                    "of the two."
                )

    @property
    def _only_parts(self) -> bool:
        """Whether other processes search all of the index."""
        return bool(self.index) and self.index_parts == self.index_paths

    def _check_sequence(self) -> None:
        others = ("photos", "serve", "picture", "rerank", "reject_below")
        given = [name for name in (*others, "keep_warm") if getattr(self, name)]
        if given:
            raise ValueError(
                "Expected --sequence without "
                + ", ".join(others[1:])
                + ", keep_warm and photographs of its own. Received: sequence="
                f"{self.sequence!r}, {given[0]}={getattr(self, given[0])!r}. "
                "Leave out one of the two."
            )

    @property
    def warm_settings(self) -> dict[str, Any]:
        """What a process of --keep_warm loads, for `warm_server.load`."""
        servable = dataclasses.asdict(self.part(ServableOptions))
        rerank = dataclasses.asdict(self.part(RerankOptions))
        for part, values in (
            (ServableOptions, servable),
            (RerankOptions, rerank),
        ):
            for field in dataclasses.fields(part):
                value = values[field.name]
                # The process has a working folder of its own.
                is_path = field.metadata["expand"] and value is not None
                if is_path and value not in EXTRACTORS:
                    values[field.name] = os.path.abspath(value)
        return {
            "index": [os.path.abspath(path) for path in self.index_paths],
            "servable": servable,
            "rerank": rerank if self.rerank else None,
            "exact": self.exact_search,
            "check": self.check_index,
            "positive_radius_m": self.positive_radius_m,
            "reject_below": self.reject_below,
        }
