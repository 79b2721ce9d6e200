"""The folder of an index: which files it holds, and its index.json.

    index.json         what the index was made from, its segments and changes
    .                  the first segment; see `segments`
    added-00001/       a segment for each time images were added
    merged-00002/      a segment that took the place of several
    removed-00002.npy  int64, rows that were removed, counted through all
                       segments

index.json is written last, so an index is always read as it was before a
change or as it is after it. It holds digests of all these files and of itself,
with which they are compared when an index is opened. Indexes of version 0.1
have none. `evaluate --calibrate` adds calibration.json, or
calibration_rerank.json, see `search.calibration`, and `index --local_features`
the folder local_features, see `local_features.stored_features`;
`--neighbour_graph` adds the files of `landmarks.neighbour_graph`, and
`--offline_diffusion` those of `landmarks.offline_diffusion`.
"""

import hashlib
import json
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sare_tf.local_features import stored_features
from sare_tf.runtime import sealed_json, versions
from sare_tf.search import bound_file, segments
from sare_tf.search.landmark_options import (
    DIFFUSION,
    DIFFUSION_ROWS,
    DIFFUSION_SCORES,
    GRAPH,
    GRAPH_ROWS,
    GRAPH_SIMILARITIES,
)
from sare_tf.search.options import TuningOptions

COMMAND = "python -m sare_tf.index --flagfile=..."
_OPTIONAL_TEXT = (str, types.NoneType)
# Types of values in index.json.
_TYPES = {
    **{"count": int, "dimension": int, "dtype": str, "segments": list},
    **{"changes": int, "added_records_fingerprints": list},
    **{"target_recall": (int, float), "removed": _OPTIONAL_TEXT},
    **dict.fromkeys(
        ("export_fingerprint", "records_fingerprint", "split"), _OPTIONAL_TEXT
    ),
}
# What the folder may hold; `*` stands for any letters.
NAMES = {
    "index.json",
    *bound_file.NAMES,
    stored_features.FOLDER,
    *(GRAPH, GRAPH_ROWS, GRAPH_SIMILARITIES),
    *(DIFFUSION, DIFFUSION_ROWS, DIFFUSION_SCORES),
    *segments.FILES,
    "added*",
    "merged*",
    "removed-*",
    ".*.unfinished*",
}


def read(folder: Path) -> dict[str, Any]:
    """Reads index.json.

    Raises:
        FileNotFoundError: no finished index is there.
        ValueError: it is damaged.
    """
    return sealed_json.read(
        folder / "index.json", made_by=COMMAND, types=_TYPES
    )


def write(folder: Path, metadata: dict[str, Any]) -> None:
    """Writes index.json, with the versions of what made it."""
    sealed_json.write(
        folder / "index.json",
        {
            **metadata,
            "versions": versions.of("tensorflow", "scann", "numpy"),
        },
    )


def write_new(
    folder: Path,
    segment: dict[str, Any],
    *,
    made_from: dict[str, Any],
    dimension: int,
    tuning: TuningOptions,
) -> None:
    """Writes index.json of an index that has one segment and no changes.

    Args:
        folder: the folder, which holds the segment.
        segment: the segment, as `segments.finish` describes it.
        made_from: `export_fingerprint` and `records_fingerprint`, None for
            vectors of the caller; `split`, `shard` and `dtype`.
        dimension: D, the descriptor length.
        tuning: how the settings of ScaNN were chosen.
    """
    write(
        folder,
        {
            "count": segment["count"],
            "dimension": dimension,
            "distance": "squared Euclidean between unit vectors",
            **made_from,
            "added_records_fingerprints": [],
            "target_recall": tuning.target_recall,
            "tune_tree": tuning.tune_tree,
            "reorder_from": tuning.reorder_from,
            "segments": [{"folder": ".", **segment}],
            "removed": None,
            "changes": 0,
        },
    )


def digest_of(all_metadata: Sequence[Mapping[str, Any]]) -> str:
    """Returns a digest of the content of folders that are searched as one.

    Each index.json names the digests of its files, so that any change of the
    images or descriptors gives another digest. The order of the folders does
    not matter.

    Args:
        all_metadata: index.json of each folder, as `read` returns it.
    """
    digests = sorted(
        hashlib.sha256(json.dumps(one, sort_keys=True).encode()).hexdigest()
        for one in all_metadata
    )
    return hashlib.sha256("".join(digests).encode()).hexdigest()
