"""Options of an export, in this process or on a TF Serving."""

from typing import ClassVar

from sare_tf.runtime.common_options import OutOptions
from sare_tf.runtime.options import Options, option, options, path_option


@options
class ExportFolderOptions(Options):
    """The export."""

    export: str | None = path_option(None, "Folder of the exported SavedModel.")


@options
class ServableOptions(ExportFolderOptions):
    """The model that embeds images: an export, or the same on a server."""

    server: str | None = option(
        None,
        "TF Serving that embeds images for index, evaluate and locate, instead "
        "of --export: grpc://host:8500, http://host:8501, with TLS grpcs:// or "
        "https://. Add /v1/models/NAME for a model that is not named sare_tf, "
        "and /versions/N or /labels/LABEL for one version. If --export exists "
        "as well, both must be the same model.",
    )
    server_root_certificates: str | None = path_option(
        None,
        "PEM file of the certificates that --server is trusted by. Default: "
        "the usual ones.",
    )
    server_certificate: str | None = path_option(
        None,
        "PEM file of a certificate to show to --server, if it asks for one.",
    )
    server_private_key: str | None = path_option(
        None, "PEM file, the key of --server_certificate."
    )
    server_images_per_request: int = option(
        8,
        "Images of a request to --server; at most its max_batch_size.",
        minimum=1,
    )
    server_requests_in_flight: int = option(
        4,
        "Requests to --server at a time. They share a batch of --batch_size.",
        minimum=1,
    )
    server_request_timeout_s: float = option(
        60.0, "Seconds for a request to --server.", minimum=0
    )
    server_timeout_s: float = option(
        300.0,
        "Seconds for a batch of --batch_size, with all attempts.",
        minimum=0,
    )

    def require_model(self) -> None:
        """Refuses options that name neither a server nor an export.

        Raises:
            ValueError: both are missing.
        """
        if not self.server:
            self.require("export")


@options
class OnnxOptions(ExportFolderOptions, OutOptions):
    """Options of `export_onnx`."""

    REQUIRED: ClassVar = ("export", "out")
