"""The exported model as a callable: encoded images in, descriptors out.

Everything right of `export` embeds through this module, so that what is
evaluated is what is served. It needs TensorFlow alone, neither Keras nor the
model's code.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from sare_tf import files

_COMMAND = "python -m sare_tf.export --flagfile=..."


class Servable:
    """A loaded SavedModel.

    Call arguments:
        image_bytes: JPEG or PNG bytes of B images; B may be 0.

    Output:
        float32 [B, dimension], rows of unit length, and bool [B], whether an
        image could be decoded. Where it could not its row is all zeros.

    Args:
        path: folder of one version, holding `saved_model.pb`.

    Raises:
        ValueError: the model has other outputs.
    """

    def __init__(self, path: Path):
        self.path = path
        self.metadata = files.read_json(path / "sare_tf.json", made_by=_COMMAND)
        self.dimension = int(self.metadata["dimension"])
        variables = sorted((path / "variables").iterdir())
        self.fingerprint = files.fingerprint(
            [path / "saved_model.pb", *variables], relative_to=path
        )
        # Keeps the object alive: signatures hold only weak references to it.
        self._model = tf.saved_model.load(str(path))
        self._serve = self._model.signatures["serving_default"]
        outputs = sorted(self._serve.structured_outputs)
        if outputs != ["descriptor", "valid"]:
            raise ValueError(
                "Expected an export with the outputs descriptor and valid. "
                f"Received: export={str(path)!r} with {', '.join(outputs)}. "
                f"Run {_COMMAND} again."
            )

    def __call__(
        self, image_bytes: Sequence[bytes]
    ) -> tuple[np.ndarray, np.ndarray]:
        images = tf.constant(list(image_bytes), tf.string)
        outputs = self._serve(image_bytes=images)
        return outputs["descriptor"].numpy(), outputs["valid"].numpy()


def load(export: str | Path) -> Servable:
    """Loads an export.

    Args:
        export: folder with numbered versions, of which the highest is taken,
            or the folder of one version.

    Raises:
        FileNotFoundError: no finished export is there.
    """
    export = Path(export)
    path = export
    if not (path / "saved_model.pb").is_file():
        versions = [
            child
            for child in (export.iterdir() if export.is_dir() else [])
            if child.name.isdigit() and (child / "saved_model.pb").is_file()
        ]
        if not versions:
            raise FileNotFoundError(
                "Expected an export: a folder with numbered versions, each "
                f"holding saved_model.pb. Received: export={str(export)!r}. "
                f"Run {_COMMAND} first."
            )
        path = max(versions, key=lambda child: int(child.name))
    return Servable(path)
