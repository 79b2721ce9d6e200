"""MegaLoc: SALAD with longer vectors, and a dense layer behind it.

    backbone.<DINOv2's names>               a vision transformer
    aggregator.agg.<SALAD's names>
    aggregator.linear.{weight,bias}

The network resizes images to the nearest multiples of 14. The author's
evaluations resize to 322 x 322, bilinear, as tensors.

Source: github.com/gmberton/MegaLoc, megaloc_model.py.
"""

from collections.abc import Mapping
from pathlib import Path

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.model.registry import TORCHVISION
from sare_tf.weights import salad, torch_layers, transformers
from sare_tf.weights.imported_network import HeadWeights, ImportedNetwork

_HEAD = "aggregator.agg."
_OUTPUT = {"output": "linear"}
_SIZE = (322, 322)


def matches(state: Mapping[str, Array]) -> bool:
    """Returns whether a state_dict has MegaLoc's names."""
    return f"{_HEAD}dust_bin" in state


def read(source: Path, state: Mapping[str, Array]) -> ImportedNetwork:
    """Reads a state_dict.

    Args:
        source: the file, for messages.
        state: its tensors.

    Raises:
        ValueError: an array is missing, left over or of another shape.
    """
    arrays = ArrayLedger(source, state)
    backbone = transformers.take(
        source, state, arrays, prefix="backbone.", other_sizes="resize"
    )
    arrays.require(
        salad.head_names(_HEAD) | torch_layers.names_of("aggregator.", _OUTPUT),
        network="MegaLoc",
    )
    head = salad.take_head(arrays, _HEAD)
    output = torch_layers.named(arrays, "aggregator.", _OUTPUT)
    arrays.finish()
    return ImportedNetwork(
        source="megaloc",
        preprocessing={
            **TORCHVISION,
            "image_size": _SIZE,
            "rounded": False,
        },
        aggregation=HeadWeights(
            name="salad_linear",
            settings={**head.settings, "length": len(output["output_bias"])},
            weights={**head.weights, **output},
        ),
        **backbone,
    )
