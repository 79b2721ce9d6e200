"""Results of `build_records`, and what its records are good for."""

from pathlib import Path
from typing import Any

from absl import logging

from sare_tf.dataset.names import SPLITS
from sare_tf.runtime import flagfiles, stage_results


def report(
    text: str,
    path: Path,
    metadata: dict[str, Any],
    *,
    action: str,
    next_command: str | None = None,
) -> None:
    """Reports records that were made, kept or verified, as the stage's result.

    Args:
        text: what was done, in words.
        path: folder of the records.
        metadata: content of records.json.
        action: "made", "kept" or "verified".
        next_command: what to run next.
    """
    stage_results.report(
        "build_records",
        text,
        path=path,
        action=action,
        **{
            name: metadata[name]
            for name in ("count", "counts", "rejected", "warnings")
        },
        next_command=next_command,
    )


def report_made(
    path: Path, metadata: dict[str, Any], *, without_positive: int
) -> None:
    """Reports records that were built, and warns if they cannot be trained on.

    Args:
        path: folder of the records.
        metadata: content of records.json.
        without_positive: the number of queries without a positive.
    """
    counts = metadata["counts"]
    images = ", ".join(f"{number} {name}" for name, number in counts.items())
    report(
        f"Records in {path}: {images}.",
        path,
        metadata,
        action="made",
        next_command=_next(counts, without_positive),
    )


def _next(counts: dict[str, int], without_positive: int) -> str:
    reason = ""
    for role in ("query", "database"):
        if not counts.get(f"train/{role}"):
            reason = f"the split train has no {role} image"
    queries = sum(counts.get(f"{split}/query", 0) for split in SPLITS)
    if not reason and without_positive == queries:
        reason = "no query has a positive in the database"
    if not reason:
        return flagfiles.next_command("train")
    logging.warning(
        "Tuples, and with them SARE, cannot be trained on these records: %s. "
        "A loss over places (--loss=place_sare_joint) needs several images of "
        "each place, and no queries. To look up photographs with a model that "
        "is trained already, index the records.",
        reason,
    )
    return flagfiles.next_command("index")
