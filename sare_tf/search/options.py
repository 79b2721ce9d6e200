"""Options of an index: building, changing and searching it."""

import dataclasses
from typing import ClassVar

from sare_tf.dataset.options import SplitOptions
from sare_tf.local_features.registry import GEOMETRIES
from sare_tf.records.options import (
    VECTOR_LAYOUTS,
    LayoutOptions,
    RecordsFolderOptions,
)
from sare_tf.runtime import paths
from sare_tf.runtime.common_options import (
    BatchOptions,
    LocalFeatureOptions,
    OutOptions,
    RunnerOptions,
    WeightsOptions,
)
from sare_tf.runtime.options import Options, option, options, path_option
from sare_tf.search import position_files
from sare_tf.search import region as regions
from sare_tf.search.index_folders import PartAddress, is_address
from sare_tf.search.landmark_options import StoredNeighbourOptions
from sare_tf.search.prior import Prior
from sare_tf.serving.options import ServableOptions

# Codes of descriptors on disk, see `search.codes`; what descriptors may be.
CODES = ("int8", "product", "binary")
DTYPES = ("float32", "float16", *CODES)


@options
class IndexFolderOptions(Options):
    """The index."""

    # Whether the index may be in other processes.
    TAKES_PARTS: ClassVar = False

    index: str | None = path_option(
        None,
        "Folder of the index. To search, also a folder of such folders, or "
        "several separated by commas; of locate also http://host:port, where "
        "another locate --serve searches a part.",
        several=True,
    )

    def __post_init__(self):
        super().__post_init__()
        parts = self.index_parts
        if parts and not self.TAKES_PARTS:
            raise ValueError(
                "Expected folders as --index: only locate searches parts in "
                f"other processes. Received: index={parts[0]!r}. Name the "
                "folder that this process serves."
            )

    @property
    def index_paths(self) -> list[str]:
        """The folders and parts to search, for `Index.open`."""
        return paths.split(self.index)

    @property
    def index_parts(self) -> list[str]:
        """The addresses among `index_paths`."""
        if not self.index:
            return []
        return [path for path in self.index_paths if is_address(path)]


@options
class PartOptions(Options):
    """Parts of an index that other processes search."""

    part_timeout_s: float = option(
        PartAddress.timeout_s,
        "Seconds for each answer of a part of --index that another process "
        "searches.",
        minimum=0.01,
    )
    part_start_s: float = option(
        PartAddress.start_s,
        "Seconds to wait for such a part at the start, when it may still be "
        "loading.",
        minimum=0,
    )


@options
class SearchOptions(IndexFolderOptions):
    """How an index is searched."""

    exact_search: bool = option(False, "Search exactly, without ScaNN.")
    check_index: bool = option(
        True,
        "Compare the files of --index with their digests when it is opened, "
        "which reads all of it: about a second for each GB.",
    )


@options
class RerankOptions(RecordsFolderOptions, LocalFeatureOptions):
    """How the images that were found are re-ranked."""

    rerank: str | None = path_option(
        None,
        "Folder of an export that export_local_features wrote, or rootsift, or "
        "xfeat: the images that were found are ordered anew by descriptors and "
        "by local features that agree on one geometry. They are those beside "
        "--index, or else are computed from the images in --records. Of "
        "evaluate, also k_reciprocal, diffusion or offline_diffusion, by "
        "neighbours of neighbours in --index.",
    )
    rerank_top: int = option(
        20, "Images of each answer that --rerank orders anew.", minimum=2
    )
    rerank_geometry: str = option(
        "homography",
        "What local features agree on: homography, of planes and turned "
        "cameras, or fundamental, the matrix of any rigid scene.",
        choices=GEOMETRIES,
    )

    @property
    def rerank_settings(self) -> "RerankOptions | None":
        """These options, or None if nothing is re-ranked."""
        return self.part(RerankOptions) if self.rerank else None


@options
class NeighbourOptions(Options):
    """How many neighbours are found."""

    k: int = option(
        5,
        "Matches to find for a photograph, or neighbours to export.",
        minimum=1,
    )


@options
class PriorOptions(Options):
    """What is known of photographs before they are looked up."""

    near: tuple[float, ...] = option(
        (),
        "LAT,LON: search only images within --within_m of this point, in "
        "degrees.",
    )
    within_m: float | None = option(
        None, "Largest distance from --near, in metres along the ground."
    )
    region: str | None = path_option(
        None,
        "File of GeoJSON: search only images inside its Polygon or "
        "MultiPolygon, cut in two where it crosses the antimeridian.",
    )
    taken_from: str | None = option(
        None,
        "Search only images taken at this time or later, such as 2016, 2016-07 "
        "or 2016-07-31T12:45. Time zones are ignored.",
    )
    taken_until: str | None = option(
        None,
        "Search only images taken until then; 2016-07 ends with that month.",
    )
    conditions: tuple[str, ...] = option(
        (), "Search only images of these conditions, such as day,sunset."
    )
    place_ids: tuple[str, ...] = option(
        (), "Search only images of these places."
    )

    def __post_init__(self):
        super().__post_init__()
        _ = self.prior  # refuses what cannot be searched

    @property
    def prior(self) -> Prior | None:
        """The prior; None if nothing is known.

        Raises:
            FileNotFoundError: there is no file of the region.
            ValueError: see `Prior`.
        """
        given = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(PriorOptions)
            if getattr(self, field.name) not in (None, ())
        }
        if not given:
            return None
        if "region" in given:
            given["region"] = regions.read(given["region"])
        return Prior(**given)


