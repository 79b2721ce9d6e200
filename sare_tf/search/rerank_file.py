"""How an index's candidates are re-ranked: its rerank.json.

`evaluate --rerank` measures it on the validation queries. The file is bound to
the model, to the content of the index, to the extractor of the local features
and to the geometry: a calibration of something else is not used.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sare_tf.local_features.combination import Calibrated, Combination
from sare_tf.runtime import sealed_json
from sare_tf.search import bound_file, calibration

NAME = bound_file.RERANKING
COMMAND = "python -m sare_tf.evaluate --flagfile=... --rerank=..."
# The split that is asked, as of the confidence.
SPLIT = calibration.SPLIT
# What it is bound to, in words.
_WORDS = {
    "export_fingerprint": "model",
    "index_digest": "content of the index",
    "extractor_fingerprint": "local features",
    "geometry": "--rerank_geometry",
    "top": "--rerank_top",
}
_NUMBER = (int, float)
_TYPES = {
    **dict.fromkeys(_WORDS, str),
    **{"top": int, "threshold": _NUMBER, "weight": _NUMBER},
    **{"queries": int, "recall_before": _NUMBER, "recall_after": _NUMBER},
}


def write(
    folder: Path, calibrated: Calibrated, *, bound_to: dict[str, Any]
) -> None:
    """Writes rerank.json into the folder of an index.

    Args:
        folder: of the index.
        calibrated: the combination, and what it does on the split val.
        bound_to: values of `_WORDS`.
    """
    sealed_json.write(
        folder / NAME,
        {
            **bound_to,
            **dataclasses.asdict(calibrated.combination),
            "split": SPLIT,
            "queries": calibrated.queries,
            "recall_before": calibrated.recall_before,
            "recall_after": calibrated.recall_after,
        },
    )


def read(
    folders: Sequence[Path], *, bound_to: dict[str, Any]
) -> tuple[Calibrated | None, str]:
    """Reads the combination of an index.

    Args:
        folders: of the index; one of several holds that of all.
        bound_to: as of `write`.

    Returns:
        The combination, and an empty text. Or None, and why there is none that
        fits, in words that follow "because".
    """
    return bound_file.read(
        folders,
        NAME,
        made_by=COMMAND,
        types=_TYPES,
        bound_to=bound_to,
        words=_WORDS,
        make=_calibrated,
    )


def _calibrated(written: dict[str, Any]) -> Calibrated:
    return Calibrated(
        combination=Combination(
            threshold=written["threshold"], weight=written["weight"]
        ),
        queries=written["queries"],
        recall_before=written["recall_before"],
        recall_after=written["recall_after"],
    )
