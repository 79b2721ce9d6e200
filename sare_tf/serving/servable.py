"""The exported model as a callable: encoded images in, descriptors out.

Everything right of `export` embeds through this module, so that the model that
is evaluated is the model that is served:

    servable = serving.load("runs/demo/export")        # in this process
    servable = serving.load("grpc://localhost:8500")   # on a TF Serving
    descriptors, valid = servable([photo.read_bytes()])
    descriptors, errors = servable.embed_files(paths)

It needs TensorFlow only, neither Keras nor the code of the model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from sare_tf.runtime import file_digests, sealed_json
from sare_tf.runtime.damage import Damaged
from sare_tf.serving import export_folder
from sare_tf.serving.file_embedding import EmbedsFiles
from sare_tf.serving.options import ServableOptions
from sare_tf.serving.remote import RemoteServable
from sare_tf.serving.server import Server

_OUTPUTS = ["descriptor", "fingerprint", "valid"]


class Servable(EmbedsFiles):
    """A loaded SavedModel.

    Call arguments:
        image_bytes: JPEG or PNG bytes of B images; B may be 0.

    Output:
        Float32 [B, dimension], rows of unit length, and bool [B], whether each
        image could be decoded. The row of an image that could not is all zeros.

    Attributes:
        path: the folder.
        source: the absolute path, for `load` on other machines.
        metadata: sare_tf.json of the export.
        dimension: the descriptor length.
        fingerprint: hex digest of the model.

    Args:
        path: folder of one version, holding `saved_model.pb`.

    Raises:
        FileNotFoundError: sare_tf.json is absent.
        Damaged: a file is, or the model has other outputs.
    """

    def __init__(self, path: Path):
        self.path = path
        self.source = path.resolve()
        self.metadata = _metadata(path)
        # Keeps the object alive: signatures hold only weak references to it.
        self._model = _load(path, self.metadata)
        self._serve = self._model.signatures["serving_default"]
        outputs = sorted(self._serve.structured_outputs)
        if outputs != _OUTPUTS:
            raise Damaged(
                f"Expected an export with the outputs {', '.join(_OUTPUTS)}. "
                f"Received: export={str(path)!r} with {', '.join(outputs)}. "
                f"Run {export_folder.COMMAND} again.",
                path=path,
            )
        self.dimension = self.metadata["dimension"]
        self.fingerprint = self.metadata["fingerprint"]

    def __call__(
        self, image_bytes: Sequence[bytes]
    ) -> tuple[np.ndarray, np.ndarray]:
        images = tf.constant(list(image_bytes), tf.string)
        outputs = self._serve(image_bytes=images)
        return outputs["descriptor"].numpy(), outputs["valid"].numpy()


def load(export: str | Path | Server) -> Servable | RemoteServable:
    """Loads an export, or connects to a server that has loaded one.

    Args:
        export: folder with numbered versions, of which the highest is loaded;
            or the folder of one version; or a TF Serving, by its address or as
            a `Server`.

    Returns:
        A callable: bytes of B images -> descriptors, float32 [B, D], and bool
        [B], whether each image could be decoded.

    Raises:
        FileNotFoundError: no finished export is there.
        ImportError, ConnectionError, TimeoutError, ValueError: as
            `RemoteServable`.
    """
    if isinstance(export, Server):
        return RemoteServable(export)
    if "://" in str(export):
        return RemoteServable(Server(address=str(export)))
    return Servable(export_folder.version_of(Path(export)))


# Its name in `sare_tf`, where there is more to load than exports.
load_export = load


def named(options: ServableOptions) -> str | Server:
    """Returns the server that options name, or else the export, for `load`.

    If options name both, and the export exists, the server must have the same
    model.
    """
    if not options.server:
        return options.export
    fingerprint = None
    try:
        if options.export:
            metadata = _metadata(export_folder.version_of(Path(options.export)))
            fingerprint = metadata["fingerprint"]
    except FileNotFoundError:
        logging.info(
            "%s is used instead of --export=%s, which does not exist.",
            options.server,
            options.export,
        )
    return Server(
        address=options.server,
        root_certificates=options.server_root_certificates,
        certificate=options.server_certificate,
        private_key=options.server_private_key,
        images_per_request=options.server_images_per_request,
        requests_in_flight=options.server_requests_in_flight,
        request_timeout_s=options.server_request_timeout_s,
        timeout_s=options.server_timeout_s,
        fingerprint=fingerprint,
    )


def _metadata(path: Path) -> dict:
    """Reads sare_tf.json of a version."""
    return sealed_json.read(
        path / "sare_tf.json",
        made_by=export_folder.COMMAND,
        types={"dimension": int, "fingerprint": str},
    )


def _load(path: Path, metadata: dict[str, Any]) -> Any:
    """Loads the SavedModel of a version, once its files are compared.

    Raises:
        Damaged: a file is, or the model has no such signature.
    """
    try:
        file_digests.check(path, metadata.get("digests", {}))
        model = tf.saved_model.load(str(path))
        if "serving_default" not in model.signatures:
            raise ValueError("it has no signature serving_default")
    except Exception as error:  # A damaged model raises errors of any kind.
        reason = str(error).partition("\n")[0]
        raise Damaged(
            f"Expected a whole export. Received: export={str(path)!r} "
            f"({reason}). Delete it and run {export_folder.COMMAND} again.",
            path=path,
        ) from error
    return model
