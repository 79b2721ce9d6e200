"""The files of a check that programs read: check.json and images.csv."""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sare_tf.checks.finding import ERROR, SEVERITIES, Finding
from sare_tf.checks.image_contents import ImageContents
from sare_tf.checks.matching import SplitMatches
from sare_tf.checks.rules import Checked
from sare_tf.dataset import manifest
from sare_tf.dataset.names import ROLES, SPLITS
from sare_tf.runtime import atomic_files, versions

# Ours: examples of a finding in check.json, and sizes in its table.
_EXAMPLES, _SIZES = 10, 12


def summarise(
    checked: Checked, findings: Sequence[Finding], *, is_decoded: bool
) -> dict[str, Any]:
    """Makes the content of check.json.

    Args:
        checked: what was checked.
        findings: the findings, the most severe first.
        is_decoded: whether the images were decoded.
    """
    source = checked.source
    return {
        "of": source.kind,
        "path": str(source.path),
        "ok": not any(one.severity == ERROR for one in findings),
        "severities": {
            name: sum(one.severity == name for one in findings)
            for name in SEVERITIES
        },
        "counts": _counts(source.table, checked.matches),
        "images_decoded": len(source.table) if is_decoded else 0,
        "sizes": _sizes(checked.images),
        "findings": [_as_json(one) for one in findings],
        "made_from": {
            **source.made_from,
            "split": checked.options.split,
            "rules": {
                split: matches.rule.meaning
                for split, matches in checked.matches.items()
            },
        },
        "versions": versions.of("tensorflow"),
    }


def write(
    folder: Path, summary: dict[str, Any], findings: Sequence[Finding]
) -> None:
    """Writes check.json, and images.csv with every image of every finding.

    Args:
        folder: where they go.
        summary: of `summarise`.
        findings: the findings.
    """
    atomic_files.write_json(folder / "check.json", summary)
    path = folder / "images.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("severity", "finding", "image", "detail"))
        for one in findings:
            for image, detail in one.images:
                writer.writerow((one.severity, one.name, image, detail))


def _as_json(finding: Finding) -> dict[str, Any]:
    """A finding with a few of its images."""
    fields = {
        field.name: getattr(finding, field.name)
        for field in dataclasses.fields(finding)
        if field.name != "images"
    }
    examples = [list(pair) for pair in finding.images[:_EXAMPLES]]
    return {**fields, "examples": examples}


def _counts(
    table: pd.DataFrame, matches: dict[str, SplitMatches]
) -> dict[str, Any]:
    """By split: images of each role, places, and queries without a positive."""
    counts = {}
    for split in SPLITS:
        rows = table[table["split"] == split]
        located = np.isfinite(manifest.coordinates(rows)).all(axis=1)
        counts[split] = {
            **{role: int((rows["role"] == role).sum()) for role in ROLES},
            "places": int(rows["place_id"][rows["place_id"] != ""].nunique()),
            "with_position": int(located.sum()),
            "queries_without_positive": matches[split].num_without,
        }
    return counts


def _sizes(images: ImageContents) -> dict[str, Any]:
    """How many sizes there are, and the most frequent ones."""
    known = images.sizes[(images.sizes > 0).all(axis=1)]
    sizes, counts = np.unique(known, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_SIZES]
    return {
        "different": len(sizes),
        "upright": int((known[:, 0] > known[:, 1]).sum()),
        "lying": int((known[:, 0] < known[:, 1]).sum()),
        "square": int((known[:, 0] == known[:, 1]).sum()),
        "most_frequent": [
            {"width": int(width), "height": int(height), "count": int(number)}
            for (height, width), number in zip(
                sizes[order], counts[order], strict=True
            )
        ],
    }
