"""Options of importing trained weights, and of writing them for others."""

from typing import ClassVar

from sare_tf.dataset.options import (
    DatasetOptions,
    PositivesOptions,
)
from sare_tf.model.options import (
    CheckpointsFolderOptions,
    ModelOptions,
    WhiteningOptions,
)
from sare_tf.runtime.common_options import (
    BatchOptions,
    ImageSizeOptions,
    LocalFeatureOptions,
    OutOptions,
)
from sare_tf.runtime.options import (
    Options,
    option,
    options,
    path_option,
    with_default,
)
from sare_tf.weights.formats import FORMATS, WRITTEN_FORMATS


@options
class FormatOptions(Options):
    """The format of a file of weights."""

    format: str = option(
        "auto",
        "Whose format --source has, or export_weights writes. auto: detected "
        "from the content of --source.",
        choices=("auto", *FORMATS),
    )


@options
class SourceOptions(Options):
    """The file of trained weights."""

    source: str | None = path_option(
        None,
        "File of trained weights that import_weights or export_local_features "
        "reads.",
    )


@options
class ImportOptions(
    OutOptions,
    SourceOptions,
    FormatOptions,
    ImageSizeOptions,
    DatasetOptions,
    PositivesOptions,
    BatchOptions,
):
    """Options of `import_weights`."""

    REQUIRED: ClassVar = ("source", "out")

    pca: str | None = path_option(
        None, "PCA that lies beside a training of OpenIBL, pca_params_*.h5."
    )
    vocabulary: str | None = path_option(
        None,
        "File of AnyLoc's vocabulary, *_c_centers.pt, beside a backbone of "
        "DINOv2 as --source.",
    )
    # None: as the source has it.
    image_height: int | None = with_default(
        ImageSizeOptions, "image_height", None
    )
    image_width: int | None = with_default(
        ImageSizeOptions, "image_width", None
    )
    aggregation: str | None = with_default(ModelOptions, "aggregation", None)
    whitening_dimension: int | None = with_default(
        WhiteningOptions, "whitening_dimension", None
    )


@options
class LocalExportOptions(OutOptions, SourceOptions, LocalFeatureOptions):
    """Options of `export_local_features`."""


@options
class ExportWeightsOptions(CheckpointsFolderOptions, OutOptions, FormatOptions):
    """Options of `export_weights`."""

    REQUIRED: ClassVar = ("checkpoints", "out")

    epoch: str | None = path_option(
        None, "Folder of the epoch; the best one by default.", has_flag=False
    )

    def __post_init__(self):
        super().__post_init__()
        if self.format not in WRITTEN_FORMATS:
            raise ValueError(
                f"Expected one of {', '.join(WRITTEN_FORMATS)}. Received: "
                f"format={self.format!r}. Give --format."
            )
