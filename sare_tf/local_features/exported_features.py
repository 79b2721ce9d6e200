"""A SavedModel of local features, that `export_local_features` writes."""

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from sare_tf.local_features.features import LocalFeatures
from sare_tf.runtime import file_digests, sealed_json
from sare_tf.serving import export_folder

COMMAND = "python -m sare_tf.export_local_features"
_OUTPUTS = ["fingerprint", "keypoints", "scores", "size", "valid", "vectors"]
# Images of a call, which are decoded together. Ours.
_BATCH_SIZE = 8


class ExportedFeatures:
    """Finds local features by an export. An `Extractor`.

    Args:
        path: folder with numbered versions, or of one version.

    Raises:
        FileNotFoundError: no finished export is there.
        ValueError: it is damaged, or of descriptors.
    """

    def __init__(self, path: str | Path):
        if not Path(path).is_dir():
            raise FileNotFoundError(
                "Expected rootsift, xfeat or the folder of an export of local "
                f"features. Received: {str(path)!r}, which does not exist. Run "
                f"{COMMAND} first."
            )
        version = export_folder.version_of(Path(path))
        card = sealed_json.read(
            version / "sare_tf.json",
            made_by=COMMAND,
            types={"fingerprint": str, "dimension": int},
        )
        if "local_features" not in card:
            raise ValueError(
                "Expected an export of local features. Received: "
                f"{str(path)!r}, which is of descriptors. Run {COMMAND}, and "
                "name its folder."
            )
        self.name = card["local_features"]
        self.fingerprint = card["fingerprint"]
        self.count = card["count"]
        self.dimension = card["dimension"]
        self._model = _load(version, card)
        self._serve = self._model.signatures["serving_default"]

    def __call__(self, encoded: Sequence[bytes]) -> list[LocalFeatures]:
        """Finds the features of encoded images."""
        features = []
        for start in range(0, len(encoded), _BATCH_SIZE):
            batch = tf.constant(encoded[start : start + _BATCH_SIZE])
            outputs = self._serve(image_bytes=batch)
            outputs = {name: value.numpy() for name, value in outputs.items()}
            for row, (height, width) in enumerate(outputs["size"].tolist()):
                features.append(
                    LocalFeatures(
                        keypoints=outputs["keypoints"][row],
                        vectors=outputs["vectors"][row],
                        scores=outputs["scores"][row],
                        valid=outputs["valid"][row],
                        width=width,
                        height=height,
                    )
                )
        return features


def _load(version: Path, card: dict) -> tf.Module:
    """Loads the SavedModel of a version, once its files are compared.

    Raises:
        ValueError: a file is damaged, or the model has other outputs.
    """
    try:
        file_digests.check(version, card["digests"])
        model = tf.saved_model.load(str(version))
        outputs = model.signatures["serving_default"].structured_outputs
        if sorted(outputs) != _OUTPUTS:
            raise ValueError(f"it has the outputs {', '.join(sorted(outputs))}")
    except Exception as error:  # A damaged model raises errors of any kind.
        reason = str(error).partition("\n")[0]
        raise ValueError(
            "Expected a whole export of local features. Received: "
            f"{str(version)!r} ({reason}). Delete it and run {COMMAND} again."
        ) from error
    return model
