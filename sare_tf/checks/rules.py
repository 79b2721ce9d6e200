"""The rules of a check, as a table: a new rule is one function and one row."""

import dataclasses
from collections.abc import Callable

from sare_tf.checks import (
    duplicates,
    image_findings,
    place_names,
    position_findings,
    splits_and_positives,
    zone_findings,
)
from sare_tf.checks.finding import SEVERITIES, Finding
from sare_tf.checks.image_contents import ImageContents
from sare_tf.checks.matching import SplitMatches
from sare_tf.checks.options import CheckOptions
from sare_tf.checks.sources import DatasetSource, RecordsSource


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """The input of the rules.

    Attributes:
        source: the dataset or records.
        images: contents of its images.
        matches: split -> its queries, and which of them have positives.
        options: the options of the check.
    """

    source: DatasetSource | RecordsSource
    images: ImageContents
    matches: dict[str, SplitMatches]
    options: CheckOptions


def _duplicates(checked: Checked) -> list[Finding]:
    return duplicates.find(
        checked.source.table,
        checked.images,
        relations=checked.source.relations,
        radius_m=checked.options.positive_radius_m,
        by_timestamp={
            split
            for split, matches in checked.matches.items()
            if matches.rule.other_timestamp
        },
    )


def _positives(checked: Checked) -> list[Finding]:
    return [
        finding
        for split, matches in checked.matches.items()
        for finding in splits_and_positives.positives(
            matches, is_used=split in ("train", "val", *checked.options.splits)
        )
    ]


def _sizes(checked: Checked) -> list[Finding]:
    return image_findings.sizes(
        checked.source.table,
        checked.images,
        height=checked.options.image_height,
        width=checked.options.image_width,
    )


RULES: tuple[Callable[[Checked], list[Finding]], ...] = (
    lambda checked: checked.source.findings(),
    lambda checked: image_findings.unreadable(
        checked.source.table, checked.images
    ),
    lambda checked: image_findings.damaged(
        checked.source.table, checked.images
    ),
    _duplicates,
    lambda checked: splits_and_positives.splits(
        checked.source.table, evaluated=checked.options.splits
    ),
    _positives,
    lambda checked: splits_and_positives.places(checked.source.table),
    lambda checked: place_names.place_names(checked.source.table),
    lambda checked: position_findings.overlap(
        checked.source.table, radius_m=checked.options.positive_radius_m
    ),
    lambda checked: zone_findings.zones(checked.source.table),
    lambda checked: position_findings.suspicious(checked.source.table),
    _sizes,
    lambda checked: image_findings.traits(checked.source.table, checked.images),
)


def apply(checked: Checked) -> list[Finding]:
    """Returns the findings of all rules, the most severe first."""
    findings = [finding for rule in RULES for finding in rule(checked)]
    return sorted(findings, key=lambda one: SEVERITIES.index(one.severity))
