"""Maps of points, as SVG: where images were taken, on every page.

An SVG is 1000 units wide. Its colours are classes of page.css, so that a page
may have a dark form; it has no style of its own, which a page's security policy
could forbid.
"""

import dataclasses
from collections.abc import Sequence

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
_MARK_RADIUS, _FIRST_MARK_RADIUS = 22, 30


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
    """

    kind: str
    label: str
    point: np.ndarray


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
    low: np.ndarray,
    high: np.ndarray,
    *,
    title: str,
    lines: np.ndarray | None = None,
    marks: Sequence[Mark] = (),
) -> PointMap:
    """Draws a map of points.

    Points of a layer that would cover each other are drawn as one, so that the
    size of a map is bounded.

    Args:
        layers: its points, the lowest layer first.
        low: float [2], its lower left corner, of `corners`.
        high: float [2], its upper right corner.
        title: what it shows, for those who cannot see it.
        lines: float [L, 2, 2], from where to where a line is drawn, below the
            points; lines with NaN are left out.
        marks: labelled points, drawn last; the first one is larger and on top.
    """
    frame = _Frame(low, high)
    shapes, key = [], []
    if lines is not None:
        shapes.append(_lines(frame, lines))
    for layer in layers:
        inside = (layer.points >= low) & (layer.points <= high)
        points = layer.points[inside.all(axis=1)]
        if len(points):
            key.append((layer.kind, layer.name))
            shapes.append(_points(frame, points, layer))
    for number in reversed(range(len(marks))):
        radius = _MARK_RADIUS if number else _FIRST_MARK_RADIUS
        shapes.append(_mark(frame, marks[number], radius))
    shapes.append(_scale((high - low)[0], frame.height))
    svg = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="map" role="img" '
        'aria-label="{}" viewBox="{} {} {} {}">{}</svg>'
    ).format(
        title,
        *(-_MARGIN, -_MARGIN, _WIDTH + 2 * _MARGIN),
        frame.height + _MARGIN + _SCALE_HEIGHT,
        Markup("").join(shapes),
    )
    return PointMap(svg=svg, key=key)


class _Frame:
    """Where metres are in the SVG.

    Attributes:
        height: units of the SVG from its top to the lower corner of the map.
        unit_m: metres of a unit.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray):
        self._low = low
        self.unit_m = (high - low)[0] / _WIDTH
        self.height = round((high - low)[1] / self.unit_m)

    def place(self, points: np.ndarray) -> np.ndarray:
        """From metres [..., 2] to whole units; y grows downwards."""
        placed = (points - self._low) / self.unit_m
        placed[..., 1] = self.height - placed[..., 1]
        return placed.round().astype(np.int64)

    def thin(self, points: np.ndarray, units: float) -> np.ndarray:
        """Keeps the first point in each cell of a grid of so many units."""
        cells = (points - self._low) // (units * self.unit_m)
        _, first = np.unique(cells, axis=0, return_index=True)
        return points[np.sort(first)]


def _lines(frame: _Frame, lines: np.ndarray) -> Markup:
    placed = frame.place(lines[np.isfinite(lines).all(axis=(1, 2))])
    # An element of its own cuts off what leads out of the map.
    return Markup(
        '<svg width="{}" height="{}"><path class="lines" d="{}"/></svg>'
    ).format(
        _WIDTH,
        frame.height,
        "".join(f"M{a} {b}L{c} {d}" for (a, b), (c, d) in placed),
    )


def _points(frame: _Frame, points: np.ndarray, layer: Layer) -> Markup:
    diameter = 2 * layer.radius
    if len(points) > _MANY_POINTS:
        diameter /= 2
    placed = frame.place(frame.thin(points, diameter))
    # A line of no length with round ends is a point.
    return Markup('<path class="{}" stroke-width="{:g}" d="{}"/>').format(
        layer.kind, diameter, "".join(f"M{x} {y}h0" for x, y in placed)
    )


def _mark(frame: _Frame, mark: Mark, radius: int) -> Markup:
    x, y = frame.place(mark.point)
    return Markup(
        '<g class="{}"><circle cx="{}" cy="{}" r="{}"/>'
        '<text x="{}" y="{}" font-size="28">{}</text></g>'
    ).format(mark.kind, x, y, radius, x, y + 10, mark.label)


def _scale(width_m: float, height: int) -> Markup:
    """A bar below the map, at most a third of it long, and its length."""
    power = 10.0 ** np.floor(np.log10(width_m / 3))
    metres = power * max(n for n in (1, 2, 5) if n * power <= width_m / 3)
    end = round(metres * _WIDTH / width_m)
    top = height + 14
    return Markup(
        '<path class="scale" d="M0 {0}v12H{1}v-12"/>'
        '<text class="scale" x="{2}" y="{3}" font-size="28">{4}</text>'
    ).format(
        *(top, end, end + 14, top + 20),
        f"{metres:g} m" if metres < 1000 else f"{metres / 1000:g} km",
    )
