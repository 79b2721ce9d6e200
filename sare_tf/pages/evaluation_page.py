"""The page that shows an evaluation: one HTML file that needs nothing else."""

import base64
import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter
from PIL import Image, ImageOps

from sare_tf.runtime import atomic_files

TEMPLATES = Path(__file__).parent / "templates"
_THUMBNAIL_WIDTH = 240
# Groups in a table of the page, and cities with a map of their own.
_GROUPS = 24
_MAPS = 4
# A map with more points than this holds them as pixels.
_DRAWN_POINTS = 3000
_WIDTH_INCHES = 5.4
_COLOURS = ("#1f6feb", "#8a5cd6", "#c26a00")
_RIGHT, _WRONG = "#1a8f4c", "#d1343a"
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of the page.

    Args:
        encoded: its JPEG or PNG bytes, None where the records lack it.
        name: what to call it.
        correct: whether it is a positive; None for a query.
        squared_distance: to the query's descriptor.
        metres: to where the query was taken, None if unknown.
    """

    encoded: bytes | None
    name: str
    correct: bool | None = None
    squared_distance: float | None = None
    metres: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A query and what was retrieved for it, nearest first.

    Args:
        query: the query.
        condition: its condition, empty if unknown.
        retrieved: its nearest database images.
        missed: the positive nearest to it, where none was retrieved.
    """

    query: Picture
    condition: str = ""
    retrieved: Sequence[Picture]
    missed: Picture | None = None

    @property
    def kind(self) -> str:
        """ "right" if the first image retrieved is a positive, else "wrong"."""
        first = self.retrieved[0] if self.retrieved else None
        return "right" if first and first.correct else "wrong"


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


def write(
    path: str | Path,
    *,
    metrics: dict[str, Any],
    places: Places,
    cases: Sequence[Case],
) -> None:
    """Writes the page.

    Args:
        path: the HTML file.
        metrics: content of metrics.json.
        places: what the maps show.
        cases: queries of the gallery, in order.

    Raises:
        ValueError: a picture that cannot be decoded; names it.
    """
    page = environment().get_template("report.html")
    atomic_files.write_text(
        path,
        page.render(
            metrics=metrics,
            curve=_recall_curve(
                metrics["recall_curve"],
                [int(k) for k in metrics["recall_at"]],
                searched=metrics["search"]["recall_curve"],
            ),
            distance=_distance_curve(metrics["localisation"]),
            maps=_maps(places),
            cases=cases,
            conditions=sorted({case.condition for case in cases} - {""}),
            most_groups=_GROUPS,
        ),
    )


def environment() -> jinja2.Environment:
    """How templates of pages are read."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thumbnail"] = thumbnail
    environment.filters["metres"] = _metres
    environment.filters["short"] = _short
    environment.filters["percent"] = _percent
    return environment


def thumbnail(picture: Picture) -> str:
    """A small JPEG of the picture, upright, as a data URL.

    Raises:
        ValueError: it cannot be decoded; names it.
    """
    try:
        image = Image.open(io.BytesIO(picture.encoded))
        image = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError) as error:
        raise ValueError(
            f"Expected an image. Received: {picture.name} ({error}). Repair "
            "or remove it."
        ) from error
    height = max(1, round(image.height * _THUMBNAIL_WIDTH / image.width))
    if image.width > _THUMBNAIL_WIDTH:
        image = image.resize(
            (_THUMBNAIL_WIDTH, height), Image.Resampling.LANCZOS
        )
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=80, optimize=True)
    return _data_url("image/jpeg", encoded.getvalue())


def _recall_curve(
    curve: dict[str, list[float]],
    marked: Sequence[int],
    *,
    searched: Sequence[float] | None,
) -> str:
    """Recall over N with its interval; the marked N carry values.

    Dashed, if given: recall of what the index's own search finds.
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
            axes.legend(frameon=False, loc="lower right")
        for k in marked:
            # Below and to the right, where a rising curve leaves room.
            last = k == len(recall) > 1
            low = recall[k - 1] < 0.12
            axes.annotate(
                f"{100 * recall[k - 1]:.1f}",
                (k, recall[k - 1]),
                xytext=(2 if last else 5, 9 if low else -18),
                textcoords="offset points",
                ha="right" if last else "left",
                fontweight="bold",
            )
        axes.set_xscale("log")
        axes.set_xlim(0.9, max(1.1 * len(recall), 2))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(marked, [str(k) for k in marked])
        axes.set_xlabel("N, number of images retrieved")
        _shares(axes, "recall@N")

    return drawing(draw, height=3.5)


