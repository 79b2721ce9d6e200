"""Maps of points, as SVG: where images were taken, on every page.

An SVG is 1000 units wide, and as high as its map needs. Its points lie in an
inner SVG, whose viewBox `map.js` changes to move and zoom the map; without
scripts, and on paper, a map shows its first view. Colours are classes of
page.css, so that a page may have a dark form. A map has no style of its own,
which a page's security policy could forbid.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup

_WIDTH = 1000
# Least and largest width of a map, by its height: it fits the column of a page,
# and an elongated city does not leave most of it empty.
_LEAST_WIDTH, _LARGEST_WIDTH = 1.15, 2.3
# Room for points at the edge, and for the scale below the map.
_MARGIN, _SCALE_HEIGHT = 12, 56
# Radii of points; those of a layer with many points are half as large.
DATABASE_RADIUS, QUERY_RADIUS = 7.0, 4.5
_MANY_POINTS = 500
# Ours: points of a layer that are drawn, at most, and decimals of their units.
MOST_POINTS = 6000
_DECIMALS = 1
_MARK_RADIUS, _FIRST_MARK_RADIUS = 22, 30
# Labels of one mark, at most.
_MOST_LABELS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """Points of the same kind.

    Args:
        kind: their classes in page.css.
        name: their name in the key of the map.
        points: float [P, 2], metres east and north. Points outside of the map,
            and NaN, are left out.
        radius: radius of a point, in units of the SVG.
    """

    kind: str
    name: str
    points: np.ndarray
    radius: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mark:
    """A point with a label.

    Args:
        kind: its class in page.css.
        label: a text of one or two letters.
        point: float [2], metres east and north.
        name: what it is, shown when it is pointed at.
    """

    kind: str
    label: str
    point: np.ndarray
    name: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointMap:
    """A drawn map.

    Attributes:
        svg: the SVG element.
        key: class and name of each of its layers.
    """

    svg: Markup
    key: Sequence[tuple[str, str]]


def corners(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lower left and upper right corner of a map, in metres.

    Args:
        points: float [P, 2]; all of them lie inside, away from the edges.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    middle, size = (low + high) / 2, 1.08 * (high - low) + 60
    ratio = np.clip(size[0] / size[1], _LEAST_WIDTH, _LARGEST_WIDTH)
    width = max(size[0], ratio * size[1])
    half = np.array([width, width / ratio]) / 2
    return middle - half, middle + half


def draw_map(
    layers: Sequence[Layer],
    window: tuple[np.ndarray, np.ndarray],
    *,
    title: str,
    lines: np.ndarray | None = None,
    marks: Sequence[Mark] = (),
    whole: tuple[np.ndarray, np.ndarray] | None = None,
    world_per_m: float | None = None,
) -> PointMap:
    """Draws a map of points.

    A layer of many points is thinned, so that the size of a map is bounded.

    Args:
        layers: its points, the lowest layer first.
        window: the lower left and upper right corner of its first view, of
            `corners`.
        title: what it shows, for those who cannot see it.
        lines: float [L, 2, 2], from where to where a line is drawn, below the
            points; lines with NaN are left out.
        marks: labelled points, drawn last; the first one is larger and on top.
            Marks at one point are drawn as one.
        whole: corners of what the map shows when it is zoomed out; None: the
            window.
        world_per_m: if the metres are those of a Web Mercator map, the share of
            the world's width that is a metre; tiles of such maps can then be
            drawn below this one.
    """
    frame = _Frame(*window)
    low, high = _union(window, whole)
    shapes, key = [], []
    if lines is not None:
        shapes.append(_lines(frame, lines))
    for layer in layers:
        points = layer.points[_is_inside(layer.points, low, high)]
        if len(points):
            key.append((layer.kind, layer.name))
            diameter = 2 * layer.radius
            if _is_inside(points, *window).sum() > _MANY_POINTS:
                diameter /= 2
            shapes.append(_points(frame, points, layer.kind, diameter))
    shapes.extend(reversed(_marks(frame, marks)))
    world = Markup("")
    if world_per_m is not None:
        world = Markup(' data-world="{!r} {!r} {!r}"').format(
            float(frame.low[0] * world_per_m),
            float(-(frame.low[1] + frame.height * frame.unit_m) * world_per_m),
            float(frame.unit_m * world_per_m),
        )
    width, height = (side + 2 * _MARGIN for side in (_WIDTH, frame.height))
    view = (-_MARGIN, -_MARGIN, width, height)
    left, lower = frame.place(low)
    right, upper = frame.place(high)
    svg = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="map" role="img" '
        'aria-label="{}" viewBox="{} {} {} {}" data-unit-m="{:.6g}" '
        'data-whole="{} {}"{}>'
        '<svg class="view" x="{}" y="{}" width="{}" height="{}" '
        'viewBox="{} {} {} {}">{}</svg>{}</svg>'
    ).format(
        title,
        *view[:3],
        height + _SCALE_HEIGHT,
        frame.unit_m,
        _text((left, upper)),
        _text((right - left, lower - upper)),
        world,
        *view,
        *view,
        Markup("").join(shapes),
        _scale(frame.unit_m * _WIDTH, frame.height + _MARGIN),
    )
    return PointMap(svg=svg, key=key)


def thin(points: np.ndarray, cell_m: float, most: int) -> np.ndarray:
    """Keeps the first point in each cell of a grid.

    Args:
        points: float [P, 2], metres.
        cell_m: side of a cell; doubled until few enough points remain.
        most: points to keep, at most.
    """
    while True:
        cells = (points - points.min(axis=0)) // cell_m
        cells = cells.astype(np.int64)
        # Both numbers of a cell in one, which sorts faster.
        cells = cells[:, 0] * (cells[:, 1].max() + 1) + cells[:, 1]
        _, first = np.unique(cells, return_index=True)
        points = points[np.sort(first)]
        if len(points) <= most:
            return points
        cell_m *= 2


class _Frame:
    """Where metres are in the SVG.

    Attributes:
        low: the lower left corner, metres.
        height: units of the SVG from its top to the lower corner of the map.
        unit_m: metres of a unit.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray):
        self.low = low
        self.unit_m = (high - low)[0] / _WIDTH
        self.height = round((high - low)[1] / self.unit_m)

    def place(self, points: np.ndarray) -> np.ndarray:
        """From metres [..., 2] to units; y grows downwards."""
        placed = (points - self.low) / self.unit_m
        placed[..., 1] = self.height - placed[..., 1]
        # Adding 0 turns -0 into 0.
        return placed.round(_DECIMALS) + 0.0


