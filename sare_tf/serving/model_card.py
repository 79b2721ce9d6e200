"""The name of a model and what made it, for people: pages and results."""

from pathlib import Path
from typing import Any

from sare_tf.serving.remote import RemoteServable
from sare_tf.serving.servable import Servable


def describe(servable: Servable | RemoteServable) -> dict[str, Any]:
    """Describes a model by what its export states.

    Args:
        servable: the model. A TF Serving states only its fingerprint.

    Returns:
        JSON: `name`, the folder or the address; `dimension` and `fingerprint`;
        and, each None where it is not known, `backbone`, `aggregation`, `loss`,
        `weights`, `image_size` as [height, width], `checkpoint`, such as
        "epoch-0007", the number of `epochs` of its run, and `made`, a time.
    """
    card = getattr(servable, "metadata", {})
    training = card.get("training") or {}
    choice = card.get("epoch_choice") or {}
    size = [card.get("image_height"), card.get("image_width")]
    return {
        "name": _name(servable.path),
        "dimension": servable.dimension,
        "fingerprint": servable.fingerprint,
        **{
            key: training.get(key)
            for key in ("backbone", "aggregation", "loss", "weights")
        },
        "image_size": None if None in size else size,
        "checkpoint": card.get("checkpoint"),
        "epochs": choice.get("epochs"),
        "made": card.get("made"),
    }


def _name(path: str | Path) -> str:
    """The last folders of a version, such as "demo/export/1"; or an address."""
    if isinstance(path, str):
        return path
    return "/".join(path.parts[-3:])