def _distance_curve(localisation: dict[str, Any] | None) -> str | None:
    """Share of queries placed within a distance, for every N measured."""
    if localisation is None:
        return None
    curves = dict(localisation["recall_over_distance"])
    metres = curves.pop("metres")

    def draw(axes: Axes) -> None:
        for colour, (k, shares) in zip(_COLOURS, curves.items(), strict=False):
            label = "first image" if k == "1" else f"best of {k}"
            axes.plot(metres, shares, color=colour, linewidth=2.2, label=label)
        axes.set_xlim(0, metres[-1])
        axes.set_xlabel("metres from the query, at most")
        axes.legend(frameon=False, loc="lower right")
        _shares(axes, "share of queries")

    return drawing(draw, height=3.5)


def _maps(places: Places) -> list[dict[str, Any]]:
    """A map of each of the largest cities: its name and its drawing."""
    known = np.isfinite(places.queries).all(axis=1)
    names, counts = np.unique(
        places.cities[known].astype(str), return_counts=True
    )
    order = np.argsort(-counts, kind="stable")[:_MAPS]
    return [
        {
            # One city needs no name.
            "name": str(names[at]) if len(names) > 1 else "",
            "drawing": _map(places, known & (places.cities == names[at])),
        }
        for at in order
    ]


def _map(places: Places, chosen: np.ndarray) -> str:
    queries, placed = places.queries[chosen], places.placed[chosen]
    right = places.right[chosen]
    low, high = frame(queries)
    inside = ((places.database >= low) & (places.database <= high)).all(axis=1)
    # One point for all images in a few hundredths of the map.
    cells = (places.database[inside] - low) // ((high - low)[0] / 400)
    _, kept = np.unique(cells, axis=0, return_index=True)
    database = places.database[inside][kept] - low
    lines = np.stack([queries, placed], axis=1)[~right] - low
    pixels = len(database) + len(queries) > _DRAWN_POINTS

    def draw(axes: Axes) -> None:
        axes.add_collection(
            LineCollection(
                lines[np.isfinite(lines).all(axis=(1, 2))],
                colors=_WRONG,
                linewidths=0.8,
                alpha=0.35,
                rasterized=pixels,
            )
        )
        for points, colour, size, label in (
            (database, "#b9c3ce", 34, "database"),
            (queries[~right] - low, _WRONG, 16, "placed wrong"),
            (queries[right] - low, _RIGHT, 16, "placed right"),
        ):
            axes.scatter(
                *points.T,
                s=size if len(points) < 500 else size / 4,
                c=colour,
                linewidths=0,
                label=label,
                rasterized=pixels,
                zorder=3,
            )
        finish_map(axes, high - low)

    return drawing(draw, height=4.8)


def frame(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners, in metres, of a map with all points [P, 2] inside."""
    low, high = points.min(axis=0), points.max(axis=0)
    middle, size = (low + high) / 2, 1.08 * (high - low) + 60
    # As wide as the page's column, about.
    width = max(size[0], 1.15 * size[1])
    half = np.array([width, width / 1.15]) / 2
    return middle - half, middle + half


def finish_map(axes: Axes, extent_m: np.ndarray) -> None:
    """Gives a map its limits, axes and legend; extent in metres east, north."""
    axes.set_xlim(0, extent_m[0])
    axes.set_ylim(0, extent_m[1])
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("metres east")
    axes.set_ylabel("metres north")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        frameon=False,
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncols=3,
        handletextpad=0.1,
        columnspacing=1.2,
    )


def _shares(axes: Axes, label: str) -> None:
    """Shares from 0 to 1 on the upright axis."""
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel(label)
    axes.grid(axis="y", color="#e4e8ed")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def drawing(draw: Callable[[Axes], None], *, height: float) -> str:
    """A drawing as a data URL."""
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
        draw(figure.add_subplot())
        encoded = io.BytesIO()
        figure.savefig(encoded, format="svg", dpi=150, metadata={"Date": None})
    return _data_url("image/svg+xml", encoded.getvalue())


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _metres(metres: float) -> str:
    if metres < 100:
        return f"{metres:.1f} m"
    return f"{metres:.0f} m" if metres < 10_000 else f"{metres / 1000:.0f} km"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _short(name: str) -> str:
    """The file name, with its folder if that says more than its role."""
    *folders, file = name.split("/")
    if not folders or folders[-1] in ("database", "queries"):
        return file
    return f"{folders[-1]}/{file}"
