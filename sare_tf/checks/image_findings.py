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
from sare_tf.dataset.readers import reading

# Ours: an image of which no side reaches this shows little of a place.
_TINY_PX = 64
_TRAITS = {
    "turned": "turned upright by the EXIF header",
    "cmyk": "in CMYK, which becomes RGB",
    "16_bit": "with 16 bits per channel, of which the high 8 are used",
    "animated": "animated, of which the first picture is used",
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
        severity, action = WARNING, "Correct the name or the list, or accept."
        if reason.endswith(reading.ABSENT):
            severity = ERROR
            action = "Get the files, or take their lines out of the list."
        elif reason == reading.NOT_IMAGE:
            severity, action = NOTE, "Convert those that are photographs."
        findings.append(
            Finding(
                severity=severity,
                name="missing_file" if severity == ERROR else "left_out",
                message=f"{count(len(images), 'file')} left out: {reason}"
                + (" (and alike)." if len(images) > 1 else "."),
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
        action="Get them again, convert or delete them: the builder leaves "
        "them out.",
    )


def sizes(
    table: pd.DataFrame, images: ImageContents, *, height: int, width: int
) -> list[Finding]:
    """Finds images that are tiny, small, or upright among lying ones.

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
        message=f"{count(tiny.sum(), 'image')} with no side of {_TINY_PX} "
        "pixels.",
        action="Check that they are not previews or placeholders.",
    )
    small = known & (images.sizes < (height, width)).all(axis=1) & ~tiny
    if small.any():
        findings.append(
            Finding(
                severity=NOTE,
                name="enlarged",
                message=f"{count(small.sum(), 'image')} smaller than the "
                f"model's input of {width} x {height}, to be enlarged.",
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
                message=f"{upright.sum():,} images are upright and "
                f"{lying.sum():,} lying; all become {width} x {height}, which "
                "distorts those of the other shape.",
                action="Nothing to do if queries and database are alike in it.",
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
            action="Nothing to do: training and the exported model do alike.",
            images=[(table["image_id"].iat[row], "") for row in rows],
        )
        for trait, rows in images.traits.items()
        if len(rows)
    ]
