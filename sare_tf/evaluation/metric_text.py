"""Figures of an evaluation in words."""

from collections.abc import Mapping


def recall(recall_at: Mapping[str, float]) -> str:
    """Returns recall@N, such as "recall@1 0.640, recall@5 0.812"."""
    return ", ".join(
        f"recall@{k} {share:.3f}" for k, share in recall_at.items()
    )
