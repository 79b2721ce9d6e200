"""Findings in splits, roles and places: missing, or without a positive."""

from collections.abc import Collection

import pandas as pd

from sare_tf.checks.finding import ERROR, NOTE, WARNING, Finding, count, if_any
from sare_tf.checks.matching import SplitMatches
from sare_tf.dataset.names import ROLES, SPLITS

_USES = {
    "train": "Training needs it.",
    "val": "Training needs it, to choose the best epoch.",
    "test": "Evaluation needs it, unless --split names another.",
}


def splits(table: pd.DataFrame, *, evaluated: Collection[str]) -> list[Finding]:
    """Finds splits and roles that are missing.

    Args:
        table: the manifest.
        evaluated: the splits that are evaluated.
    """
    findings = []
    counts = table.groupby(["split", "role"]).size()
    for split in SPLITS:
        absent = [role for role in ROLES if (split, role) not in counts.index]
        if not absent:
            continue
        is_whole = len(absent) == len(ROLES)
        findings.append(
            Finding(
                severity=NOTE if is_whole and split not in evaluated else ERROR,
                name="missing_split",
                message=f"The split {split} has no "
                + ("image." if is_whole else f"{absent[0]} image."),
                action=_USES[split],
                count=1,
            )
        )
    return findings


def positives(matches: SplitMatches, *, is_used: bool) -> list[Finding]:
    """Finds queries of a split without a positive.

    Args:
        matches: the queries of the split.
        is_used: whether the split is trained on or evaluated, so that a rule
            that cannot be followed is an error.
    """
    rule, split = matches.rule, matches.split
    if matches.problem:
        return [
            Finding(
                severity=ERROR if is_used else NOTE,
                name="nothing_tells_what_matches",
                message=f"Positives of the split {split} cannot be found "
                f"({rule.meaning}): {matches.problem}",
                action="Choose another --positives or --protocol, or "
                "complete the dataset.",
                count=matches.num_queries,
            )
        ]
    severity, ending = WARNING, "training leaves them out"
    if rule.leaves_out:
        severity, ending = NOTE, "the protocol leaves them out"
    elif split != "train":
        ending = "they count as misses"
    total = matches.num_queries
    if len(matches.without) == total:
        severity = ERROR if is_used else WARNING
    share = len(matches.without) / max(total, 1)
    return if_any(
        [(query, split) for query in matches.without],
        severity=severity,
        name="no_positive",
        message=f"{len(matches.without):,} of {total:,} queries of the split "
        f"{split} ({100 * share:.1f} %) have no positive ({rule.meaning}): "
        f"{ending}.",
        action="Check their positions or places and the radius, or add "
        "database images.",
    )


def places(table: pd.DataFrame) -> list[Finding]:
    """Finds places with one image, and places in several splits."""
    named = table[table["place_id"] != ""]
    keys = ["split", "place_id"]
    sizes = named.groupby(keys).size()
    single = named[named.groupby(keys)["image_id"].transform("size") == 1]
    images = _with_places(single)
    findings = if_any(
        images,
        severity=WARNING,
        name="place_with_one_image",
        message=f"{count(len(images), 'place')} of {len(sizes):,} with one "
        "image, which is never a positive.",
        action="Add images of them: until then they are only negatives.",
    )
    splits_of = named.groupby("place_id")["split"].nunique()
    shared = splits_of.index[splits_of > 1]
    rows = named[named["place_id"].isin(shared) & (named["split"] != "train")]
    return findings + if_any(
        _with_places(rows),
        severity=WARNING,
        name="place_in_several_splits",
        message=f"{count(len(shared), 'place')} of {len(splits_of):,} in "
        "several splits, by name.",
        action="If they are the same places, keep each in one split; "
        "otherwise give them different names.",
    )


def _with_places(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Their image ids, with split and place."""
    columns = (rows[name] for name in ("image_id", "split", "place_id"))
    return [
        (image, f"{split}, place {place}")
        for image, split, place in zip(*columns, strict=True)
    ]
