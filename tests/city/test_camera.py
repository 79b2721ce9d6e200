"""Rays of the camera."""

import numpy as np

from sare_tf.city import moment
from sare_tf.city.camera import View


def test_a_point_is_projected_to_the_ray_that_meets_it():
    rng = np.random.default_rng(0)
    for _ in range(20):
        view = View(
            moment.draw_moment(rng), distance_m=12.0, width=16, height=12
        )
        for row, column in zip(*np.nonzero(view.facade), strict=True):
            x_m, y_m = view.x_m[row, column], view.y_m[row, column]
            u, v, _ = view.project(x_m, y_m, view.distance_m)
            # The middle of a ray's cell.
            assert abs(u - (column + 0.5)) < 1e-3
            assert abs(v - (row + 0.5)) < 1e-3
        for row, column in zip(*np.nonzero(view.ground), strict=True):
            x_m = view.ground_x_m[row, column]
            z_m = view.ground_z_m[row, column]
            point = view.project(x_m, 0.0, z_m)
            if point is not None:  # at least 1 m away
                u, v, _ = point
                assert abs(u - (column + 0.5)) < 1e-3
                assert abs(v - (row + 0.5)) < 1e-3


def test_a_camera_that_looks_straight_ahead():
    """Hand values: focal length 0.68 w, eye at 1.6 m, facades at 10 m."""
    straight = moment.Moment(
        x_m=2.0,
        back_m=1.0,
        yaw_deg=0.0,
        pitch_deg=0.0,
        zoom=1.0,
        month=6,
        weather="clear",
        night=False,
    )
    view = View(straight, distance_m=9.0, width=50, height=40)
    focal = 0.68 * 100
    u, v, scale = view.project(2.0, 1.6, 10.0)
    np.testing.assert_allclose([u, v, scale], [50, 40, focal / 10])
    # 3 m to the right and 1 m higher.
    u, v, _ = view.project(5.0, 2.6, 10.0)
    np.testing.assert_allclose([u, v], [50 + 0.3 * focal, 40 - 0.1 * focal])
    # The lowest ray, at 39.5 / focal downwards, meets the ground.
    assert view.ground[-1].all()
    np.testing.assert_allclose(
        view.ground_z_m[-1], 1.6 * focal / 39.5, rtol=1e-5
    )
