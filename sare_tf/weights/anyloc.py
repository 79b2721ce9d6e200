"""AnyLoc: DINOv2's published ViT-g, and a vocabulary that lies beside it.

    <DINOv2's names>                        the backbone, --source
    a tensor, [clusters, channels]          the vocabulary, --vocabulary

Features are the values of block 31, of which all later blocks are left out.
Images keep their size; the middle is cropped to multiples of 14.

Source: github.com/AnyLoc/DINO, hubconf.py and utilities.py;
github.com/AnyLoc/AnyLoc, demo/anyloc_vlad_generate.py.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sare_tf.model.pretrained import torch_file
from sare_tf.model.pretrained.array_ledger import (
    Array,
    ArrayLedger,
    StoredArray,
)
from sare_tf.model.registry import TORCHVISION
from sare_tf.model.vit_weights import prefix_of
from sare_tf.weights import transformers
from sare_tf.weights.imported_network import HeadWeights, ImportedNetwork

# Of the published vocabularies: dinov2_vitg14_l31_value_c32_*_c_centers.pt.
_BLOCK = 31


def read(
    source: Path, state: Mapping[str, Array], *, vocabulary: Path
) -> ImportedNetwork:
    """Reads a backbone and a vocabulary.

    Args:
        source: the file of the backbone, for messages.
        state: its tensors.
        vocabulary: the file of the centres.

    Raises:
        ValueError: an array is missing, left over or of another shape, or the
            vocabulary is of another backbone.
    """
    arrays = ArrayLedger(source, state)
    backbone = transformers.take(
        source,
        state,
        arrays,
        prefix=prefix_of(state),
        other_sizes="crop",
    )
    arrays.finish()
    centres = _read_vocabulary(vocabulary)
    architecture = backbone["transformer"].architecture
    channels = centres.shape[1]
    if architecture.depth <= _BLOCK or channels != architecture.dimension:
        raise ValueError(
            f"Expected a backbone of more than {_BLOCK} blocks and of "
            f"{channels} channels, as the vocabulary has. Received: "
            f"source={str(source)!r} with {architecture.depth} blocks of "
            f"{architecture.dimension} channels. AnyLoc's published "
            "vocabularies are of dinov2_vitg14; give its file as --source."
        )
    backbone["layers"] = {
        layer: weights
        for layer, weights in backbone["layers"].items()
        if _is_used(layer)
    }
    return ImportedNetwork(
        source="anyloc",
        cut_layer=f"block{_BLOCK}_value",
        preprocessing={
            **TORCHVISION,
            "interpolation": "bicubic",
            "rounded": False,
        },
        aggregation=HeadWeights(
            name="hard_vlad",
            settings={"num_clusters": len(centres)},
            weights={"centres": centres},
        ),
        **backbone,
    )


def _is_used(layer: str) -> bool:
    """Whether a layer is needed for the values of the block."""
    match = re.fullmatch(r"block(\d+)_(\w+)", layer)
    if match is None:
        return layer == "embedding"
    block, part = int(match[1]), match[2]
    return block < _BLOCK or (block == _BLOCK and part in ("norm1", "qkv"))


def _read_vocabulary(path: Path) -> np.ndarray:
    saved = None
    if torch_file.is_torch_file(path):
        saved = torch_file.read(path)
    elif path.suffix == ".npy":
        array = np.load(path, allow_pickle=False)
        saved = StoredArray(array.shape, lambda: array)
    if not isinstance(saved, torch_file.Tensor | StoredArray):
        raise ValueError(
            "Expected a vocabulary of AnyLoc: a tensor that PyTorch saved, or "
            f".npy, [clusters, channels]. Received: vocabulary={str(path)!r}. "
            "Take a file *_c_centers.pt of its release."
        )
    return ArrayLedger(path, {"centres": saved}).take("centres", (None, None))
