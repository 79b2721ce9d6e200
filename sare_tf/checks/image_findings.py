"""Findings in images: refused, unreadable, small, or special."""

import re
from collections.abc import Iterable

import pandas as pd

from sare_tf.checks.finding import (
    ERROR,
    NOTE,
    WARNING,
    Finding,
    count,
    if_any,
    named,
)
from sare_tf.checks.image_contents import ImageContents
from sare_tf.dataset.readers.collector import ABSENT, NOT_IMAGE

# Ours: an image with both sides under this shows little of a place.
_TINY_PX = 64
_TRAITS = {
    "turned": "turned upright by the EXIF header",
    "cmyk": "in CMYK, converted to RGB",
    "16_bit": "with 16 bits per channel; the upper 8 are used",
    "animated": "animated; the first frame is used",
}


def refused(rejected: Iterable[tuple[str, str]]) -> list[Finding]:
    """Finds files that the reader left out, by reason.

    Args:
        rejected: path and reason of each.
    """
    groups = {}
    for path, reason in rejected:
        # Numbers and quotations differ from image to image.
        kind = re.sub(r"'[^']*'|-?\d[\d.]*", "...", reason)
        groups.setdefault(kind, []).append((path, reason))
    findings = []
    for images in groups.values():
        reason = images[0][1]
        severity, action = (
            WARNING,
            "Correct the file name or the list, or ignore this.",
        )
        if reason.endswith(ABSENT):
            severity = ERROR
            action = "Get the files, or remove their lines from the list."
        elif reason == NOT_IMAGE:
            severity, action = NOTE, "Convert the files that are photographs."
        findings.append(
            Finding(
                severity=severity,
                name="missing_file" if severity == ERROR else "left_out",
                message=f"{count(len(images), 'file')} left out: {reason}"
                + (" (and similar)." if len(images) > 1 else "."),
                action=action,
                images=images,
            )
        )
    return findings


def unreadable(table: pd.DataFrame, images: ImageContents) -> list[Finding]:
    """Finds images that cannot be decoded."""
    concerned = [
        (table["image_id"].iat[row], reason)
        for row, reason in sorted(images.problems.items())
    ]
    return if_any(
        concerned,
        severity=ERROR,
        name="unreadable",
        message=f"{count(len(concerned), 'image')} cannot be decoded.",
        action="Get them again, convert or delete them: build_records leaves "
        "them out.",
    )


def damaged(table: pd.DataFrame, images: ImageContents) -> list[Finding]:
    """Finds damaged JPEGs that decode all the same."""
    concerned = [
        (table["image_id"].iat[row], complaint)
        for row, complaint in sorted(images.complaints.items())
    ]
    return if_any(
        concerned,
        severity=WARNING,
        name="damaged",
        message=f"{count(len(concerned), 'image')} damaged: the decoder fills "
        "in what it cannot read, often with grey.",
        action="Look at them, and get them again; build_records keeps them.",
    )


def sizes(
    table: pd.DataFrame, images: ImageContents, *, height: int, width: int
) -> list[Finding]:
    """Finds images that are tiny, small, or of another format than others.

    Args:
        table: the manifest.
        images: contents of its images.
        height: height of the model's input.
        width: width of the model's input.
    """
    known = (images.sizes > 0).all(axis=1)
    tiny = known & (images.sizes.max(axis=1) < _TINY_PX)
    findings = if_any(
        named(table, tiny, lambda row: "{1} x {0}".format(*images.sizes[row])),
        severity=WARNING,
        name="tiny",
        message=f"{count(tiny.sum(), 'image')} with both sides under "
        f"{_TINY_PX} pixels.",
        action="Check that they are not previews or placeholders.",
    )
    small = known & (images.sizes < (height, width)).all(axis=1) & ~tiny
    if small.any():
        findings.append(
            Finding(
                severity=NOTE,
                name="enlarged",
                message=f"{count(small.sum(), 'image')} smaller than the "
                f"model's input of {width} x {height}, which enlarges them.",
                action="A smaller --image_height and --image_width take less "
                "time.",
                count=int(small.sum()),
            )
        )
    upright = known & (images.sizes[:, 0] > images.sizes[:, 1])
    lying = known & (images.sizes[:, 0] < images.sizes[:, 1])
    if upright.any() and lying.any():
        findings.append(
            Finding(
                severity=NOTE,
                name="both_orientations",
                message=f"{count(upright.sum(), 'image')} in portrait format "
                f"and {lying.sum():,} in landscape; all become {width} x "
                f"{height}, which distorts the images of the other format.",
                action="No action is needed if queries and database have the "
                "same formats.",
                count=int(upright.sum()),
            )
        )
    return findings


def traits(table: pd.DataFrame, images: ImageContents) -> list[Finding]:
    """Finds images whose pixels are changed or left out when decoded."""
    return [
        Finding(
            severity=NOTE,
            name=trait,
            message=f"{count(len(rows), 'image')} {_TRAITS[trait]}.",
            action="No action is needed: training and the exported model do "
            "the same.",
            images=[(table["image_id"].iat[row], "") for row in rows],
        )
        for trait, rows in images.traits.items()
        if len(rows)
    ]
