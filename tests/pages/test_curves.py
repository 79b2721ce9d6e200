"""The curves of evaluations: where points are, and which values are written.

A plot reaches from 80 to 510 and from 280 up to 34 units.
"""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from sare_tf.pages import curves

SVG = "{http://www.w3.org/2000/svg}"


def _paths(svg, kind):
    """The paths with a class, as arrays of points."""
    found = [
        path.get("d")
        for path in ElementTree.fromstring(svg).iter(f"{SVG}path")
        if kind in path.get("class").split()
    ]
    return [
        np.array(re.findall(r"([\d.]+) ([\d.]+)", path), float)
        for path in found
    ]


def _texts(svg, kind=None):
    return [
        text.text
        for text in ElementTree.fromstring(svg).iter(f"{SVG}text")
        if kind is None or kind in text.get("class", "").split()
    ]


def test_recall_over_n_by_hand():
    """log 2 is half of log 4."""
    recall = [0.5, 0.7, 0.75, 1.0]
    curve = {"recall": recall, "low": [0.25] * 4, "high": [1.0] * 4}
    drawn = curves.recall_over_n(curve, [1, 2, 4], searched=None, baselines={})
    (points,) = _paths(drawn.svg, "curve")
    np.testing.assert_allclose(points[0], [80, 157])
    np.testing.assert_allclose(points[1], [295, 280 - 0.7 * 246], atol=0.1)
    np.testing.assert_allclose(points[3], [510, 34])
    # The interval: along its lower ends, and back along the upper ones.
    (band,) = _paths(drawn.svg, "band")
    np.testing.assert_allclose(band[0], [80, 280 - 0.25 * 246], atol=0.1)
    np.testing.assert_allclose(band[-1], [80, 34])
    assert _texts(drawn.svg, "value") == ["50.0", "70.0", "100.0"]
    assert _texts(drawn.svg, "between") == ["70.0"]
    assert drawn.key == []
    assert "50.0 % at 1, 70.0 % at 2, 100.0 % at 4" in drawn.svg


def test_every_curve_has_a_name():
    curve = dict.fromkeys(("recall", "low", "high"), [0.5, 0.7, 0.9])
    drawn = curves.recall_over_n(
        curve,
        [1],
        searched=[0.4, 0.6, 0.9],
        baselines={"pixels": [0.1, 0.2]},
    )
    assert drawn.key == [
        ("line-a", "exact search"),
        ("line-scann", "ScaNN"),
        ("line-baseline", "pixels"),
    ]
    assert len(_paths(drawn.svg, "curve")) == 3
    # The model's own curve is drawn last, above the others.
    kinds = re.findall(r'class="curve ([\w-]+)"', drawn.svg)
    assert kinds == ["line-baseline", "line-scann", "line-a"]


def test_curve_of_one_image():
    curve = dict.fromkeys(("recall", "low", "high"), [1.0])
    drawn = curves.recall_over_n(curve, [1], searched=[1.0], baselines={})
    assert _texts(drawn.svg, "value") == ["100.0"]


def test_recall_over_distance_by_hand():
    curve = {"metres": [0, 1, 2], "1": [0, 0.5, 0.5], "5": [0.5, 1, 1]}
    drawn = curves.recall_over_distance({"recall_over_distance": curve})
    assert [name for _, name in drawn.key] == ["first image", "best of 5"]
    best, first = _paths(drawn.svg, "curve")
    np.testing.assert_allclose(first, [[80, 280], [295, 157], [510, 157]])
    np.testing.assert_allclose(best, [[80, 157], [295, 34], [510, 34]])
    assert {"0", "0.5", "1", "1.5", "2"} <= set(_texts(drawn.svg))


def test_names_of_runs_are_escaped():
    drawn = curves.recalls_over_n({"A <a>": [0.1, 0.2], "B": [0.2, 0.3]}, [1])
    assert drawn.key == [("line-a", "A <a>"), ("line-b", "B")]
    assert len(_paths(drawn.svg, "curve")) == 2
    assert "<a>" not in drawn.svg


@pytest.mark.parametrize("difference", [0.05, -0.05, 0])
def test_a_difference_as_a_bar(difference):
    """0 is in the middle, 100, and the largest one 96 beside it."""
    ends = [difference - 0.02, difference + 0.05]
    bar = curves.difference_bar(difference, ends, 0.1, "unclear")
    assert 'class="interval unclear"' in bar
    left, right = re.findall(r'class="range" d="M([\d.]+) 8H([\d.]+)"', bar)[0]
    assert float(left) == pytest.approx(100 + 960 * ends[0], abs=0.1)
    assert float(right) == pytest.approx(100 + 960 * ends[1], abs=0.1)
    (mean,) = re.findall(r'class="mean" d="M([\d.]+) 2', bar)
    assert float(mean) == pytest.approx(100 + 960 * difference, abs=0.1)
    ElementTree.fromstring(bar)
