"""Queries that one of two evaluations finds, and the other does not."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sare_tf.evaluation.comparison import FinishedRun

FIRST, OTHER = "only the first", "only this run"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A query that only one of two runs finds.

    Args:
        image_id: the query.
        found_by: `FIRST` or `OTHER`.
        first_rank: rank of its first positive in the first run; None if none
            was retrieved.
        other_rank: the same in the other run.
        first_nearest: image_id of the nearest image in the first run; empty if
            the evaluation does not state it.
        other_nearest: the same in the other run.
        positive: image_id of the positive nearest to it in the first run, or
            empty.
    """

    image_id: str
    found_by: str
    first_rank: int | None
    other_rank: int | None
    first_nearest: str
    other_nearest: str
    positive: str


def differences(
    first: FinishedRun, other: FinishedRun, k: int
) -> list[Difference]:
    """Returns the queries that one run finds among its first k images only.

    Args:
        first: the first run.
        other: a run of the same queries.
        k: N of recall@N.

    Returns:
        Those that only the first finds, then those that only the other finds;
        each in the order of the rank in the run that does not find them, the
        worst first.
    """
    ranks = [first.queries["rank"], other.queries["rank"]]
    is_found = [(rank > 0) & (rank <= k) for rank in ranks]
    counted = first.queries["counted"]
    found = []
    for by, finder, loser in ((FIRST, 0, 1), (OTHER, 1, 0)):
        rows = np.flatnonzero(counted & is_found[finder] & ~is_found[loser])
        missed = ranks[loser].to_numpy()[rows]
        # Not retrieved at all is worse than any rank.
        order = np.argsort(
            np.where(missed > 0, -missed, -np.inf), kind="stable"
        )
        found += [_difference(first, other, row, by) for row in rows[order]]
    return found


def table(others: Sequence[tuple[str, Sequence[Difference]]]) -> pd.DataFrame:
    """Returns differences as rows, as in differences.csv.

    Args:
        others: the path of a run, and its differences to the first one.
    """
    rows = [
        {"run": path, **dataclasses.asdict(one)}
        for path, differing in others
        for one in differing
    ]
    fields = [field.name for field in dataclasses.fields(Difference)]
    written = pd.DataFrame(rows, columns=["run", *fields])
    return written.astype({"first_rank": "Int64", "other_rank": "Int64"})


def _difference(
    first: FinishedRun, other: FinishedRun, row: int, found_by: str
) -> Difference:
    of_first, of_other = first.queries.iloc[row], other.queries.iloc[row]
    return Difference(
        image_id=of_first["image_id"],
        found_by=found_by,
        first_rank=int(of_first["rank"]) or None,
        other_rank=int(of_other["rank"]) or None,
        first_nearest=of_first["nearest_image_id"],
        other_nearest=of_other["nearest_image_id"],
        positive=of_first["positive_image_id"],
    )
