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
