"""A finding of a check, and how findings are worded."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A problem that a check found, or a fact that is good to know.

    Attributes:
        severity: one of `SEVERITIES`.
        name: kind of finding, in snake case.
        message: the finding in a sentence.
        action: what to do about it.
        images: every image concerned, with a detail that is particular to it.
        count: number of images, or of other things if images are not named.
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
    """Returns a finding with these fields if it concerns any image."""
    return [Finding(images=images, **fields)] if len(images) else []


def count(number: int, one: str, *, several: str = "") -> str:
    """Returns a number with the word for what it counts."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def named(
    table: pd.DataFrame, chosen: np.ndarray, detail: Callable[[int], str]
) -> list[tuple[str, str]]:
    """Returns image_id and detail of the rows chosen.

    Args:
        table: a manifest of B rows.
        chosen: bool [B].
        detail: gives the detail of a row.
    """
    return [
        (table["image_id"].iat[row], detail(row))
        for row in np.flatnonzero(chosen)
    ]
