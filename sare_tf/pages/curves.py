"""Curves of an evaluation, drawn by matplotlib: recall over N and distance."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from sare_tf.pages.html import data_url

_INCHES = 5.4, 3.5
_COLOURS = ("#1f6feb", "#8a5cd6", "#c26a00")
# A fixed salt and no date: the same figures give the same page.
_SETTINGS = {
    "svg.hashsalt": "sare_tf",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": "#1d2733",
    "axes.edgecolor": "#b8c1cc",
    "axes.labelcolor": "#56616e",
    "xtick.color": "#56616e",
    "ytick.color": "#56616e",
}


def recall_over_n(
    curve: dict[str, list[float]],
    marked: Sequence[int],
    *,
    searched: Sequence[float] | None,
    baselines: Mapping[str, Sequence[float]],
) -> str:
    """Draws recall@N over N with its interval.

    Args:
        curve: `recall_curve` of metrics.json.
        marked: the N whose values are written beside the curve.
        searched: recall of the neighbours that the index's own search finds,
            drawn as a dashed curve; None: no such curve.
        baselines: recall of other descriptors by their names, drawn as dotted
            curves.

    Returns:
        An SVG as a data URL.
    """
    recall = curve["recall"]

    def draw(axes: Axes) -> None:
        numbers = range(1, len(recall) + 1)
        axes.fill_between(
            numbers, curve["low"], curve["high"], color="#d5e4fb", linewidth=0
        )
        axes.plot(
            numbers,
            recall,
            color=_COLOURS[0],
            linewidth=2.2,
            marker="o",
            markevery=[k - 1 for k in marked],
            markersize=6,
            clip_on=False,
            label="exact search",
        )
        if searched is not None:
            axes.plot(
                numbers,
                searched,
                color=_COLOURS[2],
                linestyle=(0, (4, 3)),
                linewidth=1.6,
                label="ScaNN",
            )
        for name, shares in baselines.items():
            axes.plot(
                range(1, len(shares) + 1),
                shares,
                color="#56616e",
                linestyle=":",
                linewidth=1.6,
                label=name,
            )
        if searched is not None or baselines:
            axes.legend(frameon=False, loc="lower right")
        for k in marked:
            # Below and to the right, where a rising curve leaves room.
            is_last = k == len(recall) > 1
            is_low = recall[k - 1] < 0.12
            axes.annotate(
                f"{100 * recall[k - 1]:.1f}",
                (k, recall[k - 1]),
                xytext=(2 if is_last else 5, 9 if is_low else -18),
                textcoords="offset points",
                ha="right" if is_last else "left",
                fontweight="bold",
            )
        axes.set_xscale("log")
        axes.set_xlim(0.9, max(1.1 * len(recall), 2))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(marked, [str(k) for k in marked])
        axes.set_xlabel("N, number of images retrieved")
        _show_shares(axes, "recall@N")

    return _svg(draw)


def recall_over_distance(localisation: dict[str, Any]) -> str:
    """Draws the share of queries placed within a distance, for every N.

    Args:
        localisation: `localisation` of metrics.json.

    Returns:
        An SVG as a data URL.
    """
    curves = dict(localisation["recall_over_distance"])
    metres = curves.pop("metres")

    def draw(axes: Axes) -> None:
        for colour, (k, shares) in zip(_COLOURS, curves.items(), strict=False):
            label = "first image" if k == "1" else f"best of {k}"
            axes.plot(metres, shares, color=colour, linewidth=2.2, label=label)
        axes.set_xlim(0, metres[-1])
        axes.set_xlabel("metres from the query, at most")
        axes.legend(frameon=False, loc="lower right")
        _show_shares(axes, "share of queries")

    return _svg(draw)


def _show_shares(axes: Axes, label: str) -> None:
    """Gives the upright axis percentages from 0 to 100."""
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel(label)
    axes.grid(axis="y", color="#e4e8ed")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _svg(draw: Callable[[Axes], None]) -> str:
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=_INCHES, layout="constrained")
        draw(figure.add_subplot())
        encoded = io.BytesIO()
        figure.savefig(encoded, format="svg", dpi=150, metadata={"Date": None})
    return data_url("image/svg+xml", encoded.getvalue())
