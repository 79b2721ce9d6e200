"""A picture of photographs and their matches: one PNG file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from PIL import Image

from sare_tf.dataset import image_decoding
from sare_tf.search.answers import Answer, Match
from sare_tf.search.gallery import Gallery

# Rows of a picture: viewers do not show larger ones. Ours.
MOST_PHOTOS = 50
_INCHES = 2.2
_DPI = 120
# Pixels of an image's longer side, enough for `_INCHES` at `_DPI`.
_SIDE = 320
_QUERY, _SAME, _OTHER = "#1d2733", "#1a8f4c", "#9aa6b2"
_LINE = "#ffb000"
_TEXT = {"fontsize": 8, "color": "#1d2733", "loc": "left", "linespacing": 1.35}


def check(path: str | Path, count: int) -> None:
    """Refuses a picture that cannot be drawn, before any photograph is read.

    Args:
        path: the PNG file.
        count: number of photographs.

    Raises:
        ValueError: the name is not of a PNG file, its folder does not exist, or
            there are too many photographs.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(
            f"Expected a PNG file. Received: picture={str(path)!r}. Name one "
            "that ends in .png."
        )
    if not path.parent.is_dir():
        raise ValueError(
            f"Expected a folder to write to. Received: picture={str(path)!r}, "
            "whose folder does not exist. Make it first."
        )
    if count > MOST_PHOTOS:
        raise ValueError(
            f"Expected at most {MOST_PHOTOS} photographs for a picture. "
            f"Received: {count}. Use --json, or name fewer."
        )


def write(
    path: str | Path,
    rows: Sequence[tuple[str, bytes, Answer]],
    gallery: Gallery,
) -> None:
    """Draws a row for each photograph: itself, then its matches.

    Lines join local features of a photograph and its first match that agree. A
    green frame marks images of the place of the first match, a grey frame
    images of other places.

    Args:
        path: the PNG file.
        rows: name, encoded image and answer of each photograph.
        gallery: gives the images of the matches.
    """
    columns = 1 + max(len(answer.matches) for *_, answer in rows)
    figure = Figure(
        figsize=(_INCHES * columns, 1.05 * _INCHES * len(rows) + 0.2),
        layout="constrained",
        facecolor="white",
    )
    figure.supxlabel(
        "green: the place of the first match, right or wrong", fontsize=8
    )
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, encoded, answer) in zip(grid, rows, strict=True):
        for axes in line:
            axes.set_axis_off()
        title = f"{_short(name)}\n{_sureness(answer)}{_position(answer)}"
        _draw(line[0], encoded, title, _QUERY)
        images = gallery.read([match.image_id for match in answer.matches])
        for rank, (axes, match, image) in enumerate(
            zip(line[1:], answer.matches, images, strict=False), 1
        ):
            colour = _SAME if match.same_place else _OTHER
            _draw(axes, image, _caption(rank, match), colour)
        if answer.matches and images[0] is not None:
            _join(line[0], line[1], answer.matches[0].lines)
    temporary = Path(path).with_name(f".{Path(path).name}.unfinished")
    figure.savefig(temporary, format="png", dpi=_DPI)
    temporary.replace(path)


def _draw(axes: Axes, encoded: bytes | None, title: str, colour: str) -> None:
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    # Dollar signs in a name are not formulas.
    axes.set_title(title, parse_math=False, **_TEXT)
    for spine in axes.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(3)
    if encoded is None:
        axes.text(0.5, 0.5, "not in the records", ha="center", fontsize=8)
        return
    image = Image.fromarray(image_decoding.pixels(encoded))
    width, height = image.size
    image.thumbnail((_SIDE, _SIDE))
    axes.imshow(np.asarray(image), extent=(0, width, height, 0))


def _join(
    left: Axes, right: Axes, lines: Sequence[tuple[float, float, float, float]]
) -> None:
    """Draws lines from one image to another."""
    for x, y, other_x, other_y in lines:
        line = ConnectionPatch(
            # From the lower left corner.
            xyA=(x, 1 - y),
            xyB=(other_x, 1 - other_y),
            coordsA="axes fraction",
            coordsB="axes fraction",
            axesA=left,
            axesB=right,
            color=_LINE,
            linewidth=0.6,
            alpha=0.8,
        )
        # Otherwise the layout makes room for the lines.
        line.set_in_layout(False)
        right.figure.add_artist(line)


def _sureness(answer: Answer) -> str:
    """Returns how sure an answer is, in the width of an image."""
    if answer.rejected:
        return "not in this database"
    reliability = answer.reliability
    if reliability is not None:
        return (
            f"right in {100 * reliability.right:.0f} of 100 "
            f"({reliability.split}, n = {reliability.queries})"
        )
    return answer.confidence_text.partition(" (")[0]


def _position(answer: Answer) -> str:
    """Returns the estimated position, on a line of its own, if there is one."""
    position = answer.position
    if position is None:
        return ""
    where = f"{position.utm_east_m:.0f} m E, {position.utm_north_m:.0f} m N"
    if position.latitude is not None:
        where = f"{position.latitude:.5f}, {position.longitude:.5f}"
    sizes = [one.major_m for one in position.ellipses if one.share == "95"]
    return f"\n{where}" + "".join(f" ± {size:.0f} m" for size in sizes)


def _caption(rank: int, match: Match) -> str:
    where = _short(match.place_id or match.image_id.rpartition("/")[2])
    if match.latitude is not None:
        where = f"{match.latitude:.5f}, {match.longitude:.5f}"
    elif match.utm_east_m is not None:
        where = f"{match.utm_east_m:.0f} m E, {match.utm_north_m:.0f} m N"
    inliers = "" if match.inliers is None else f", {match.inliers} inliers"
    return f"{rank}: d² {match.squared_distance:.3f}{inliers}\n{where}"


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:12]}…{name[-13:]}"