@options
class PhotoFolderOptions(WeightsOptions):
    """A folder of photographs to search in, and what is made of it."""

    photo_folder: str | None = path_option(
        None,
        "Folder of photographs to search in, with or without positions, "
        "instead of --index. locate makes records, a model and an index of it "
        "in --cache, and adds what has changed since.",
        flag="photos",
    )
    cache: str | None = path_option(
        None,
        "Folder in which locate keeps what it makes of --photos, and the files "
        "that it downloads. Default: $SARE_TF_CACHE, or sare_tf in the user's "
        "cache folder.",
    )


@options
class PositionFileOptions(Options):
    """Files of the positions that were found."""

    write_positions: str | None = path_option(
        None,
        "Files of the positions that locate finds for photographs, or evaluate "
        "for queries, with commas between. The ending chooses the format: "
        ".geojson, .kml, .gpx or .csv.",
        several=True,
    )

    def __post_init__(self):
        super().__post_init__()
        position_files.check(position_files.paths_of(self.write_positions))


@options
class TuningOptions(Options):
    """How ScaNN searches, and how its settings are chosen."""

    target_recall: float = option(
        0.0,
        "If above 0, ScaNN is tuned to find this share of the 10 nearest "
        "images as fast as it can. 0: its settings follow rules.",
        minimum=0,
        maximum=1,
    )
    tune_tree: bool = option(
        False,
        "With --target_recall, build three to seven trees, without SOAR, of "
        "coarser codes and of more leaves, and keep the fastest.",
    )
    reorder_from: str = option(
        "memory",
        "Where ScaNN finds the descriptors of the best images, to compare them "
        "again. memory: it holds all as float32, and is fastest. disk: it "
        "holds D / 4 bytes of an image, twice, and reads few descriptors of "
        "the index; always so with codes (--index_dtype).",
        choices=("memory", "disk"),
    )

    def __post_init__(self):
        super().__post_init__()
        if self.tune_tree and not self.target_recall:
            raise ValueError(
                "Expected --target_recall with --tune_tree, which looks for "
                "the fastest tree of that recall. Received: "
                f"target_recall={self.target_recall:g}."
            )


@options
class IndexOptions(
    IndexFolderOptions,
    RecordsFolderOptions,
    ServableOptions,
    SplitOptions,
    BatchOptions,
    RunnerOptions,
    TuningOptions,
    LocalFeatureOptions,
    StoredNeighbourOptions,
):
    """Options of `index`: to build an index, or to change it."""

    CHANGES: ClassVar = ("add_records", "remove_ids", "compact")
    REQUIRED: ClassVar = ("index",)

    index_shard: str = option(
        "0/1",
        "Part of the database to index, such as 0/8, 1/8 and so on to 7/8, "
        "each into its own --index, on its own machine. The folder of all of "
        "them is then the --index to search.",
    )
    index_dtype: str = option(
        "float32",
        "Type of the descriptors on disk: numbers, or codes of 1/4 (int8), "
        "1/16 (product) or 1/32 (binary) of the size of float32. The recall of "
        "codes is measured and logged.",
        choices=DTYPES,
    )
    add_records: str | None = path_option(
        None, "Records whose database images of --split are added to --index."
    )
    remove_ids: str | None = path_option(
        None,
        "Text file of image ids, one a line, that are removed from --index.",
    )
    compact: bool = option(
        False,
        "Rebuild --index from its descriptors, without the removed images.",
    )
    compact_when_stale: float = option(
        0.25,
        "After images were added or removed: share of a part of --index from "
        "which removed images make it worth rebuilding that part. Parts of "
        "added images are then put together, too. 0: only --compact does both.",
        minimum=0,
        maximum=1,
    )
    local_features: str | None = path_option(
        None,
        "Folder of an export that export_local_features wrote, or rootsift, or "
        "xfeat: local features of the images are stored beside --index. The "
        "images come from --records and --add_records.",
    )

    def __post_init__(self):
        changes = [name for name in self.CHANGES if getattr(self, name)]
        if len(changes) > 1:
            raise ValueError(
                "Expected one change at a time. Received: --"
                + ", --".join(changes)
                + ". Run one command after the other."
            )
        super().__post_init__()
        _, shards = self.shard  # refuses a shard that cannot be read
        if self.augment_database and (changes or shards > 1):
            raise ValueError(
                "Expected --augment_database for a whole index that is built: "
                "its images are each other's neighbours. Received: "
                f"augment_database={self.augment_database} with "
                f"{'--' + changes[0] if changes else '--index_shard'}. Leave "
                "out one of the two."
            )
        if not changes:
            self.require("records", "index")
        if self.add_records or not changes:
            self.require_model()

    @property
    def shard(self) -> tuple[int, int]:
        """The number of the shard, from 0, and how many shards there are.

        Raises:
            ValueError: `index_shard` is not of that form.
        """
        number, _, count = self.index_shard.partition("/")
        if not (
            number.isdecimal()
            and count.isdecimal()
            and int(number) < int(count)
        ):
            raise ValueError(
                "Expected a shard: a number from 0, and how many there are, "
                "such as 0/8 to 7/8. Received: index_shard="
                f"{self.index_shard!r}."
            )
        return int(number), int(count)


@options
class VectorOptions(
    IndexFolderOptions,
    RecordsFolderOptions,
    ServableOptions,
    OutOptions,
    LayoutOptions,
    SplitOptions,
    NeighbourOptions,
    BatchOptions,
):
    """Options of `export_vectors`."""

    LAYOUTS: ClassVar = VECTOR_LAYOUTS
    REQUIRED: ClassVar = ("index", "records", "out")

    def __post_init__(self):
        super().__post_init__()
        self.require_model()
