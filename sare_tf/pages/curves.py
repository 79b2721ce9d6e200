"""Curves of evaluations, as SVG: recall, precision and stated shares.

Like the maps, curves have their colours from classes of page.css. Sizes of
texts are there as well: in units of an SVG, larger on a narrow screen.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

# Units of an SVG, and the edges of its plot; texts of a narrow screen fit.
_WIDTH, _HEIGHT = 540, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 510, 34, 280
_SHARES = (0, 0.25, 0.5, 0.75, 1)
# Classes of page.css for the curves of a drawing, in order.
KINDS = ("line-a", "line-b", "line-c", "line-d", "line-e", "line-f")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
    """Drawn curves.

    Attributes:
        svg: the SVG element.
        key: class and name of each curve; empty for one curve.
    """

    svg: Markup
    key: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Curve:
    """A curve.

    Args:
        kind: its class in page.css.
        name: its name.
        x: numbers along.
        shares: numbers upwards, from 0 to 1.
    """

    kind: str
    name: str
    x: Sequence[float]
    shares: Sequence[float]


def recall_over_n(
    curve: dict[str, list[float]],
    marked: Sequence[int],
    *,
    searched: Sequence[float] | None,
    baselines: Mapping[str, Sequence[float]],
) -> Chart:
    """Draws recall@N over N with its interval.

    Args:
        curve: `recall_curve` of metrics.json.
        marked: the N whose values are written beside the curve.
        searched: recall of the neighbours that the index's own search finds,
            drawn as a dashed curve; None: no such curve.
        baselines: recall of other descriptors by their names, drawn as dotted
            curves.
    """
    recall = curve["recall"]
    named = {"exact search": ("line-a", recall)}
    if searched is not None:
        named["ScaNN"] = ("line-scann", searched)
    for name, shares in baselines.items():
        named[name] = ("line-baseline", shares)
    curves = [
        _Curve(kind=kind, name=name, x=range(1, len(values) + 1), shares=values)
        for name, (kind, values) in named.items()
    ]
    along = _logarithmic(len(recall))
    band = Markup('<path class="band" d="{}Z"/>').format(
        _path(
            [*range(1, len(recall) + 1), *range(len(recall), 0, -1)],
            [*curve["low"], *reversed(curve["high"])],
            along,
        )
    )
    return _draw(
        curves,
        along,
        ticks={k: str(k) for k in marked},
        labels=("recall@N", "N, number of images retrieved"),
        below=band,
        above=_values(recall, marked, along),
        title="Recall over the number of images retrieved: "
        + ", ".join(f"{100 * recall[k - 1]:.1f} % at {k}" for k in marked),
    )


def recalls_over_n(
    runs: Mapping[str, Sequence[float]], ticks: Sequence[int]
) -> Chart:
    """Draws recall@N of several runs over N.

    Args:
        runs: recall@1, recall@2 and so on of each run, by its name.
        ticks: the N that are written below.
    """
    curves = [
        _Curve(
            kind=KINDS[number % len(KINDS)],
            name=name,
            x=range(1, len(shares) + 1),
            shares=shares,
        )
        for number, (name, shares) in enumerate(runs.items())
    ]
    return _draw(
        curves,
        _logarithmic(max(len(shares) for shares in runs.values())),
        ticks={k: str(k) for k in ticks},
        labels=("recall@N", "N, number of images retrieved"),
        title="Recall of each run over the number of images retrieved",
    )


def recall_over_distance(localisation: dict[str, Any]) -> Chart:
    """Draws the share of queries placed within a distance, for every N.

    Args:
        localisation: `localisation` of metrics.json.
    """
    shares_at = dict(localisation["recall_over_distance"])
    metres = shares_at.pop("metres")
    curves = [
        _Curve(
            kind=kind,
            name="first image" if k == "1" else f"best of {k}",
            x=metres,
            shares=shares,
        )
        for kind, (k, shares) in zip(KINDS, shares_at.items(), strict=False)
    ]
    last = max(metres[-1], 1)
    return _draw(
        curves,
        lambda x: np.asarray(x, np.float64) / last,
        ticks={last * part / 4: f"{last * part / 4:g}" for part in range(5)},
        labels=("share of queries", "metres from the query, at most"),
        title="Share of queries with an image retrieved within a distance",
    )


def precision_over_recall(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
) -> Chart:
    """Draws the precision of answers over their recall, for several scores.

    Args:
        curves: `recall` and `precision` of each score, by its name.
    """
    return _draw(
        [
            _Curve(
                kind=kind, name=name, x=one["recall"], shares=one["precision"]
            )
            for kind, (name, one) in zip(KINDS, curves.items(), strict=False)
        ],
        lambda x: np.asarray(x, np.float64),
        ticks={share: f"{100 * share:g} %" for share in _SHARES},
        labels=("precision of accepted answers", "recall"),
        title="Precision of accepted answers over their recall, for each score",
    )


def stated_and_right(
    diagrams: Mapping[str, Sequence[Mapping[str, float]]],
) -> Chart:
    """Draws the share of right answers over the share that was stated.

    Args:
        diagrams: `reliability` of metrics.json of some scores, by name.
    """
    curves = [
        _Curve(
            kind=kind,
            name=name,
            x=[one["stated"] for one in diagram],
            shares=[one["right"] for one in diagram],
        )
        for kind, (name, diagram) in zip(KINDS, diagrams.items(), strict=False)
    ]

    def along(x: Sequence[float]) -> np.ndarray:
        return np.asarray(x, np.float64)

    points = [
        Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(
            one.kind, x, y
        )
        for one in reversed(curves)
        for x, y in zip(*_place(along(one.x), one.shares), strict=True)
    ]
    perfect = _Curve(
        kind="line-baseline", name="as stated", x=(0, 1), shares=(0, 1)
    )
    return _draw(
        [*curves, perfect],
        along,
        ticks={share: f"{100 * share:g} %" for share in _SHARES},
        labels=("right answers", "stated share of right answers"),
        title="Share of right answers over the share that was stated",
        above=Markup("").join(points),
    )


def difference_bar(
    difference: float, interval: Sequence[float], most: float, kind: str
) -> Markup:
    """Draws a difference and its interval beside 0, as a bar.

    Args:
        difference: a difference of shares.
        interval: its lower and upper end.
        most: the difference at the right edge.
        kind: its class on the page: "better", "worse" or "unclear".
    """
    low, high = interval
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="interval {}" '
        'role="img" aria-label="{:+.1f}, {:+.1f} to {:+.1f}" '
        'viewBox="0 0 200 16" preserveAspectRatio="none">'
        '<path class="zero" d="M100 0V16"/>'
        '<path class="range" d="M{:.1f} 8H{:.1f}"/>'
        '<path class="mean" d="M{:.1f} 2V14"/></svg>'
    ).format(
        kind,
        *(100 * difference, 100 * low, 100 * high),
        *(100 + 96 * value / most for value in (low, high, difference)),
    )


def _logarithmic(count: int) -> Callable[[Sequence[float]], np.ndarray]:
    """From N to shares of the width; with one N, it is at the left."""
    span = np.log(max(count, 2))
    return lambda n: np.log(np.asarray(n, np.float64)) / span


def _place(
    shares_along: np.ndarray, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """From shares of width and height to units; y grows downwards."""
    x = _LEFT + shares_along * (_RIGHT - _LEFT)
    return x, _BOTTOM - np.asarray(shares, np.float64) * (_BOTTOM - _TOP)


def _path(
    x: Sequence[float],
    shares: Sequence[float],
    along: Callable[[Sequence[float]], np.ndarray],
) -> str:
    points = zip(*_place(along(x), shares), strict=True)
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)


def _values(
    recall: Sequence[float],
    marked: Sequence[int],
    along: Callable[[Sequence[float]], np.ndarray],
) -> Markup:
    """Points on the curve, with their values in percent."""
    shapes = []
    shares = [recall[k - 1] for k in marked]
    for k, x, y, share in zip(
        marked, *_place(along(marked), shares), shares, strict=True
    ):
        # Below, where a rising curve leaves room.
        is_low = share < 0.2
        shapes.append(
            Markup(
                '<circle class="line-a" cx="{:.1f}" cy="{:.1f}" r="4.5"/>'
                '<text class="value{}" x="{:.1f}" y="{:.1f}" '
                'text-anchor="{}">{:.1f}</text>'
            ).format(
                *(x, y),
                # Those that a narrow screen has no room for.
                "" if k in (marked[0], marked[-1]) else " between",
                *(x, y - 12 if is_low else y + 26),
                "end" if k == len(recall) > 1 else "start",
                100 * share,
            )
        )
    return Markup("").join(shapes)


def _draw(
    curves: Sequence[_Curve],
    along: Callable[[Sequence[float]], np.ndarray],
    *,
    ticks: Mapping[float, str],
    labels: tuple[str, str],
    title: str,
    below: str = "",
    above: str = "",
) -> Chart:
    """Draws curves over an axis from 0 to 100 %.

    Args:
        curves: the curves, the lowest first.
        along: from numbers along to shares of the width.
        ticks: numbers along and their texts.
        labels: what is upwards, and along.
        title: what is shown, for those who cannot see it.
        below: shapes below the curves.
        above: shapes above them.
    """
    shapes = []
    for share in _SHARES:
        _, y = _place(np.zeros(1), [share])
        shapes.append(
            Markup(
                '<path class="grid" d="M{} {:g}H{}"/>'
                '<text x="{}" y="{:g}" text-anchor="end">{:.0f} %</text>'
            ).format(_LEFT, y[0], _RIGHT, _LEFT - 8, y[0] + 5, 100 * share)
        )
    for x, text in zip(
        _place(along(list(ticks)), np.zeros(len(ticks)))[0],
        ticks.values(),
        strict=True,
    ):
        shapes.append(
            Markup(
                '<path class="tick" d="M{0:.1f} {1}v6"/>'
                '<text x="{0:.1f}" y="{2}" text-anchor="middle">{3}</text>'
            ).format(x, _BOTTOM, _BOTTOM + 26, text)
        )
    shapes.append(below)
    shapes.extend(
        Markup('<path class="curve {}" d="{}"/>').format(
            one.kind, _path(one.x, one.shares, along)
        )
        for one in reversed(curves)
    )
    shapes.append(above)
    svg = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" '
        'aria-label="{}" viewBox="0 0 {} {}">{}<text x="0" y="20">{}</text>'
        '<text x="{}" y="{}" text-anchor="end">{}</text></svg>'
    ).format(
        *(title, _WIDTH, _HEIGHT, Markup("").join(shapes), labels[0]),
        *(_RIGHT, _HEIGHT - 8, labels[1]),
    )
    key = [(one.kind, one.name) for one in curves] if len(curves) > 1 else []
    return Chart(svg=svg, key=key)
