"""A finding of a check, and how findings are worded."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that a check found.

    Attributes:
        severity: one of `SEVERITIES`.
        name: of the kind of finding, in snake case.
        message: what it is, in a sentence.
        action: what to do about it.
        images: every image concerned, with what is particular about it.
        count: how many they are, where they are not images.
    """

    severity: str
    name: str
    message: str
    action: str
    images: Sequence[tuple[str, str]] = ()
    count: int = 0

    def __post_init__(self):
        if not self.count:
            object.__setattr__(self, "count", len(self.images))


def if_any(images: Sequence[tuple[str, str]], **fields) -> list[Finding]:
    """A finding with these fields, if it concerns any image."""
    return [Finding(images=images, **fields)] if len(images) else []


def count(number: int, one: str, *, several: str = "") -> str:
    """A number and what it counts."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def named(
    table: pd.DataFrame, chosen: np.ndarray, detail: Callable[[int], str]
) -> list[tuple[str, str]]:
    """image_id and detail of the rows chosen, bool [B]."""
    return [
        (table["image_id"].iat[row], detail(row))
        for row in np.flatnonzero(chosen)
    ]


def points_of(table: pd.DataFrame) -> np.ndarray:
    """float64 [B, 2], metres east and north."""
    return table[["utm_east_m", "utm_north_m"]].to_numpy(np.float64)
