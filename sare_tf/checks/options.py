"""Options of `check`."""

from sare_tf.dataset.options import (
    DatasetOptions,
    TrainPositivesOptions,
)
from sare_tf.evaluation.options import ProtocolOptions
from sare_tf.records.options import RecordsFolderOptions
from sare_tf.runtime.common_options import ImageSizeOptions, WorkerOptions
from sare_tf.runtime.options import option, options, path_option


@options
class CheckOptions(
    DatasetOptions,
    RecordsFolderOptions,
    ProtocolOptions,
    TrainPositivesOptions,
    ImageSizeOptions,
    WorkerOptions,
):
    """Options of `check`."""

    check_of: str = option(
        "auto",
        "What check checks. auto: --dataset if that folder exists, else "
        "--records.",
        choices=("auto", "dataset", "records"),
    )
    check_images: bool = option(
        True,
        "Read and decode every image. Without it, or if no image of a list "
        "exists, only the list is checked.",
    )
    findings: str = path_option("findings", "Folder of the findings of check.")
