import numpy as np
import pytest

from sare_tf.dataset.readers import utm

# By pyproj 3.7.2 (PROJ 9.5.1), from EPSG 4326 to 32600 (north) or 32700
# (south) and the number of the zone, longitude first.
# Pittsburgh, Tokyo, Oslo, Sao Paulo, Auckland; London on both sides of the
# border of zones 30 and 31, then in 31; south of the equator in a northern
# zone; Svalbard; 7 and 13 degrees from the meridian; across 180 degrees.
BY_PYPROJ = [
    (40.43977, -79.99825, "17T", 584958.7022779, 4477051.0255954),
    (35.6586, 139.7454, "54S", 386437.6027805, 3946808.1551744),
    (59.9139, 10.7522, "32V", 597979.9028827, 6643118.9914931),
    (-23.5505, -46.6333, "23K", 333287.9151019, 7394588.3185580),
    (-36.8485, 174.7633, "60H", 300578.7379043, 5919598.7942677),
    (51.5, -0.1, "30U", 701277.6651270, 5709417.1248475),
    (51.5, 0.1, "30U", 715155.9362519, 5709986.3407783),
    (51.5, 0.1, "31U", 298722.3348730, 5709417.1248475),
    (-0.5, 36.8, "37N", 255143.7693199, -55306.0750985),
    (78.22, 15.65, "33X", 514813.5272637, 8683004.1532772),
    (40.43977, -74.0, "17T", 1093901.7210952, 4500165.6425776),
    (48.2, 16.37, "31U", 1492409.0233941, 5425597.5981531),
    (-17.8, -179.9, "60K", 828673.3720722, 8029221.4802573),
]


@pytest.mark.parametrize(
    ("latitude", "longitude", "zone", "east", "north"), BY_PYPROJ
)
def test_equal_to_pyproj(latitude, longitude, zone, east, north):
    found = utm.to_utm([latitude], [longitude], zone)
    np.testing.assert_allclose(found, [[east], [north]], rtol=0, atol=1e-6)
    back = utm.to_degrees([east], [north], zone)
    # A metre is about 1e-5 degrees.
    np.testing.assert_allclose(
        back, [[latitude], [longitude]], rtol=0, atol=1e-11
    )


def test_there_and_back_within_20_degrees():
    rng = np.random.default_rng(0)
    latitude = rng.uniform(-80, 84, 1000)
    longitude = 9 + rng.uniform(-20, 20, 1000)
    metres = utm.to_utm(latitude, longitude, "32U")
    back = utm.to_degrees(*metres, "32U")
    np.testing.assert_allclose(back, [latitude, longitude], rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("latitude", "longitude", "zone"),
    [
        (40.44, -79.998, "17T"),
        (0, 0, "31N"),
        (-0.001, -180, "1M"),
        (10, 180, "1P"),
        (-80, 0, "31C"),
        (84, 41.9, "37X"),
        # Norway: zone 32 reaches to 3 degrees.
        (60, 5, "32V"),
        (55.9, 4, "31U"),
        (64, 4, "31W"),
        # Svalbard: zones 32, 34 and 36 are not used.
        (75, 8.9, "31X"),
        (75, 9, "33X"),
        (75, 20.99, "33X"),
        (75, 21, "35X"),
        (75, 33, "37X"),
        (80, 42, "38X"),
    ],
)
def test_zone(latitude, longitude, zone):
    """As the package utm 0.9.0 gives them; (10, 180) by hand."""
    assert utm.zone_of(latitude, longitude) == zone


@pytest.mark.parametrize("zone", ["", "17", "T17", "61T", "0T", "17I", "170T"])
def test_what_is_no_zone(zone):
    with pytest.raises(ValueError, match=f"such as 17T. Received: .*'{zone}'"):
        utm.parse_zone(zone)


def test_a_zone_as_others_write_it():
    assert utm.parse_zone("07t") == (7, True)
    assert utm.parse_zone("56J") == (56, False)


