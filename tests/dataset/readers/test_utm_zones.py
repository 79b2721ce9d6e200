import numpy as np
import pytest

from sare_tf.dataset.readers import utm, utm_zones


def test_a_city_on_the_border_of_zones_gets_one():
    """London: 200 m across the meridian of Greenwich are 200 m."""
    # 0.00288 degrees at 51.5 north: 0.00288 * 111320 * cos(51.5) = 199.6 m.
    longitude = np.array([-0.00144, 0.00144, -0.1])
    east, north, zones = utm_zones.project([51.5] * 3, longitude)
    assert zones == ["30U"] * 3
    assert np.hypot(east[1] - east[0], north[1] - north[0]) == pytest.approx(
        199.6, abs=1.0
    )


def test_a_zone_that_is_given():
    east, _, zones = utm_zones.project([51.5], [-0.1], utm_zone="31U")
    assert zones == ["31U"]
    assert east[0] < 300_000
    with pytest.raises(ValueError, match="17T, and an image 81 degrees away"):
        utm_zones.project([51.5], [-0.1], utm_zone="17T")


def test_many_cities_get_a_zone_each():
    # Two images in London, on both sides of the border; Boston; Tokyo.
    latitude = [51.5, 42.36, 51.5, 35.66]
    longitude = [-0.02, -71.06, 0.01, 139.75]
    _, _, zones = utm_zones.project(latitude, longitude)
    assert zones == ["30U", "19T", "30U", "54S"]


def test_one_region_across_180_degrees():
    """Taveuni, Fiji: the mean of -179.9 and 179.9 is not 0."""
    east, _, zones = utm_zones.project(
        [-16.8, -16.8, -16.8], [179.99, -179.99, -179.98]
    )
    assert zones == ["1K"] * 3
    # 0.02 degrees at 16.8 south: 0.02 * 111320 * cos(16.8) = 2131 m.
    assert east[1] - east[0] == pytest.approx(2131, abs=6)
    # And where each region is looked for by itself.
    _, _, zones = utm_zones.project(
        [-16.8, -16.8, -16.8, 42.36], [179.99, -179.99, -179.98, -71.06]
    )
    assert zones == ["1K"] * 3 + ["19T"]


def test_a_region_that_is_too_wide():
    longitude = np.arange(0.05, 60, 0.1)
    with pytest.raises(
        ValueError, match="at most 20 degrees from the meridian"
    ):
        utm_zones.project(np.full(len(longitude), 50.0), longitude)


def test_no_image():
    east, north, zones = utm_zones.project([], [])
    assert (len(east), len(north), zones) == (0, 0, [])


def test_zones_of_neighbours_are_made_one():
    """The same two points, each by its own zone, then in one."""
    west = utm.to_utm([51.5], [-0.001], "30U")
    east = utm.to_utm([51.5], [0.001], "31U")
    among = utm.to_utm([51.5], [0.001], "30U")
    metres = [
        np.array([a[0], a[0], b[0]]) for a, b in zip(west, east, strict=True)
    ]
    found = utm_zones.unify(*metres, ["30U", "30U", "31U"])
    assert found[2] == ["30U"] * 3
    # Those of the zone keep their numbers exactly, the other moves.
    assert found[0][0] == west[0][0]
    assert found[0][2] == pytest.approx(among[0][0], abs=1e-6)
    assert found[1][2] == pytest.approx(among[1][0], abs=1e-6)


def test_one_zone_is_left_alone():
    # Without a latitude band nothing could be computed, and nothing need be.
    found = utm_zones.unify([1.5], [2.5], ["17"])
    assert [some[0] for some in found] == [1.5, 2.5, "17"]
    with pytest.raises(ValueError, match="latitude band"):
        utm_zones.unify([1.5, 2.5], [2.5, 2.5], ["17", "18"])
