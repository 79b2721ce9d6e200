"""How often answers of a confidence were right: an index's calibration.json.

`evaluate --calibrate` asks the validation queries, whose places are known, and
orders them by the confidence of their answers (`search.confidence`). Groups of
equal size are cut out of this order, and neighbouring groups are pooled until
the share of right answers rises with the confidence (isotonic regression; Ayer
et al., "An empirical distribution function for sampling with incomplete
information", Ann. Math. Stat. 26, 1955). An answer of `locate` falls into one
of these groups. The file is bound to the model, to the content of the index and
to the radius of a place: a calibration of something else is not used.

This module needs neither numpy nor TensorFlow.
"""

import bisect
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from sare_tf.runtime import sealed_json
from sare_tf.search import bound_file

NAME = "calibration.json"
COMMAND = "python -m sare_tf.evaluate --flagfile=... --calibrate"
# The split that is asked: models are chosen on it, and reports are of another.
SPLIT = "val"
# Ours: fewer queries than this measure nothing.
LEAST_QUERIES = 10
# Ours: the most groups, and the fewest queries of one before they are pooled.
_MOST_GROUPS, _SMALLEST_GROUP = 10, 20
# Two-sided 95 %: the standard normal distribution's quantile 0.975.
_Z = 1.959964
# What a calibration is bound to, in words.
_WORDS = {
    "export_fingerprint": "model",
    "index_digest": "content of the index",
    "positive_radius_m": "--positive_radius_m",
}
_TYPES = {
    **{"export_fingerprint": str, "index_digest": str, "split": str},
    **{"positive_radius_m": (int, float), "groups": list},
    **{"queries": int, "database": int, "protocol": str},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reliability:
    """How often answers of similar confidence were right.

    Args:
        right: share of right answers.
        low: lower end of its 95 % interval (Wilson's score interval).
        high: upper end of it.
        queries: number of answers that were counted.
        split: the split of these queries.
    """

    right: float
    low: float
    high: float
    queries: int
    split: str

    @classmethod
    def of(cls, right: int, queries: int, split: str) -> Self:
        """Makes it from counts.

        Args:
            right: number of right answers.
            queries: number of answers.
            split: of the queries.
        """
        share = right / queries
        low, high = wilson_interval(right, queries)
        return cls(
            right=share, low=low, high=high, queries=queries, split=split
        )

    def as_text(self) -> str:
        """Returns it in words."""
        right, low, high = (
            round(100 * share) for share in (self.right, self.low, self.high)
        )
        return (
            f"right in {right} of 100 such cases ({self.split}, n = "
            f"{self.queries}, 95 % interval {low} to {high})"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RejectionRates:
    """How often `--reject_below` rejects and accepts wrongly.

    Args:
        reject_below: answers of a confidence that is right less often than
            this are rejected.
        right: number of right answers.
        right_rejected: how many of these are rejected.
        wrong: number of wrong answers.
        wrong_accepted: how many of these are accepted.
        absent: number of queries asked once more without their place.
        absent_accepted: how many of these are accepted.
        split: the split of the queries.
    """

    reject_below: float
    right: int
    right_rejected: int
    wrong: int
    wrong_accepted: int
    absent: int
    absent_accepted: int
    split: str

    def as_text(self) -> str:
        """Returns the rates in words."""
        return (
            f"On {self.split}, --reject_below={self.reject_below:g} rejects "
            f"{_share(self.right_rejected, self.right)} right answers. It "
            f"accepts {_share(self.wrong_accepted, self.wrong)} wrong answers, "
            f"and {_share(self.absent_accepted, self.absent)} answers to "
            "queries whose place was taken out of the database."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Validation queries of similar confidence.

    Args:
        start: the least confidence of the group; what is below the first
            group belongs to it, too.
        queries: number of its queries.
        right: how many of them were answered right.
        absent: how many queries fall into it when they are asked once more
            without the right images.
    """

    start: float
    queries: int
    right: int
    absent: int


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
        groups: from the least confident one on.
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

    def reliability_of(self, confidence: float) -> Reliability:
        """Returns how often answers of this confidence were right."""
        starts = [group.start for group in self.groups]
        group = self.groups[max(bisect.bisect(starts, confidence) - 1, 0)]
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

        def wrong(of: Sequence[Group]) -> int:
            return sum(group.queries - group.right for group in of)

        return RejectionRates(
            reject_below=reject_below,
            right=sum(group.right for group in groups),
            right_rejected=sum(group.right for group in rejected),
            wrong=wrong(groups),
            wrong_accepted=wrong(groups) - wrong(rejected),
            absent=sum(group.absent for group in groups),
            absent_accepted=sum(group.absent for group in groups)
            - sum(group.absent for group in rejected),
            split=self.split,
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
        """Writes calibration.json into the folder of an index."""
        sealed_json.write(folder / NAME, dataclasses.asdict(self))


def group(
    confidences: Sequence[float],
    right: Sequence[bool],
    absent: Sequence[float],
) -> list[Group]:
    """Makes groups in which the share of right answers rises.

    Queries of equal confidence are in one group.

    Args:
        confidences: of Q answers.
        right: whether each of them was right.
        absent: confidences of answers without the right images; any number.

    Returns:
        One group or more, from the least confident one on.

    Raises:
        ValueError: fewer than `LEAST_QUERIES` answers.
    """
    if len(confidences) < LEAST_QUERIES:
        raise ValueError(
            f"Expected at least {LEAST_QUERIES} answers. Received: "
            f"{len(confidences)}. Too few to calibrate."
        )
    order = sorted(zip(confidences, right, strict=True))
    count = min(_MOST_GROUPS, max(len(order) // _SMALLEST_GROUP, 1))
    starts = [order[len(order) * number // count][0] for number in range(count)]
    starts = sorted(set(starts))
    counts = [[0, 0] for _ in starts]
    for confidence, is_right in order:
        place = bisect.bisect(starts, confidence) - 1
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
    starts = [start for start, _, _ in pooled]
    falls_into = [max(bisect.bisect(starts, one) - 1, 0) for one in absent]
    return [
        Group(
            start=start,
            queries=queries,
            right=hits,
            absent=falls_into.count(number),
        )
        for number, (start, queries, hits) in enumerate(pooled)
    ]


def read(
    folders: Sequence[Path],
    *,
    export_fingerprint: str | None,
    index_digest: str,
    positive_radius_m: float,
) -> tuple[Calibration | None, str]:
    """Reads the calibration of an index.

    Args:
        folders: of the index; one of several holds the calibration of all.
        export_fingerprint: of its model.
        index_digest: of its content.
        positive_radius_m: images at most this far apart show the same place.

    Returns:
        The calibration, and an empty text. Or None, and why there is none that
        fits, in words that follow "because".
    """
    return bound_file.read(
        folders,
        NAME,
        made_by=COMMAND,
        types=_TYPES,
        bound_to={
            "export_fingerprint": export_fingerprint,
            "index_digest": index_digest,
            "positive_radius_m": positive_radius_m,
        },
        words=_WORDS,
        make=_of_written,
    )


def _of_written(written: dict[str, Any]) -> Calibration:
    groups = [Group(**fields) for fields in written["groups"]]
    if not groups:
        raise ValueError("it holds no groups")
    return Calibration(**{**written, "groups": groups})


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share (Wilson, JASA 22, 1927).

    Args:
        successes: number of successes.
        count: number of trials, at least 1.
    """
    share, squared = successes / count, _Z**2 / count
    middle = share + squared / 2
    half = _Z * math.sqrt(share * (1 - share) / count + squared / (4 * count))
    low, high = ((middle + side * half) / (1 + squared) for side in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def _share(part: int, count: int) -> str:
    percent = f" ({100 * part / count:.0f} %)" if count else ""
    return f"{part} of {count}{percent}"
