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
        tuple(map(int, pair))
        for pair in re.findall(r"M(-?\d+) (-?\d+)h0", path.get("d"))
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
        low,
        high,
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
    drawn = drawing.draw_map([], low, high, title="")
    assert f">{scale}</text>" in drawn.svg
    metres = float(scale.split()[0]) * (1000 if "km" in scale else 1)
    (end,) = re.findall(r"v12H(\d+)v", drawn.svg)
    assert int(end) == pytest.approx(1000 * metres / width, abs=0.5)


def test_points_that_cover_each_other_are_one():
    low, high = np.zeros(2), np.array([1000.0, 500.0])
    points = [[1, 1], [13, 13], [15, 1], [15, 2]]
    drawn = drawing.draw_map([_layer(points)], low, high, title="")
    # Cells of 14 units, the diameter of a point, from the lower left.
    assert _placed(drawn, "database") == [(1, 499), (15, 499)]


def test_lines_and_marks():
    low, high = np.zeros(2), np.array([1000.0, 500.0])
    drawn = drawing.draw_map(
        [_layer([[5, 5]])],
        low,
        high,
        title='"<Where>"',
        lines=np.array([[[0, 0], [100, 200]], [[0, 0], [np.nan, 1]]]),
        marks=[
            drawing.Mark(kind="right", label="1", point=np.array([10, 20])),
            drawing.Mark(kind="other", label="2", point=np.array([10, 21])),
        ],
    )
    root = ElementTree.fromstring(drawn.svg)
    assert root.get("aria-label") == '"<Where>"'
    (lines,) = [
        path for path in root.iter(f"{SVG}path") if path.get("class") == "lines"
    ]
    assert lines.get("d") == "M0 500L100 300"
    groups = list(root.iter(f"{SVG}g"))
    # The first mark comes last, above the others.
    assert [group.get("class") for group in groups] == ["other", "right"]
    circles = [group.find(f"{SVG}circle") for group in groups]
    assert [(c.get("cx"), c.get("cy")) for c in circles] == [
        ("10", "479"),
        ("10", "480"),
    ]
    assert int(circles[1].get("r")) > int(circles[0].get("r"))
    # A page's policy may forbid styles.
    assert "style" not in drawn.svg


def test_a_map_of_many_points_stays_small():
    rng = np.random.default_rng(0)
    points = rng.random((100_000, 2)) * [5000, 4000]
    layers = [
        _layer(points[:70_000]),
        _layer(points[70_000:], kind="query", radius=4.5),
    ]
    drawn = drawing.draw_map(layers, *drawing.corners(points), title="")
    assert 1000 < len(_placed(drawn, "query")) < 43_000
    assert len(drawn.svg) < 600_000
