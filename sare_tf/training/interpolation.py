"""Networks between epoch 0 and the last epoch of a run.

A network that starts from good weights learns its places and forgets others.
The weights (1 - a) * first + a * last, of all layers and of the statistics of
batch normalisation, often keep more of both than either end. The share a is
chosen on the val splits, from a list.

    interpolated/   a run of one epoch, the best network: config.json names its
                    share, and holds the table of shares and recalls

Source: Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT),
CVPR 2022, section 3; there, a is 0.5 or chosen on the validation data.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from sare_tf.distributed import strategies
from sare_tf.training import epoch_choice, epoch_validation, run_folder
from sare_tf.training.run_folder import RunFolder
from sare_tf.training.training_data import TrainingData

NAME = "interpolated"
_FIRST = "epoch-0000"


def run(
    folder: RunFolder, data: TrainingData, strategy: tf.distribute.Strategy
) -> dict[str, Any] | None:
    """Validates networks between two epochs, and writes the best one.

    Of networks that are equal on validation, the one nearest to epoch 0 is the
    best. What was made of the same epochs before is kept.

    Args:
        folder: folder of a run whose epochs are done.
        data: data of the run; its options have the shares.
        strategy: of the training.

    Returns:
        `path` of the folder written; `share`, that of the best; `table`, a
        list of `share`, `recall_at` and, of several folders,
        `recall_by_folder`. None if no shares are given.
    """
    shares = sorted(set(data.options.interpolation))
    if not shares or folder.last == _FIRST:
        return None
    path = folder.path / NAME
    made_of = _made_of(folder, data, shares)
    if (kept := _kept(path, made_of)) is not None:
        return kept
    with strategy.scope():
        first = run_folder.load_embedder(folder.path, epoch=_FIRST)
        network = run_folder.load_embedder(folder.path, epoch=folder.last)
    ends = first.get_weights(), network.get_weights()
    table = []
    for share in shares:
        network.set_weights(between(*ends, share))
        measured, _ = epoch_validation.embed_and_measure(
            network, data.val, f"Validation of {share:g} of {folder.last}"
        )
        measured["recall_at"] = _named(measured["recall_at"])
        table.append({"share": share, **measured})
    best = max(table, key=lambda row: epoch_choice.score({"epoch": 0, **row}))
    network.set_weights(between(*ends, best["share"]))
    if strategies.is_chief(strategy):
        config, _ = run_folder.read_state(folder.path)
        run_folder.write_untrained(
            path,
            config
            | {
                "interpolated": {
                    "share": best["share"],
                    "table": table,
                    "made_of": made_of,
                }
            },
            network=network,
            measured=best,
        )
    return {"path": path, "share": best["share"], "table": table}


def between(
    first: list[np.ndarray], last: list[np.ndarray], share: float
) -> list[np.ndarray]:
    """Returns (1 - share) * first + share * last of each array.

    Whole numbers, such as the seeds of layers, are those of the last.
    """
    return [
        ((1.0 - share) * a + share * b).astype(b.dtype)
        if np.issubdtype(b.dtype, np.floating)
        else b
        for a, b in zip(first, last, strict=True)
    ]


def lines(interpolated: Mapping[str, Any] | None) -> list[str]:
    """Describes the result of `run` in lines."""
    if interpolated is None:
        return []
    described = [f"  {'interpolated':<16} {interpolated['path']}"]
    for row in interpolated["table"]:
        recall = ", ".join(
            f"val recall@{k} {value:.3f}"
            for k, value in row["recall_at"].items()
        )
        chosen = "  best" if row["share"] == interpolated["share"] else ""
        described.append(f"    share {row['share']:<6g} {recall}{chosen}")
    return described


def _named(recall: Mapping[int, float]) -> dict[str, float]:
    """As JSON holds it."""
    return {str(k): value for k, value in recall.items()}


def _made_of(
    folder: RunFolder, data: TrainingData, shares: list[float]
) -> dict[str, Any]:
    """Returns what the result depends on."""
    _, state = run_folder.read_state(folder.path)
    return {
        "shares": shares,
        "epochs": [_FIRST, folder.last],
        "digests": [
            state["digests"].get(f"{name}/model.keras")
            for name in (_FIRST, folder.last)
        ],
        "val": [records.fingerprint for records in data.val.folders],
    }


def _kept(path: Path, made_of: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the result of an earlier run, if it is of the same."""
    if not (path / "state.json").is_file():
        return None
    config, _ = run_folder.read_state(path)
    interpolated = config["interpolated"]
    if interpolated["made_of"] != made_of:
        return None
    logging.info("Kept %s.", path)
    return {
        "path": path,
        "share": interpolated["share"],
        "table": interpolated["table"],
    }