def _union(
    window: tuple[np.ndarray, np.ndarray],
    whole: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The corners of what holds both."""
    if whole is None:
        return window
    return np.minimum(window[0], whole[0]), np.maximum(window[1], whole[1])


def _is_inside(
    points: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Bool [P], whether each point lies between two corners."""
    return ((points >= low) & (points <= high)).all(axis=1)


def _lines(frame: _Frame, lines: np.ndarray) -> Markup:
    placed = frame.place(lines[np.isfinite(lines).all(axis=(1, 2))])
    return Markup('<path class="lines" stroke-width="2" d="{}"/>').format(
        "".join(f"M{_text(start)}L{_text(end)}" for start, end in placed)
    )


def _points(
    frame: _Frame, points: np.ndarray, kind: str, diameter: float
) -> Markup:
    points = thin(points, frame.unit_m / 10**_DECIMALS, MOST_POINTS)
    # A line of no length with round ends is a point.
    return Markup('<path class="{}" stroke-width="{:g}" d="{}"/>').format(
        kind,
        diameter,
        "".join(f"M{_text(point)}h0" for point in frame.place(points)),
    )


def _marks(frame: _Frame, marks: Sequence[Mark]) -> list[Markup]:
    """The first mark first; marks at one point are one."""
    at_point: dict[str, list[int]] = {}
    for number, mark in enumerate(marks):
        place = _text(frame.place(mark.point))
        at_point.setdefault(place, []).append(number)
    shapes = []
    for place, numbers in at_point.items():
        first = marks[numbers[0]]
        label = " ".join(marks[n].label for n in numbers[:_MOST_LABELS])
        if len(numbers) > _MOST_LABELS:
            label += "…"
        radius = _MARK_RADIUS if numbers[0] else _FIRST_MARK_RADIUS
        half = max(radius, 9 * len(label) + 8)
        names = "\n".join(marks[n].name for n in numbers if marks[n].name)
        shapes.append(
            Markup(
                '<g class="mark {}" transform="translate({})" '
                'data-marks="{}">{}<rect x="{}" y="{}" width="{}" height="{}" '
                'rx="{}"/><text y="10" font-size="28">{}</text></g>'
            ).format(
                first.kind,
                place,
                " ".join(marks[n].label for n in numbers),
                Markup("<title>{}</title>").format(names) if names else "",
                *(-half, -radius, 2 * half, 2 * radius, radius),
                label,
            )
        )
    return shapes


def _text(numbers: Iterable[float]) -> str:
    """Writes units, without zeros at the end and never as 1e+06."""
    return " ".join(
        f"{number:.{_DECIMALS}f}".removesuffix(f".{0:0{_DECIMALS}}")
        for number in numbers
    )


def _scale(width_m: float, top: int) -> Markup:
    """A bar below the map, at most a third of it long, and its length."""
    power = 10.0 ** np.floor(np.log10(width_m / 3))
    metres = power * max(n for n in (1, 2, 5) if n * power <= width_m / 3)
    end = round(metres * _WIDTH / width_m)
    return Markup(
        '<g class="scale"><path d="M0 {0}v12H{1}v-12"/>'
        '<text x="{2}" y="{3}" font-size="28">{4}</text></g>'
    ).format(
        *(top + 14, end, end + 14, top + 34),
        f"{metres:g} m" if metres < 1000 else f"{metres / 1000:g} km",
    )
