"""What is found in splits, roles and places: missing, or without an answer."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd

from sare_tf.checks.finding import ERROR, NOTE, WARNING, Finding, count, if_any
from sare_tf.dataset import manifest
from sare_tf.dataset.positives import find_positives
from sare_tf.evaluation import ground_truth, protocols

# Queries whose positives are looked for at a time, so that memory is bounded.
_BLOCK = 20_000
# Queries of a split of which samples are kept, and positives of each.
_SAMPLES, _SHOWN = 8, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """Which database images answer the queries of a split.

    Attributes:
        meaning: what a positive is, in words.
        asked: queries -> bool, those that count.
        find: queries, database -> rows of the positives of each query.
        leaves_out: queries without a positive are left out, not missed.
        other_timestamp: images of the query's timestamp never answer it.
    """

    meaning: str
    asked: Callable[[pd.DataFrame], np.ndarray]
    find: Callable[[pd.DataFrame, pd.DataFrame], list[np.ndarray]]
    leaves_out: bool = False
    other_timestamp: bool = False


def by_protocol(
    protocol: protocols.Protocol, relations: pd.DataFrame | None
) -> Rule:
    """The rule of an evaluation."""
    return Rule(
        meaning=f"protocol {protocol.name}",
        asked=lambda queries: ground_truth.asked(protocol, queries),
        find=lambda queries, database: (
            ground_truth.judge(
                protocol, queries, database, relations=relations
            ).positives
        ),
        leaves_out=protocol.leaves_out,
        other_timestamp=protocol.other_timestamp,
    )


def by_manifest(meaning: str, **options) -> Rule:
    """The rule of training: `find_positives` with these options."""
    return Rule(
        meaning=meaning,
        asked=lambda queries: np.ones(len(queries), bool),
        find=lambda queries, database: find_positives(
            queries, database, **options
        ),
        other_timestamp=options.get("other_timestamp", False),
    )


def splits(table: pd.DataFrame, *, evaluated: str) -> list[Finding]:
    """Splits and roles that are missing."""
    found = []
    counts = table.groupby(["split", "role"]).size()
    for split in manifest.SPLITS:
        absent = [
            role for role in manifest.ROLES if (split, role) not in counts.index
        ]
        if not absent:
            continue
        whole = len(absent) == len(manifest.ROLES)
        severity = NOTE if whole and split != evaluated else ERROR
        use = {
            "train": "It is needed to train.",
            "val": "It is needed to train: it chooses the best epoch.",
            "test": "It is needed to evaluate, unless --split names another.",
        }
        found.append(
            Finding(
                severity=severity,
                name="missing_split",
                message=f"The split {split} has no "
                + ("image." if whole else f"{absent[0]} image."),
                action=use[split],
                count=1,
            )
        )
    return found


def positives(
    table: pd.DataFrame, split: str, rule: Rule, *, is_used: bool
) -> tuple[list[Finding], int, list[tuple[str, list[str]]]]:
    """Queries of a split that no database image answers.

    Args:
        table: the manifest.
        split: of it.
        rule: what answers.
        is_used: the split is trained on or evaluated, so that a rule that
            cannot be followed is an error.

    Returns:
        Findings, how many queries have no positive, and samples: a query's
        image_id and those of some of its positives.
    """
    part = table[table["split"] == split]
    queries = part[part["role"] == "query"]
    database = part[part["role"] == "database"]
    if not len(queries) or not len(database):
        return [], 0, []
    without, samples = [], []
    try:
        queries = queries[rule.asked(queries)]
        wanted = set(np.linspace(0, len(queries) - 1, _SAMPLES).astype(int))
        for start in range(0, len(queries), _BLOCK):
            block = queries.iloc[start : start + _BLOCK]
            answers = rule.find(block, database)
            for row, (query, rows) in enumerate(
                zip(block["image_id"], answers, strict=True), start
            ):
                if not len(rows):
                    without.append((query, split))
                elif row in wanted:
                    # Spread, so that some are the farthest in the order.
                    chosen = np.linspace(0, len(rows) - 1, _SHOWN).astype(int)
                    shown = database["image_id"].iloc[rows[np.unique(chosen)]]
                    samples.append((query, shown.tolist()))
    except ValueError as error:
        return (
            [
                Finding(
                    severity=ERROR if is_used else NOTE,
                    name="nothing_tells_what_matches",
                    message=f"What matches in the split {split} cannot be "
                    f"told ({rule.meaning}): {error}",
                    action="Choose another --positives or --protocol, or "
                    "complete the dataset.",
                    count=len(queries),
                )
            ],
            len(queries),
            [],
        )
    severity, ending = WARNING, "they are not trained on"
    if rule.leaves_out:
        severity, ending = NOTE, "the protocol leaves them out"
    elif split != "train":
        ending = "they count as misses"
    if len(without) == len(queries):
        severity = ERROR if is_used else WARNING
    share = 100 * len(without) / len(queries)
    found = if_any(
        without,
        severity=severity,
        name="no_positive",
        message=f"{len(without):,} of {len(queries):,} queries of the split "
        f"{split} ({share:.1f} %) have no positive ({rule.meaning}): {ending}.",
        action="Check their positions or places and the radius, or add "
        "database images.",
    )
    return found, len(without), samples


def places(table: pd.DataFrame) -> list[Finding]:
    """Places with one image, and places in several splits."""
    named = table[table["place_id"] != ""]
    keys = ["split", "place_id"]
    sizes = named.groupby(keys).size()
    alone = named[named.groupby(keys)["image_id"].transform("size") == 1]
    images = _with_places(alone)
    found = if_any(
        images,
        severity=WARNING,
        name="place_with_one_image",
        message=f"{count(len(images), 'place')} of {len(sizes):,} with one "
        "image, which is never a positive.",
        action="Add images of them; without, they are negatives alone.",
    )
    of = named.groupby("place_id")["split"].unique().map(set)
    shared = [place for place, some in of.items() if len(some) > 1]
    rows = named[named["place_id"].isin(shared) & (named["split"] != "train")]
    return found + if_any(
        _with_places(rows),
        severity=WARNING,
        name="place_in_several_splits",
        message=f"{count(len(shared), 'place')} of {len(of):,} in several "
        "splits, by name.",
        action="If they are the same places, keep each in one split; "
        "else give them names of their own.",
    )


def _with_places(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Their image ids, with split and place."""
    columns = (rows[name] for name in ("image_id", "split", "place_id"))
    return [
        (image, f"{split}, place {place}")
        for image, split, place in zip(*columns, strict=True)
    ]
