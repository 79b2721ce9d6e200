"""Options of records: building them, and writing them in other layouts."""

from typing import ClassVar

from sare_tf.dataset.options import DatasetOptions, PositivesOptions
from sare_tf.runtime import network_address, remote_files
from sare_tf.runtime.common_options import (
    OutOptions,
    RunnerOptions,
    WorkerOptions,
)
from sare_tf.runtime.options import Options, option, options, path_option

DATASET_LAYOUTS = ("at_names", "openibl", "hloc")
VECTOR_LAYOUTS = ("hloc", "kapture", "msls", "numpy", "parquet", "vertex")


@options
class RecordsFolderOptions(Options):
    """The records."""

    records: str | None = path_option(
        None,
        "Folder of the built records. Where they are only read it may be "
        "remote: https://host/folder, or gs://bucket/folder.",
    )


@options
class TuplesFolderOptions(Options):
    """The tuple records."""

    tuples: str | None = path_option(
        None,
        "Folder of tuple records, to train on instead of mining. It may be "
        "remote, such as gs://bucket/folder.",
    )


@options
class RecordOptions(
    RecordsFolderOptions,
    TuplesFolderOptions,
    DatasetOptions,
    PositivesOptions,
    WorkerOptions,
    RunnerOptions,
):
    """Options of `build_records`."""

    tuple_list: str | None = path_option(
        None,
        "List of training tuples, .parquet or .csv. build_records makes "
        "--tuples of it and --records, and reads no --dataset. Training leaves "
        "such a list in the folder of each epoch that it keeps.",
    )
    shard_mebibytes: int = option(128, "Target size of one shard.", minimum=1)
    verify: bool = option(
        False,
        "Instead of building records, read all of --records and compare them "
        "with what was built.",
    )
    verify_images: bool = option(
        True,
        "Decode each image when records are built, to refuse those that cannot "
        "be decoded. Without it, only the size in their header is read.",
    )
    resize_to: int = option(
        0,
        "Longest side of stored images, in pixels; larger ones are stored as "
        "smaller JPEGs, upright. 0: no limit.",
        minimum=0,
    )
    reencode_quality: int = option(
        0,
        "JPEG quality, 1 to 100, to encode every stored image with, upright. "
        "0: files are stored unchanged, and resized images with 95.",
        minimum=0,
        maximum=100,
    )

    REQUIRED: ClassVar = ("records",)

    def __post_init__(self):
        super().__post_init__()
        if self.tuple_list is not None:
            self.require("records", "tuples")
        elif not self.verify:
            self.require("dataset", "records")
        built = self.records if self.verify else self.written
        if built is not None and remote_files.is_remote(built):
            raise ValueError(
                "Expected a folder on a disk to build or verify. Received: "
                f"{built!r}. Build it on a disk, and copy it there."
            )

    @property
    def written(self) -> str | None:
        """The folder that is written."""
        if self.verify:
            return None
        return self.tuples if self.tuple_list is not None else self.records


@options
class LayoutOptions(Options):
    """The layout of another project."""

    # The layouts that the stage of the class writes.
    LAYOUTS: ClassVar[tuple[str, ...]] = ()

    layout: str = option(
        "at_names",
        "Layout that export_dataset (the first three) or export_vectors (the "
        "last six) writes to --out.",
        choices=tuple(dict.fromkeys(DATASET_LAYOUTS + VECTOR_LAYOUTS)),
    )

    def __post_init__(self):
        super().__post_init__()
        if self.layout not in self.LAYOUTS:
            raise ValueError(
                f"Expected a layout: {', '.join(self.LAYOUTS)}. Received: "
                f"layout={self.layout!r}."
            )


@options
class ExportDatasetOptions(RecordsFolderOptions, OutOptions, LayoutOptions):
    """Options of `export_dataset`."""

    LAYOUTS: ClassVar = DATASET_LAYOUTS
    REQUIRED: ClassVar = ("records", "out")


@options
class DataServiceOptions(Options):
    """Options of `data_service`."""

    service_port: int = option(
        0,
        "Port of the process of data_service; 0: any that is free.",
        minimum=0,
        maximum=65535,
    )
    dispatcher: str | None = option(
        None,
        "Address of the dispatcher that a worker of data_service works for, "
        "such as grpc://host:5050. Default: be the dispatcher.",
    )
    service_host: str | None = option(
        None,
        "Name or address by which other machines reach this process of "
        "data_service. Default: the name of the machine, or localhost where "
        "the dispatcher is on it.",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.dispatcher is not None:
            network_address.parse(self.dispatcher)
