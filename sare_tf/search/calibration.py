"""How often answers were right: an index's calibration.json.

`evaluate --calibrate` asks the validation queries, whose places are known, and
makes one score of what says how sure their answers are (`score_model`). Groups
of equal size are cut out of the order by this score, and neighbouring groups
are pooled until the share of right answers rises with it (isotonic regression;
Ayer et al., "An empirical distribution function for sampling with incomplete
information", Ann. Math. Stat. 26, 1955). An answer of `locate` falls into one
of these groups. Positions are measured likewise (`estimate.Placing`).

The file is bound to the model, to the content of the index, to the radius of a
place and, for answers that were re-ranked, to how they were: a calibration of
something else is not used. Files of earlier versions hold no model of scores:
their groups are of the margin only.

This module needs neither numpy nor TensorFlow.
"""

import bisect
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sare_tf.runtime import sealed_json
from sare_tf.search import bound_file
from sare_tf.search.estimate import Placing
from sare_tf.search.reliability import RejectionRates, Reliability
from sare_tf.search.score_model import COMBINED, ScoreModel

COMMAND = "python -m sare_tf.evaluate --flagfile=... --calibrate"
# The split that is asked: models are chosen on it, and reports are of another.
SPLIT = "val"
# Ours: fewer queries than this measure nothing.
LEAST_QUERIES = 10
# Ours: the most groups, and the fewest queries of one before they are pooled.
_MOST_GROUPS, _SMALLEST_GROUP = 10, 20
# What a calibration is bound to, in words.
_WORDS = {
    "export_fingerprint": "model",
    "index_digest": "content of the index",
    "positive_radius_m": "--positive_radius_m",
    "ranking": "re-ranking",
}
_TYPES = {
    **{"export_fingerprint": str, "index_digest": str, "split": str},
    **{"positive_radius_m": (int, float), "groups": list},
    **{"queries": int, "database": int, "protocol": str},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Validation queries of similar scores.

    Args:
        start: the least score of the group; what is below the first group
            belongs to it, too.
        queries: number of its queries.
        right: how many of them were answered right.
        absent: how many queries fall into it when they are asked once more
            without the right images.
        distractors: how many photographs from elsewhere fall into it.
    """

    start: float
    queries: int
    right: int
    absent: int
    distractors: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Groups of validation queries, and what they were measured on.

    Args:
        export_fingerprint: of the model.
        index_digest: of the index, see `Index.digest`.
        positive_radius_m: images at most this far apart show the same place,
            for the confidence.
        split: of the queries.
        queries: number of queries.
        database: number of images that they were compared with.
        same_database: whether these are the images of the index. Otherwise
            they are the split's own, because the index lacks them.
        protocol: the rule of right answers, in words.
        groups: from the least sure one on, by `score`.
        model: makes a score of several; None: the margin is the score.
        by_score: the same groups by each single score.
        placing: how positions are estimated; None where none is known.
        ranking: how answers were re-ranked; empty if they were not.
    """

    export_fingerprint: str
    index_digest: str
    positive_radius_m: float
    split: str
    queries: int
    database: int
    same_database: bool
    protocol: str
    groups: Sequence[Group]
    model: ScoreModel | None = None
    by_score: Mapping[str, Sequence[Group]] = dataclasses.field(
        default_factory=dict
    )
    placing: Placing | None = None
    ranking: str = ""

    @property
    def name(self) -> str:
        """The name of its file."""
        return _name(self.ranking)

    def score(self, scores: Mapping[str, float]) -> float:
        """Returns what orders answers, NaN if nothing is known.

        Args:
            scores: of an answer, by the names of `score_model.SCORES`.
        """
        if math.isnan(scores["margin"]) or self.model is None:
            return scores["margin"]
        return self.model(scores)

    def reliability_at(
        self, score: float, *, name: str = COMBINED
    ) -> Reliability:
        """Returns how often answers of this score were right.

        Args:
            score: of an answer.
            name: of the score; `COMBINED` for the one of all.
        """
        groups = self.groups if name == COMBINED else self.by_score[name]
        group = groups[_place(groups, score)]
        return Reliability.of(group.right, group.queries, self.split)

    def rejection(self, reject_below: float) -> RejectionRates:
        """Returns how often a limit rejects and accepts wrongly.

        Args:
            reject_below: smallest share of right answers that is accepted.
        """
        groups = self.groups
        rejected = [
            group
            for group in groups
            if group.right / group.queries < reject_below
        ]
        accepted = [group for group in groups if group not in rejected]

        def wrong(of: Sequence[Group]) -> int:
            return sum(group.queries - group.right for group in of)

        return RejectionRates(
            reject_below=reject_below,
            right=sum(group.right for group in groups),
            right_rejected=sum(group.right for group in rejected),
            wrong=wrong(groups),
            wrong_accepted=wrong(groups) - wrong(rejected),
            absent=sum(group.absent for group in groups),
            absent_accepted=sum(group.absent for group in accepted),
            split=self.split,
            distractors=sum(group.distractors for group in groups),
            distractors_accepted=sum(group.distractors for group in accepted),
        )

    def describe(self) -> str:
        """Returns what was measured, in one sentence or two."""
        where = f"{self.database:,} images"
        if not self.same_database:
            where += (
                f" of {self.split}, not with those of this index, among which "
                "answers may be right more or less often"
            )
        return (
            f"How often answers are right was measured on {self.queries:,} "
            f"queries of {self.split}, compared with {where}."
        )

    def write(self, folder: Path) -> None:
        """Writes the file into the folder of an index."""
        sealed_json.write(folder / self.name, dataclasses.asdict(self))


def group(
    scores: Sequence[float],
    right: Sequence[bool],
    absent: Sequence[float],
    *,
    distractors: Sequence[float] = (),
) -> list[Group]:
    """Makes groups in which the share of right answers rises.

    Queries of equal score are in one group.

    Args:
        scores: of Q answers.
        right: whether each of them was right.
        absent: scores of answers without the right images; any number.
        distractors: scores of answers to photographs from elsewhere.

    Returns:
        One group or more, from the least sure one on.

    Raises:
        ValueError: fewer than `LEAST_QUERIES` answers.
    """
    if len(scores) < LEAST_QUERIES:
        raise ValueError(
            f"Expected at least {LEAST_QUERIES} answers. Received: "
            f"{len(scores)}. Too few to calibrate."
        )
    order = sorted(zip(scores, right, strict=True))
    count = min(_MOST_GROUPS, max(len(order) // _SMALLEST_GROUP, 1))
    starts = [order[len(order) * number // count][0] for number in range(count)]
    starts = sorted(set(starts))
    counts = [[0, 0] for _ in starts]
    for score, is_right in order:
        place = bisect.bisect(starts, score) - 1
        counts[place][0] += 1
        counts[place][1] += bool(is_right)
    pooled = []
    for start, (queries, hits) in zip(starts, counts, strict=True):
        pooled.append([start, queries, hits])
        while len(pooled) > 1 and (
            pooled[-2][2] * pooled[-1][1] >= pooled[-1][2] * pooled[-2][1]
        ):
            _, queries, hits = pooled.pop()
            pooled[-1][1] += queries
            pooled[-1][2] += hits
    groups = [
        Group(start=start, queries=queries, right=hits, absent=0)
        for start, queries, hits in pooled
    ]
    absents = [_place(groups, one) for one in absent]
    others = [_place(groups, one) for one in distractors]
    return [
        dataclasses.replace(
            one,
            absent=absents.count(number),
            distractors=others.count(number),
        )
        for number, one in enumerate(groups)
    ]


def _place(groups: Sequence[Group], score: float) -> int:
    """The number of the group that a score falls into."""
    return max(bisect.bisect([one.start for one in groups], score) - 1, 0)


def read(
    folders: Sequence[Path],
    *,
    export_fingerprint: str | None,
    index_digest: str,
    positive_radius_m: float,
    ranking: str = "",
) -> tuple[Calibration | None, str]:
    """Reads the calibration of an index.

    Args:
        folders: of the index; one of several holds the calibration of all.
        export_fingerprint: of its model.
        index_digest: of its content.
        positive_radius_m: images at most this far apart show the same place.
        ranking: how answers are re-ranked; empty if they are not.

    Returns:
        The calibration, and an empty text. Or None, and why there is none that
        fits, in words that follow "because".
    """
    bound_to = {
        "export_fingerprint": export_fingerprint,
        "index_digest": index_digest,
        "positive_radius_m": positive_radius_m,
    }
    types = _TYPES
    if ranking:
        # Files of earlier versions lack it.
        bound_to["ranking"], types = ranking, {**_TYPES, "ranking": str}
    return bound_file.read(
        folders,
        _name(ranking),
        made_by=COMMAND,
        types=types,
        bound_to=bound_to,
        words=_WORDS,
        make=_of_written,
    )


def _name(ranking: str) -> str:
    if ranking:
        return bound_file.RERANKED_CALIBRATION
    return bound_file.CALIBRATION


def _of_written(written: dict[str, Any]) -> Calibration:
    made = {
        "groups": _groups_of(written["groups"]),
        "model": ScoreModel.from_json(written.get("model")),
        "by_score": {
            name: _groups_of(groups)
            for name, groups in written.get("by_score", {}).items()
        },
    }
    if written.get("placing") is not None:
        made["placing"] = Placing.from_json(written["placing"])
    return Calibration(**{**written, **made})


def _groups_of(written: Sequence[dict[str, Any]]) -> list[Group]:
    groups = [Group(**fields) for fields in written]
    if not groups:
        raise ValueError("it holds no groups")
    return groups
