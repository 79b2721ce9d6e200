"""The page of a comparison: one HTML file that needs nothing else."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sare_tf.evaluation.run_differences import FIRST, OTHER, Difference
from sare_tf.pages import curves, html
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files

# Ours: queries of the page that only one of two runs finds, for each of both.
_SHOWN = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Case:
    """A query that only one of two runs finds, with its pictures.

    Args:
        difference: the query and its ranks.
        query: the query.
        first: the nearest image in the first run.
        other: the nearest image in the other run.
        positive: the nearest positive.
    """

    difference: Difference
    query: html.Picture
    first: html.Picture
    other: html.Picture
    positive: html.Picture


def write(
    path: str | Path,
    comparison: dict[str, Any],
    *,
    at: int,
    differing: Sequence[tuple[str, Sequence[Difference]]],
    records: Records | None,
) -> None:
    """Writes the page.

    Args:
        path: the HTML file.
        comparison: content of compare.json.
        at: N of recall@N that decides whether a run finds a query.
        differing: for each run but the first, its path and the queries that
            only one of both finds.
        records: have the pictures of these queries; None: names only.
    """
    runs = comparison["runs"]
    letters = [_letter(number) for number in range(len(runs))]
    # The page names a run by its letter, as the table on the terminal does.
    pairs = [
        {"letter": letter, "path": of_run, "groups": _groups(found, records)}
        for letter, (of_run, found) in zip(letters[1:], differing, strict=True)
    ]
    page = html.environment().get_template("compare.html")
    atomic_files.write_text(
        path,
        page.render(
            **comparison,
            letters=letters,
            at=at,
            pairs=pairs,
            has_pictures=records is not None,
            curve=curves.recalls_over_n(
                {
                    f"{letter} {run['path']}": run["recall_curve"]
                    for letter, run in zip(letters, runs, strict=True)
                },
                _ticks(len(runs[0]["recall_curve"])),
            ),
            bars=_bars(runs),
        ),
    )


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else str(number + 1)


def _ticks(count: int) -> list[int]:
    return [k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500) if k <= count]


def _bars(runs: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """For each run, by the name of a figure, its difference as a bar."""
    ends = [
        abs(end)
        for run in runs[1:]
        for figure in run["figures"].values()
        for end in figure["difference_interval"]
    ]
    most = max([*ends, 1e-9])
    return [
        {
            name: curves.difference_bar(
                figure["difference"],
                figure["difference_interval"],
                most,
                figure["verdict"].replace("no clear difference", "unclear"),
            )
            for name, figure in run["figures"].items()
            if "difference" in figure
        }
        for run in runs
    ]


def _groups(
    differing: Sequence[Difference], records: Records | None
) -> list[dict[str, Any]]:
    """The queries that only the first run finds, and those of the other."""
    groups = []
    for found_by in (FIRST, OTHER):
        of_group = [one for one in differing if one.found_by == found_by]
        groups.append(
            {
                "found_by": found_by,
                "count": len(of_group),
                "cases": _cases(of_group[:_SHOWN], records),
            }
        )
    return groups


def _cases(
    differing: Sequence[Difference], records: Records | None
) -> list[_Case]:
    names = {
        name: None
        for one in differing
        for name in (
            *(one.image_id, one.first_nearest),
            *(one.other_nearest, one.positive),
        )
    }
    images = dict.fromkeys(names)
    if records is not None:
        images = dict(zip(names, records.read_named(list(names)), strict=True))

    def picture(name: str) -> html.Picture:
        return html.Picture(encoded=images[name], name=name)

    return [
        _Case(
            difference=one,
            query=picture(one.image_id),
            first=picture(one.first_nearest),
            other=picture(one.other_nearest),
            positive=picture(one.positive),
        )
        for one in differing
    ]
