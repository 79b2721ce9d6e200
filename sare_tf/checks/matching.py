"""Matching of the queries of each split with its database.

The rules are those of training and evaluation: the protocol matches the split
to evaluate, and `find_positives` the others.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from sare_tf.checks.options import CheckOptions
from sare_tf.dataset.manifest import coordinates
from sare_tf.dataset.names import SPLITS, TRAIN_RULES
from sare_tf.dataset.positives import choose_rule, find_positives
from sare_tf.evaluation import ground_truth, protocol_choice, protocols

# Queries that are matched at a time, so that memory is bounded.
_BLOCK = 20_000
# Ours: queries of a split that are kept as samples, and positives of each.
_SAMPLES, _SHOWN = 8, 4
# Ours: without a place_id, queries in a square of this side show one place.
_PLACE_M = 50.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchingRule:
    """A rule that says which database images are positives of a query.

    Attributes:
        meaning: what a positive is, in words.
        asked: queries -> bool, the queries that count.
        find: queries, database -> rows of the positives of each query.
        leaves_out: whether queries without a positive are left out; else they
            are misses.
        other_timestamp: whether images of the query's timestamp are never its
            positives.
    """

    meaning: str
    asked: Callable[[pd.DataFrame], np.ndarray]
    find: Callable[[pd.DataFrame, pd.DataFrame], list[np.ndarray]]
    leaves_out: bool = False
    other_timestamp: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitMatches:
    """The queries of a split, and the ones without positives.

    Attributes:
        split: the split.
        rule: what a positive is.
        num_queries: queries that count.
        without: image_id of each query without a positive.
        samples: queries of different places, as far as there are several,
            with some of their positives, image ids.
        problem: why the rule cannot be followed; empty if it can. Then no
            query has a positive, and `without` is empty.
    """

    split: str
    rule: MatchingRule
    num_queries: int = 0
    without: Sequence[str] = ()
    samples: Sequence[tuple[str, list[str]]] = ()
    problem: str = ""

    @property
    def num_without(self) -> int:
        """Number of queries without a positive."""
        return self.num_queries if self.problem else len(self.without)


def by_protocol(
    protocol: protocols.Protocol, relations: pd.DataFrame | None
) -> MatchingRule:
    """Makes the rule of an evaluation."""
    return MatchingRule(
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


def by_manifest(meaning: str, **options) -> MatchingRule:
    """Makes a rule of training: `find_positives` with these options."""
    return MatchingRule(
        meaning=meaning,
        asked=lambda queries: np.ones(len(queries), bool),
        find=lambda queries, database: find_positives(
            queries, database, **options
        ),
        other_timestamp=options.get("other_timestamp", False),
    )


def rules_of(
    table: pd.DataFrame, relations: pd.DataFrame | None, options: CheckOptions
) -> dict[str, MatchingRule]:
    """Makes the rule of each split, as training and evaluation choose it.

    Args:
        table: the manifest.
        relations: which images are related, or None.
        options: the options of the check.

    Raises:
        ValueError: numbers that the protocol fixes.
    """
    rules = {}
    for split in SPLITS:
        of_split = table[table["split"] == split]
        rule = choose_rule(
            *(of_split[of_split["role"] == r] for r in ("query", "database")),
            rule=options.positives,
            relations=relations,
        )
        if split in options.splits:
            rules[split] = by_protocol(
                protocol_choice.choose(options, rule), relations
            )
        else:
            rules[split] = _of_training(split, rule, relations, options)
    return rules


def _of_training(
    split: str,
    rule: str,
    relations: pd.DataFrame | None,
    options: CheckOptions,
) -> MatchingRule:
    """The rule of the split train, or of another one as validation uses it."""
    arguments = dict(TRAIN_RULES[options.train_positives])
    if split == "train":
        radius_m = options.train_positive_radius_m
    else:
        radius_m = options.positive_radius_m
        del arguments["min_distance_m"]  # Validation has none.
    meaning = {
        "radius": f"at most {radius_m:g} m away",
        "place": "of the same place_id",
        "list": "listed",
    }[rule]
    if split == "train":
        meaning += f", --train_positives={options.train_positives}"
    return by_manifest(
        meaning,
        rule=rule,
        radius_m=radius_m,
        relations=relations,
        **arguments,
    )


def match(
    table: pd.DataFrame, split: str, rule: MatchingRule, *, block: int = _BLOCK
) -> SplitMatches:
    """Matches the queries of a split with its database.

    Args:
        table: the manifest.
        split: the split.
        rule: what a positive is.
        block: queries matched at a time.
    """
    of_split = table[table["split"] == split]
    queries = of_split[of_split["role"] == "query"]
    database = of_split[of_split["role"] == "database"]
    if not len(queries) or not len(database):
        return SplitMatches(split=split, rule=rule)
    without, samples = [], []
    try:
        queries = queries[rule.asked(queries)]
        wanted = _of_different_places(queries)
        for start in range(0, len(queries), block):
            some_queries = queries.iloc[start : start + block]
            positives = rule.find(some_queries, database)
            for number, (query, rows) in enumerate(
                zip(some_queries["image_id"], positives, strict=True), start
            ):
                if not len(rows):
                    without.append(query)
                elif number in wanted:
                    samples.append((query, _spread(database, rows)))
    except ValueError as error:
        return SplitMatches(
            split=split,
            rule=rule,
            num_queries=len(queries),
            problem=str(error),
        )
    return SplitMatches(
        split=split,
        rule=rule,
        num_queries=len(queries),
        without=without,
        samples=samples,
    )


def _of_different_places(queries: pd.DataFrame) -> set[int]:
    """Numbers of a few queries, evenly over the places."""
    cells = np.floor(coordinates(queries) / _PLACE_M).astype(str)
    where = queries["utm_zone"].to_numpy(object) + " " + cells[:, 0]
    where = where + " " + cells[:, 1]
    place_ids = queries["place_id"].to_numpy(object)
    _, first = np.unique(
        np.where(place_ids == "", where, place_ids).astype(str),
        return_index=True,
    )
    chosen = np.linspace(0, len(first) - 1, min(_SAMPLES, len(first)))
    return set(np.sort(first)[chosen.astype(int)].tolist())


def _spread(database: pd.DataFrame, rows: np.ndarray) -> list[str]:
    """Image ids of a few positives, evenly over their order."""
    chosen = np.linspace(0, len(rows) - 1, _SHOWN).astype(int)
    return database["image_id"].iloc[rows[np.unique(chosen)]].tolist()
