"""The strip of facades, in pixels."""

import numpy as np

from sare_tf.city.facade_canvas import (
    LEDGE,
    PANE,
    PIXELS_PER_M,
    SKY,
    STRIP_HEIGHT_M,
    STRIP_M,
    WALL,
    FacadeCanvas,
)


def test_boxes_are_where_their_metres_say():
    """At 14 pixels per metre; x from -32 m, y upwards from the last row."""
    assert (PIXELS_PER_M, STRIP_M, STRIP_HEIGHT_M) == (14, 64.0, 21.0)
    canvas = FacadeCanvas()
    canvas.box(-32, 0, 2, 1, (10, 20, 30))
    canvas.box(-31, 1, 1, 3, (300, -5, 7), kind=LEDGE)
    kinds = np.full((21 * 14, 64 * 14), SKY)
    kinds[-14:, :28] = WALL
    kinds[-56:-14, 14:28] = LEDGE
    np.testing.assert_array_equal(canvas.kinds(), kinds)
    colours = canvas.colours()
    assert (colours[kinds == WALL] == (10, 20, 30)).all()
    assert (colours[kinds == LEDGE] == (255, 0, 7)).all()
    assert (colours[kinds == SKY] == 0).all()


def test_each_pane_has_a_number():
    canvas = FacadeCanvas()
    canvas.box(-30, 2, 1, 1, (0, 0, 0), kind=PANE)
    canvas.arch(-28, 2, 1, 2, (0, 0, 0), kind=PANE)
    canvas.box(-26, 2, 1, 1, (0, 0, 0))
    canvas.box(-24, 2, 1, 1, (0, 0, 0), kind=PANE)
    panes = canvas.panes()
    assert set(panes[canvas.kinds() == PANE]) == {1, 2, 3}
    assert (panes[canvas.kinds() != PANE] == 0).all()
    # A column in the middle of each, 2.5 m above the ground.
    row = panes[-35]
    assert [row[14 * x + 7] for x in (2, 4, 6, 8)] == [1, 2, 0, 3]


def test_an_arch_is_round_on_top():
    canvas = FacadeCanvas()
    canvas.arch(-2, 0, 4, 5, (0, 0, 0))
    kinds = canvas.kinds()
    # Rows of 1 m: 3 m of wall, then a half circle with a radius of 2 m.
    middle = kinds[-14 * 3 - 14, 64 * 7 - 28 : 64 * 7 + 28]
    expected_m = 2 * np.sqrt(2**2 - 1**2)
    assert abs((middle == WALL).sum() - 14 * expected_m) <= 2
    assert (kinds[-42:, 64 * 7 - 28 : 64 * 7 + 28] == WALL).all()
    assert (kinds[: -14 * 5 - 1] == SKY).all()
