"""The curves of an evaluation: which values they mark."""

import base64

from sare_tf.pages import curves


def _drawing(source: str) -> str:
    kind, encoded = source.split(",")
    assert kind == "data:image/svg+xml;base64"
    return base64.b64decode(encoded).decode()


def test_curve_marks_the_values():
    recall = [0.5, 0.7, 0.95]
    curve = {"recall": recall, "low": recall, "high": recall}
    drawing = _drawing(
        curves.recall_over_n(curve, [1, 3], searched=None, baselines={})
    )
    assert "<!-- 50.0 -->" in drawing
    assert "<!-- 95.0 -->" in drawing
    assert "<!-- 70.0 -->" not in drawing
    assert "<!-- ScaNN -->" not in drawing
    both = curves.recall_over_n(
        curve, [1], searched=[0.4, 0.6, 0.9], baselines={"pixels": [0.1, 0.2]}
    )
    assert "<!-- ScaNN -->" in _drawing(both)
    assert "<!-- pixels -->" in _drawing(both)
    assert "<!-- pixels -->" not in drawing


def test_curve_of_one_image():
    curve = {"recall": [1.0], "low": [1.0], "high": [1.0]}
    drawn = _drawing(
        curves.recall_over_n(curve, [1], searched=[1.0], baselines={})
    )
    assert "<!-- 100.0 -->" in drawn


def test_recall_over_distance_names_every_n():
    curve = {"metres": [0, 1], "1": [0, 0.5], "5": [0.5, 1]}
    drawn = _drawing(
        curves.recall_over_distance({"recall_over_distance": curve})
    )
    assert "<!-- first image -->" in drawn
    assert "<!-- best of 5 -->" in drawn
