"""How often answers were right, and how often they are rejected wrongly.

`calibration` counts it on the split val. This module needs neither numpy nor
TensorFlow.
"""

import dataclasses
import math
from typing import Self

# Two-sided 95 %: the standard normal distribution's quantile 0.975.
_Z = 1.959964


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
        distractors: number of photographs from elsewhere, of
            `evaluate --distractors`.
        distractors_accepted: how many of these are accepted.
    """

    reject_below: float
    right: int
    right_rejected: int
    wrong: int
    wrong_accepted: int
    absent: int
    absent_accepted: int
    split: str
    distractors: int = 0
    distractors_accepted: int = 0

    @property
    def false_alarm_text(self) -> str:
        """How often what is not in the database is accepted, in words."""
        accepted = self.absent_accepted + self.distractors_accepted
        count = self.absent + self.distractors
        if not count:
            return "false alarms were not measured"
        return (
            f"of photographs from elsewhere, {_share(accepted, count)} are "
            f"accepted ({self.split}"
            + " and distractors" * bool(self.distractors)
            + ")"
        )

    def as_text(self) -> str:
        """Returns the rates in words."""
        distractors = ""
        if self.distractors:
            distractors = (
                f" Of {self.distractors} distractors, it accepts "
                f"{_share(self.distractors_accepted, self.distractors)}."
            )
        return (
            f"On {self.split}, --reject_below={self.reject_below:g} rejects "
            f"{_share(self.right_rejected, self.right)} right answers. It "
            f"accepts {_share(self.wrong_accepted, self.wrong)} wrong answers, "
            f"and {_share(self.absent_accepted, self.absent)} answers to "
            f"queries whose place was taken out of the database.{distractors}"
        )


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
