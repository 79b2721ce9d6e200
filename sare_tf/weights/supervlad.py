"""SuperVLAD: DINOv2 and a soft assignment to a few clusters.

    backbone.<DINOv2's names>               a vision transformer
    aggregation.conv.weight                 of the clusters and the ghosts

Images are resized to 322 x 322 as tensors, bilinear. A file with an encoder
across the images of a batch is refused: its descriptors depend on which images
are described together.

Source: github.com/Lu-Feng/SuperVLAD, model/network.py and
model/supervlad_layer.py.
"""

from collections.abc import Mapping
from pathlib import Path

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.model.registry import TORCHVISION
from sare_tf.weights import transformers
from sare_tf.weights.imported_network import HeadWeights, ImportedNetwork

_ASSIGNMENT = "aggregation.conv.weight"
_ENCODER = "encoder.layers."
_SIZE = (322, 322)
# Clusters with ghosts -> ghosts, of the published files.
_GHOSTS = {5: 1, 3: 2}


def matches(state: Mapping[str, Array]) -> bool:
    """Returns whether a state_dict has SuperVLAD's names."""
    return _ASSIGNMENT in state and "backbone.cls_token" in state


def read(source: Path, state: Mapping[str, Array]) -> ImportedNetwork:
    """Reads a state_dict.

    Args:
        source: the file, for messages.
        state: its tensors.

    Raises:
        ValueError: an array is missing, left over or of another shape, or the
            network mixes the images of a batch.
    """
    if any(name.startswith(_ENCODER) for name in state):
        raise ValueError(
            "Expected SuperVLAD without an encoder across images, by which a "
            "descriptor depends on the other images of its batch. Received: "
            f"source={str(source)!r} with {_ENCODER}*. Take SuperVLAD.pth or "
            "1-clusterVLAD.pth, which have none."
        )
    arrays = ArrayLedger(source, state)
    backbone = transformers.take(source, state, arrays, prefix="backbone.")
    arrays.require({_ASSIGNMENT}, network="SuperVLAD")
    shape = arrays.shape(_ASSIGNMENT)
    kernel = arrays.take(_ASSIGNMENT, (None,) * len(shape))
    arrays.finish()
    count = len(kernel)
    ghosts = _GHOSTS.get(count, 1)
    return ImportedNetwork(
        source="supervlad",
        preprocessing={
            **TORCHVISION,
            "image_size": _SIZE,
            "rounded": False,
        },
        aggregation=HeadWeights(
            name="supervlad",
            settings={"num_clusters": count - ghosts, "num_ghosts": ghosts},
            weights={"assignment_kernel": kernel.reshape(count, -1).T},
        ),
        notes=(
            f"Of its {count} clusters, {ghosts} are taken as ghosts, as in the "
            "published files; the file does not say it.",
        ),
        **backbone,
    )
