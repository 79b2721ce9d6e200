"""Which epoch of a run is the best, and what makes that doubtful.

The best epoch has the highest recall@5 on validation, as the original code
chooses. Epochs that are equal are told apart by recall@1, the mean reciprocal
rank, recall@10, and the lower loss of training. Epoch 0 has no such loss, so
that an epoch that was trained is preferred to it. Without validation the last
epoch is the best.

Measured values are those of `RunFolder.history`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# Ours: with fewer validation queries, one query is 2 percent of recall.
FEW_QUERIES = 50


def score(measured: Mapping[str, Any]) -> tuple[float, ...]:
    """Orders epochs: the best one has the largest score.

    The last number is minus the loss of training; those before are of
    validation.

    Args:
        measured: measured values of an epoch.
    """
    recall = measured["recall_at"]
    minus_loss = -measured.get("loss", math.inf)
    if recall is None:
        return float(measured["epoch"]), minus_loss
    # JSON has turned the keys of earlier epochs into strings.
    recall_at = {k: recall.get(k, recall.get(str(k), 0.0)) for k in (1, 5, 10)}
    # Epochs of earlier versions have no reciprocal rank.
    rank = measured.get("mean_reciprocal_rank", 0.0)
    return recall_at[5], recall_at[1], rank, recall_at[10], minus_loss


def warnings(history: Sequence[Mapping[str, Any]], best: str) -> list[str]:
    """Describes what makes the choice of the best epoch doubtful.

    Args:
        history: measured values of each epoch from 0.
        best: name of the best epoch's folder.

    Returns:
        Sentences; none if the choice is not doubtful.
    """
    sentences = []
    if len(history) > 1 and best == "epoch-0000":
        sentences.append(
            f"None of {len(history) - 1} epochs was better on validation than "
            "epoch 0, the network before training. Train for longer or with "
            "another --learning_rate, or validate on more images."
        )
    queries = history[0].get("val_queries")
    if queries is not None and queries < FEW_QUERIES:
        sentences.append(
            f"Validation has {queries} queries. Fewer than {FEW_QUERIES} "
            "hardly tell epochs apart: the best one may be chosen by chance. "
            "Give more places to the val split, or raise --val_queries."
        )
    return sentences


def describe(state: Mapping[str, Any], epoch: str) -> dict[str, Any]:
    """Describes how validation chose an epoch.

    Args:
        state: state of the run, see `run_folder.read_state`.
        epoch: name of the epoch's folder.

    Returns:
        `epoch`, and the number of `epochs`; `val_queries`, or None; recall@N on
        validation of the epoch, `recall_at`, and of epoch 0,
        `recall_at_before`, or None; `warnings`, sentences, none if another
        epoch is the best: then it was not chosen by validation.
    """
    history = state["history"]
    measured = history[int(epoch.removeprefix("epoch-"))]
    return {
        "epoch": epoch,
        "epochs": len(history) - 1,
        "val_queries": history[0].get("val_queries"),
        "recall_at": measured["recall_at"],
        "recall_at_before": history[0]["recall_at"],
        "warnings": warnings(history, epoch) if epoch == state["best"] else [],
    }
