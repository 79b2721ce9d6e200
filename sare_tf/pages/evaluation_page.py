"""The page of an evaluation: one HTML file that needs nothing else."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sare_tf.dataset import manifest
from sare_tf.evaluation.query_results import QueryResults, cities
from sare_tf.pages import curves, drawing, html
from sare_tf.pages.evaluation_cases import Case
from sare_tf.pages.match_lines import Pair
from sare_tf.runtime import atomic_files
from sare_tf.search import estimate, score_model

# Ours: groups in a table of the page, and cities with a map of their own.
_GROUPS = 24
_MAPS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """Where queries were taken, and where they were placed.

    Args:
        database: float [N, 2], metres east and north, NaN where unknown.
        queries: float [Q, 2].
        placed: float [Q, 2], where the first image retrieved was taken.
        right: bool [Q], whether that image is a positive.
        cities: object [Q]; each city has a map of its own.
    """

    database: np.ndarray
    queries: np.ndarray
    placed: np.ndarray
    right: np.ndarray
    cities: np.ndarray


def places_of(results: QueryResults) -> Places:
    """Returns the places of the queries that count."""
    counted = results.truth.counted
    first = results.rows[counted, 0]
    database = manifest.coordinates(results.database)
    queries = results.queries[counted]
    return Places(
        database=database,
        queries=manifest.coordinates(queries),
        placed=np.where((first >= 0)[:, None], database[first], np.nan),
        right=results.ranks[counted] == 1,
        cities=cities(queries),
    )


def write(
    path: str | Path,
    *,
    metrics: dict[str, Any],
    places: Places,
    cases: Sequence[Case],
    pairs: Sequence[Pair],
) -> None:
    """Writes the page.

    Args:
        path: the HTML file.
        metrics: content of metrics.json.
        places: what the maps show.
        cases: queries of the gallery, in order.
        pairs: what re-ranking changed; empty without it.

    Raises:
        ValueError: a picture that cannot be decoded; names it.
    """
    localisation, doubt = metrics["localisation"], metrics.get("doubt")
    page = html.environment().get_template("report.html")
    atomic_files.write_text(
        path,
        page.render(
            metrics=metrics,
            curve=curves.recall_over_n(
                metrics["recall_curve"],
                [int(k) for k in metrics["recall_at"]],
                searched=metrics["search"]["recall_curve"],
                baselines={
                    name: baseline["recall_curve"]
                    for name, baseline in metrics["baselines"].items()
                },
            ),
            distance=localisation and curves.recall_over_distance(localisation),
            precision=doubt
            and curves.precision_over_recall(
                {
                    score_model.WORDS[name]: one["curve"]
                    for name, one in doubt["scores"].items()
                }
            ),
            stated=_stated(doubt),
            score_words=score_model.WORDS,
            method_words=estimate.METHODS,
            maps=_maps(places),
            cases=cases,
            pairs=pairs,
            conditions=sorted({case.condition for case in cases} - {""}),
            most_groups=_GROUPS,
        ),
    )


def _stated(doubt: dict[str, Any] | None) -> curves.Chart | None:
    """Right answers over what was stated; None without a calibration."""
    diagrams = {
        score_model.WORDS[name]: one["reliability"]
        for name, one in (doubt or {"scores": {}})["scores"].items()
        if name in ("margin", score_model.COMBINED) and one["reliability"]
    }
    return curves.stated_and_right(diagrams) if diagrams else None


def _maps(places: Places) -> list[dict[str, Any]]:
    """A map of each of the largest cities, and its name."""
    known = np.isfinite(places.queries).all(axis=1)
    names, counts = np.unique(
        places.cities[known].astype(str), return_counts=True
    )
    order = np.argsort(-counts, kind="stable")[:_MAPS]
    return [
        {
            # One city needs no name.
            "name": str(city) if len(names) > 1 else "",
            "map": _map(places, known & (places.cities == city)),
        }
        for city in names[order]
    ]


def _map(places: Places, of_city: np.ndarray) -> drawing.PointMap:
    queries, placed = places.queries[of_city], places.placed[of_city]
    right = places.right[of_city]
    layers = [
        drawing.Layer(kind=kind, name=name, points=points, radius=radius)
        for kind, name, points, radius in (
            ("database", "database", places.database, drawing.DATABASE_RADIUS),
            ("right", "placed right", queries[right], drawing.QUERY_RADIUS),
            ("wrong", "placed wrong", queries[~right], drawing.QUERY_RADIUS),
        )
    ]
    return drawing.draw_map(
        layers,
        drawing.corners(queries),
        title="Map of the database and of the queries; a line leads from a "
        "wrong query to where it was placed",
        lines=np.stack([queries, placed], axis=1)[~right],
    )
