"""Maps of points: where points are, and what a map holds."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from sare_tf.pages import drawing

SVG = "{http://www.w3.org/2000/svg}"


def _layer(points, *, kind="database", radius=7.0):
    return drawing.Layer(
        kind=kind, name=kind, points=np.asarray(points, float), radius=radius
    )


def _placed(drawn, kind):
    """Points of a layer, in units of the SVG."""
    root = ElementTree.fromstring(drawn.svg)
    (path,) = [
        path for path in root.iter(f"{SVG}path") if path.get("class") == kind
    ]
    return [
        tuple(map(float, pair))
        for pair in re.findall(r"M(-?[\d.]+) (-?[\d.]+)h0", path.get("d"))
    ]


def test_corners_hold_all_points():
    points = np.array([[100.0, 100.0], [1100.0, 300.0]])
    low, high = drawing.corners(points)
    assert (low < 100).all()
    assert (high > [1100, 300]).all()
    # 1000 m and a margin; at most 2.3 times as wide as high.
    np.testing.assert_allclose((high - low)[0], 1.08 * 1000 + 60)
    np.testing.assert_allclose((high - low)[0] / (high - low)[1], 2.3)
    # A tall city: at least 1.15 times as wide as high.
    low, high = drawing.corners(points[:, ::-1])
    np.testing.assert_allclose((high - low)[1], 1.08 * 1000 + 60)
    np.testing.assert_allclose((high - low)[0] / (high - low)[1], 1.15)
    (width, height) = np.subtract(*reversed(drawing.corners(points[:1])))
    assert (width, height) == pytest.approx((1.15 * 60, 60))


def test_points_by_hand():
    """2000 m are 1000 units; y grows downwards from 500."""
    low, high = np.array([5e5, 4e6]), np.array([5e5 + 2000, 4e6 + 1000])
    points = low + [[0, 0], [2000, 1000], [1000, 250], [2001, 5], [5, -1]]
    drawn = drawing.draw_map(
        [_layer(points), _layer([[np.nan, 4e6]], kind="query")],
        (low, high),
        title="Where",
    )
    assert _placed(drawn, "database") == [(0, 500), (1000, 0), (500, 375)]
    # A layer without a point on the map has no name in the key.
    assert drawn.key == [("database", "database")]
    # At most a third of 2000 m.
    assert ">500 m</text>" in drawn.svg


@pytest.mark.parametrize(
    ("width", "scale"),
    [(300, "100 m"), (599, "100 m"), (601, "200 m"), (3000, "1 km")]
    + [(40_000, "10 km"), (15, "5 m")],
)
def test_scale(width, scale):
    low, high = np.zeros(2), np.array([width, width / 1.15])
    drawn = drawing.draw_map([], (low, high), title="")
    assert f">{scale}</text>" in drawn.svg
    metres = float(scale.split()[0]) * (1000 if "km" in scale else 1)
    (end,) = re.findall(r"v12H(\d+)v", drawn.svg)
    assert int(end) == pytest.approx(1000 * metres / width, abs=0.5)


def test_points_of_a_cell_are_one():
    points = np.array([[1, 1], [13, 13], [15, 1], [15, 2], [15, 1]])
    # Cells of 14 m from the lower left.
    kept = drawing.thin(points, 14.0, 10)
    assert kept.tolist() == [[1, 1], [15, 1]]
    # At most 3 points: cells of 1 m hold 4 of them, and those of 2 m 3.
    kept = drawing.thin(points, 1.0, 3)
    assert kept.tolist() == [[1, 1], [13, 13], [15, 1]]
    # All of them, but none twice.
    assert len(drawing.thin(points, 0.1, 10)) == 4


def test_a_cell_is_named_by_its_two_numbers():
    """Points of a line and of a column do not fall together."""
    grid = np.stack(np.meshgrid(np.arange(30), np.arange(40)), -1)
    points = grid.reshape(-1, 2).astype(float)
    assert len(drawing.thin(points, 1.0, 1200)) == 1200


def test_lines_and_marks():
    low, high = np.zeros(2), np.array([1000.0, 500.0])
    drawn = drawing.draw_map(
        [_layer([[5, 5]])],
        (low, high),
        title='"<Where>"',
        lines=np.array([[[0, 0], [100, 200]], [[0, 0], [np.nan, 1]]]),
        marks=[
            drawing.Mark(
                kind="right", label="1", point=np.array([10, 20]), name="<One>"
            ),
            drawing.Mark(kind="other", label="2", point=np.array([10, 21])),
            drawing.Mark(
                kind="right", label="3", point=np.array([10, 20]), name="Three"
            ),
        ],
    )
    root = ElementTree.fromstring(drawn.svg)
    assert root.get("aria-label") == '"<Where>"'
    (lines,) = [
        path for path in root.iter(f"{SVG}path") if path.get("class") == "lines"
    ]
    assert lines.get("d") == "M0 500L100 300"
    groups = [
        group
        for group in root.iter(f"{SVG}g")
        if group.get("class").startswith("mark")
    ]
    # The first mark comes last, above the others, with the third, which lies
    # at its point.
    assert [group.get("class") for group in groups] == [
        "mark other",
        "mark right",
    ]
    assert [group.get("transform") for group in groups] == [
        "translate(10 479)",
        "translate(10 480)",
    ]
    assert [group.get("data-marks") for group in groups] == ["2", "1 3"]
    assert [group.find(f"{SVG}text").text for group in groups] == ["2", "1 3"]
    assert groups[0].find(f"{SVG}title") is None
    assert groups[1].find(f"{SVG}title").text == "<One>\nThree"
    heights = [float(g.find(f"{SVG}rect").get("height")) for g in groups]
    assert heights[1] > heights[0]
    # A page's policy may forbid styles.
    assert "style" not in drawn.svg


def test_many_marks_of_one_point_have_a_short_label():
    marks = [
        drawing.Mark(kind="right", label=str(n), point=np.array([1.0, 1.0]))
        for n in range(1, 6)
    ]
    corners = np.zeros(2), np.array([1000.0, 500.0])
    drawn = drawing.draw_map([], corners, title="", marks=marks)
    assert ">1 2 3…</text>" in drawn.svg
    assert 'data-marks="1 2 3 4 5"' in drawn.svg


def test_more_than_the_first_view():
    """Points around the window are drawn, for who zooms out."""
    window = np.zeros(2), np.array([1000.0, 500.0])
    whole = np.array([-500.0, 100.0]), np.array([1200.0, 700.0])
    drawn = drawing.draw_map(
        [_layer([[0, 0], [-500, 700], [-600, 0]])],
        window,
        title="",
        whole=whole,
        world_per_m=1e-6,
    )
    assert _placed(drawn, "database") == [(0, 500), (-500, -200)]
    root = ElementTree.fromstring(drawn.svg)
    # Left and top, width and height of what holds both.
    assert root.get("data-whole") == "-500 -200 1700 700"
    assert float(root.get("data-unit-m")) == 1.0
    # The upper left corner of the window, and a unit, in widths of the world;
    # there, down is positive.
    world = [float(value) for value in root.get("data-world").split()]
    assert world == pytest.approx([0.0, -500e-6, 1e-6])


def test_a_map_of_many_points_stays_small():
    rng = np.random.default_rng(0)
    points = rng.random((100_000, 2)) * [5000, 4000]
    layers = [
        _layer(points[:70_000]),
        _layer(points[70_000:], kind="query", radius=4.5),
    ]
    drawn = drawing.draw_map(layers, drawing.corners(points), title="")
    assert 1000 < len(_placed(drawn, "query")) <= drawing.MOST_POINTS
    assert len(drawn.svg) < 250_000