@pytest.mark.parametrize(
    ("latitude", "longitude", "reason"),
    [
        (np.nan, 1.0, "no numbers"),
        (1.0, np.inf, "no numbers"),
        (0.0, 0.0, "0: no position"),
        (84.1, 1.0, "latitude 84.1 is not from -80 to 84"),
        (139.7, 35.6, "latitude 139.7"),  # the two exchanged
        (35.6, 200.0, "longitude 200 is not from -180 to 180"),
    ],
)
def test_what_is_no_position(latitude, longitude, reason):
    assert reason in utm.problem(latitude, longitude)


def test_a_position():
    assert utm.problem(84, -180) == ""


def test_a_city_on_the_border_of_zones_gets_one():
    """London: 200 m across the meridian of Greenwich are 200 m."""
    # 0.00288 degrees at 51.5 north: 0.00288 * 111320 * cos(51.5) = 199.6 m.
    longitude = np.array([-0.00144, 0.00144, -0.1])
    east, north, zones = utm.project([51.5] * 3, longitude)
    assert zones == ["30U"] * 3
    assert np.hypot(east[1] - east[0], north[1] - north[0]) == pytest.approx(
        199.6, abs=1.0
    )


def test_a_zone_that_is_given():
    east, _, zones = utm.project([51.5], [-0.1], utm_zone="31U")
    assert zones == ["31U"]
    assert east[0] < 300_000
    with pytest.raises(ValueError, match="17T, and an image 81 degrees away"):
        utm.project([51.5], [-0.1], utm_zone="17T")


def test_many_cities_get_a_zone_each():
    # Two images in London, on both sides of the border; Boston; Tokyo.
    latitude = [51.5, 42.36, 51.5, 35.66]
    longitude = [-0.02, -71.06, 0.01, 139.75]
    _, _, zones = utm.project(latitude, longitude)
    assert zones == ["30U", "19T", "30U", "54S"]


def test_one_region_across_180_degrees():
    """Taveuni, Fiji: the mean of -179.9 and 179.9 is not 0."""
    east, _, zones = utm.project(
        [-16.8, -16.8, -16.8], [179.99, -179.99, -179.98]
    )
    assert zones == ["1K"] * 3
    # 0.02 degrees at 16.8 south: 0.02 * 111320 * cos(16.8) = 2131 m.
    assert east[1] - east[0] == pytest.approx(2131, abs=6)
    # And where each region is looked for by itself.
    _, _, zones = utm.project(
        [-16.8, -16.8, -16.8, 42.36], [179.99, -179.99, -179.98, -71.06]
    )
    assert zones == ["1K"] * 3 + ["19T"]


def test_a_region_that_is_too_wide():
    longitude = np.arange(0.05, 60, 0.1)
    with pytest.raises(
        ValueError, match="at most 20 degrees from the meridian"
    ):
        utm.project(np.full(len(longitude), 50.0), longitude)


def test_no_image():
    east, north, zones = utm.project([], [])
    assert (len(east), len(north), zones) == (0, 0, [])


def test_zones_of_neighbours_are_made_one():
    """The same two points, each by its own zone, then in one."""
    west = utm.to_utm([51.5], [-0.001], "30U")
    east = utm.to_utm([51.5], [0.001], "31U")
    among = utm.to_utm([51.5], [0.001], "30U")
    metres = [
        np.array([a[0], a[0], b[0]]) for a, b in zip(west, east, strict=True)
    ]
    found = utm.unify(*metres, ["30U", "30U", "31U"])
    assert found[2] == ["30U"] * 3
    # Those of the zone keep their numbers exactly, the other moves.
    assert found[0][0] == west[0][0]
    assert found[0][2] == pytest.approx(among[0][0], abs=1e-6)
    assert found[1][2] == pytest.approx(among[1][0], abs=1e-6)


def test_one_zone_is_left_alone():
    # Without a latitude band nothing could be computed, and nothing need be.
    found = utm.unify([1.5], [2.5], ["17"])
    assert [some[0] for some in found] == [1.5, 2.5, "17"]
    with pytest.raises(ValueError, match="latitude band"):
        utm.unify([1.5, 2.5], [2.5, 2.5], ["17", "18"])
