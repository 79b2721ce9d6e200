"""The page that shows an evaluation: one HTML file that needs nothing else."""

import base64
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from sare_tf import files

_TEMPLATE = Path(__file__).parent / "templates" / "report.html"
# Twice the width at which a laptop shows a picture, for sharp screens.
_THUMBNAIL_WIDTH = 320


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of the page.

    Args:
        encoded: its JPEG or PNG bytes.
        name: what to call it.
        correct: whether it is a positive; None for a query.
        squared_distance: to the query's descriptor.
        metres: to where the query was taken, None if unknown.
    """

    encoded: bytes
    name: str
    correct: bool | None = None
    squared_distance: float | None = None
    metres: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A query and what was retrieved for it, nearest first.

    Args:
        query: the query.
        retrieved: its nearest database images.
        missed: the positive nearest to it, where none was retrieved.
    """

    query: Picture
    retrieved: Sequence[Picture]
    missed: Picture | None = None


def write(
    path: str | Path,
    *,
    metrics: dict[str, Any],
    recall_curve: Sequence[float],
    best: Sequence[Case],
    worst: Sequence[Case],
) -> None:
    """Writes the page.

    Args:
        path: the HTML file.
        metrics: content of metrics.json.
        recall_curve: recall@N for N = 1, 2, 3 and so on.
        best: queries to show as the best ones.
        worst: queries to show as the worst ones.

    Raises:
        ValueError: a picture that cannot be decoded; names it.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thumbnail"] = thumbnail
    environment.filters["metres"] = _metres
    environment.filters["short"] = _short
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        metrics=metrics,
        curve=_curve(recall_curve, [int(k) for k in metrics["recall_at"]]),
        best=best,
        worst=worst,
    )
    files.write_text(path, page)


def thumbnail(picture: Picture) -> str:
    """A small JPEG of the picture, as a data URL.

    Raises:
        ValueError: it cannot be decoded; names it.
    """
    try:
        image = Image.open(io.BytesIO(picture.encoded)).convert("RGB")
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
    image.save(encoded, "JPEG", quality=82, optimize=True)
    text = base64.b64encode(encoded.getvalue()).decode("ascii")
    return f"data:image/jpeg;base64,{text}"


def _curve(recall_curve: Sequence[float], marked: Sequence[int]) -> str:
    """Recall over N as a data URL of an SVG; the marked N carry values."""
    # A fixed salt and no date: the same figures give the same page.
    settings = {
        "svg.hashsalt": "sare_tf",
        "font.family": "DejaVu Sans",
        "font.size": 12,
        "text.color": "#1d2733",
        "axes.edgecolor": "#b8c1cc",
        "axes.labelcolor": "#56616e",
        "xtick.color": "#56616e",
        "ytick.color": "#56616e",
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes = figure.add_subplot()
        numbers = range(1, len(recall_curve) + 1)
        axes.plot(
            numbers,
            recall_curve,
            color="#1f6feb",
            linewidth=2.2,
            marker="o",
            markevery=[k - 1 for k in marked],
            markersize=6.5,
            clip_on=False,
            zorder=3,
        )
        for k in marked:
            # Below and to the right, where a rising curve leaves room.
            last = k == len(recall_curve)
            low = recall_curve[k - 1] < 0.12
            axes.annotate(
                f"{100 * recall_curve[k - 1]:.1f}",
                (k, recall_curve[k - 1]),
                xytext=(4 if last else 6, 9 if low else -19),
                textcoords="offset points",
                ha="right" if last else "left",
                fontweight="bold",
            )
        axes.set_ylim(0, 1)
        axes.set_xlim(0.5, len(recall_curve) + 0.5)
        axes.set_xticks(marked)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("N, number of images retrieved")
        axes.set_ylabel("recall@N")
        axes.grid(axis="y", color="#e4e8ed", zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
        drawing = io.BytesIO()
        figure.savefig(drawing, format="svg", metadata={"Date": None})
    text = base64.b64encode(drawing.getvalue()).decode("ascii")
    return f"data:image/svg+xml;base64,{text}"


def _metres(metres: float) -> str:
    if metres < 100:
        return f"{metres:.1f} m"
    return f"{metres:.0f} m" if metres < 10_000 else f"{metres / 1000:.0f} km"


def _short(name: str) -> str:
    """The file name, with its folder if that says more than its role."""
    *folders, file = name.split("/")
    if not folders or folders[-1] in ("database", "queries"):
        return file
    return f"{folders[-1]}/{file}"
