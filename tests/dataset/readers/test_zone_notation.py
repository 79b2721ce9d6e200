import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_folders import touch

from sare_tf.dataset import readers
from sare_tf.dataset.readers import utm, utm_zones, zone_notation

# By pyproj 3.7.2 (PROJ 9.5.1), from EPSG 4326 to 32600 and 32700 plus the zone:
# latitude, longitude, zone, east, and north in the grids of both hemispheres.
BY_PYPROJ = {
    "Cape Town": (-33.925, 18.424, 34, 261872.631, -3756828.970, 6243171.030),
    "Sydney": (-33.8688, 151.2093, 56, 334368.634, -3749051.655, 6250948.345),
    "Punta Arenas": (
        *(-53.1638, -70.9171, 19),
        *(371836.858, -5892208.533, 4107791.467),
    ),
    "Puerto Natales": (
        *(-51.7236, -72.4875, 18),
        *(673531.868, -5733284.687, 4266715.313),
    ),
    "Washington": (
        *(38.9072, -77.0369, 18),
        *(323383.154, 4308450.758, 14308450.758),
    ),
    "Pittsburgh": (
        *(40.43977, -79.99825, 17),
        *(584958.702, 4477051.026, 14477051.026),
    ),
    "Tokyo": (35.6586, 139.7454, 54, 386437.603, 3946808.155, 13946808.155),
    "Quito": (-0.1807, -78.4678, 17, 781861.457, -19992.433, 9980007.567),
    "Singapore": (1.3521, 103.8198, 48, 368700.272, 149479.866, 10149479.866),
    "Oslo": (59.9139, 10.7522, 32, 597979.903, 6643118.991, 16643118.991),
}


def _resolve(city, text, *, grid, **options):
    """The latitude and longitude that a zone and a northing are taken for."""
    *_, east, northern, southern = BY_PYPROJ[city]
    north = {"north": northern, "south": southern}[grid]
    (north,), (zone,), reinterpreted = zone_notation.resolve(
        [north], [text], **options
    )
    degrees = utm.to_degrees([east], [north], zone)
    return np.ravel(degrees), zone, reinterpreted


@pytest.mark.parametrize(
    ("city", "text", "grid", "zone"),
    [
        # S is the southern hemisphere, as in the names of EPSG.
        ("Cape Town", "34S", "south", "34H"),
        ("Sydney", "56s", "south", "56H"),
        ("Punta Arenas", "19S", "south", "19F"),
        # S is a band.
        ("Tokyo", "54S", "north", "54S"),
        # N is the northern hemisphere.
        ("Pittsburgh", "17N", "north", "17T"),
        ("Oslo", "32N", "north", "32V"),
        ("Singapore", "48N", "north", "48N"),
        # Other spellings.
        ("Cape Town", "34 H", "south", "34H"),
        ("Cape Town", " 034h", "south", "34H"),
        ("Pittsburgh", "UTM zone 17T", "north", "17T"),
        ("Cape Town", "34 south", "south", "34H"),
        ("Cape Town", "UTM 34 (Southern)", "south", "34H"),
        ("Cape Town", "EPSG:32734", "south", "34H"),
        ("Cape Town", "32734", "south", "34H"),
        ("Oslo", "EPSG:25832", "north", "32V"),
        ("Pittsburgh", "epsg:26917", "north", "17T"),
        ("Cape Town", "32734.0", "south", "34H"),
        ("Cape Town", "EPSG 32734", "south", "34H"),
        ("Cape Town", "+init=epsg:32734", "south", "34H"),
        ("Cape Town", "urn:ogc:def:crs:EPSG::32734", "south", "34H"),
        ("Cape Town", "urn:ogc:def:crs:EPSG:9.9:32734", "south", "34H"),
        (
            "Cape Town",
            "http://www.opengis.net/def/crs/EPSG/0/32734",
            "south",
            "34H",
        ),
        ("Cape Town", "WGS_1984_UTM_Zone_34S", "south", "34H"),
        ("Pittsburgh", "NAD_1983_UTM_Zone_17N", "north", "17T"),
        ("Cape Town", "WGS 84 / UTM zone 34S", "south", "34H"),
        ("Tokyo", "WGS 84 / UTM zone 54N", "north", "54S"),
        ("Cape Town", "+proj=utm +zone=34 +south +datum=WGS84", "south", "34H"),
        ("Pittsburgh", "+proj=utm +ellps=WGS84 +zone=17", "north", "17T"),
        # The number only, where only one hemisphere has such a northing.
        ("Quito", "17", "south", "17M"),
        ("Singapore", "48.0", "north", "48N"),
        # Northings below zero: without UTM's 10,000 km.
        ("Cape Town", "34", "north", "34H"),
        ("Cape Town", "34H", "north", "34H"),
        ("Cape Town", "34S", "north", "34H"),
        ("Cape Town", "34N", "north", "34H"),
        ("Cape Town", "EPSG:32634", "north", "34H"),
        # In the grid of the other hemisphere, near the equator and far from it.
        ("Quito", "17N", "north", "17N"),
        ("Singapore", "48 south", "south", "48N"),
        ("Pittsburgh", "EPSG:32717", "south", "17T"),
    ],
)
def test_what_the_northing_decides(city, text, grid, zone):
    degrees, found, _ = _resolve(city, text, grid=grid)
    assert found == zone
    # Millimetres are 1e-8 degrees.
    np.testing.assert_allclose(degrees, BY_PYPROJ[city][:2], rtol=0, atol=2e-8)


@pytest.mark.parametrize(
    ("text", "city", "grid", "added_m"),
    [
        ("34S", "Cape Town", "south", 0),
        ("34S", "Cape Town", "north", 1e7),
        ("34H", "Cape Town", "north", 1e7),
        ("17", "Quito", "south", 0),
        ("17N", "Pittsburgh", "north", 0),
    ],
)
def test_what_was_assumed_is_reported(text, city, grid, added_m):
    _, zone, reported = _resolve(city, text, grid=grid)
    assert reported == [zone_notation.Reinterpreted(text, zone, added_m, 1)]


@pytest.mark.parametrize(
    ("text", "city", "grid"),
    [
        ("34 h", "Cape Town", "south"),
        ("EPSG:32734", "Cape Town", "south"),
        ("54S", "Tokyo", "north"),
        ("48N", "Singapore", "north"),
    ],
)
def test_what_is_certain_is_not_reported(text, city, grid):
    assert _resolve(city, text, grid=grid)[2] == []


@pytest.mark.parametrize(
    ("text", "south", "north"),
    [("18S", "Puerto Natales", "Washington"), ("34", "Cape Town", None)],
)
def test_what_the_northing_does_not_decide(text, south, north):
    message = "--utm_hemisphere=north or south, or write the zone as '{0} north"
    with pytest.raises(ValueError, match=message.format(text[:2])):
        _resolve(south, text, grid="south")
    degrees, _, [reported] = _resolve(
        south, text, grid="south", hemisphere="south"
    )
    assert degrees == pytest.approx(BY_PYPROJ[south][:2], abs=2e-8)
    assert reported.text == text
    if north:
        degrees, *_ = _resolve(north, text, grid="north", hemisphere="north")
        assert degrees == pytest.approx(BY_PYPROJ[north][:2], abs=2e-8)


def test_the_message_says_both_readings():
    with pytest.raises(ValueError, match=r"38\.9 degrees north or 51\.4 deg"):
        _resolve("Washington", "18S", grid="north")


def test_other_zones_with_bands_decide():
    """Philadelphia and its suburbs lie on both sides of 40 degrees."""
    found = zone_notation.resolve([4_420_000, 4_440_000], ["18S", "18T"])
    assert found[1:] == (["18S", "18T"], [])


def test_latitudes_beside_the_zone_decide():
    for latitude, zone in ((38.9, "18S"), (-51.4, "18F")):
        found = zone_notation.resolve(
            [4_308_450.0] * 2,
            ["18S"] * 2,
            latitude=np.array([np.nan, latitude]),
        )
        assert found[1] == [zone] * 2


def test_a_median_decides_for_all_of_a_zone():
    """Chile, from Arica to Punta Arenas; the last is in band S by itself."""
    north = [7_955_000.0, 6_296_000.0, 4_107_791.467]
    found = zone_notation.resolve(north, ["19S", "19 S", "19s"])
    assert found[1] == ["19H"] * 3
    assert [one.count for one in found[2]] == [3]
    # A region in the middle of band S reaches beyond it.
    _, zones, reported = zone_notation.resolve(
        [4_000_000.0, 4_100_000.0, 4_700_000.0], ["17S"] * 3
    )
    assert (zones, reported) == (["17S"] * 3, [])


@pytest.mark.parametrize(
    "text",
    ["", "local", "EPSG:27700", "EPSG:26931", "61S", "0N", "17I", "170T"],
)
def test_names_of_other_planes_stay(text):
    assert zone_notation.parse(text) is None
    found = zone_notation.resolve([-1e8], [text])
    assert [list(found[0]), *found[1:]] == [[-1e8], [text], []]


@pytest.mark.parametrize(
    ("text", "latitude", "zone"),
    [
        ("34S", -33.9, "34H"),
        ("54S", 35.7, "54S"),
        ("17N", 40.4, "17T"),
        ("34", -33.9, "34H"),
        ("EPSG:32734", -33.9, "34H"),
        # Of the other side of the equator, as is wanted.
        ("17 south", 0.2, "17M"),
        ("17N", -0.2, "17N"),
        ("030u", 51.5, "30U"),
    ],
)
def test_a_zone_for_latitudes(text, latitude, zone):
    *_, zones = utm_zones.project(
        [latitude], [6 * int(zone[:2]) - 183], utm_zone=text
    )
    assert zones == [zone]


def _spellings(number, half, band):
    """Ways to write a zone that leave nothing open."""
    code = f"{'326' if half == 'north' else '327'}{number:02}"
    return [
        f"{number} {half}",
        f"UTM ZONE {number} {half.title()}",
        f"EPSG:{code}",
        code,
        f"WGS 84 / UTM zone {number}{half[0].upper()}",
        *(
            [f"{number:02}{band}", f"{number} {band}"]
            if band not in "NS"
            else []
        ),
    ]


@given(
    latitude=st.floats(-79.5, 83.5).filter(lambda value: abs(value) > 1e-3),
    longitude=st.floats(-180, 179.999),
    spelling=st.integers(0, 6),
    is_false=st.booleans(),
)
def test_every_spelling_gives_the_same_place(
    latitude, longitude, spelling, is_false
):
    zone = utm.zone_of(latitude, longitude)
    number, band = int(zone[:-1]), zone[-1]
    half = "north" if latitude > 0 else "south"
    (east,), (north,) = utm.to_utm([latitude], [longitude], zone)
    if is_false and half == "south":
        north -= 1e7
    texts = _spellings(number, half, band)
    text = texts[spelling % len(texts)]
    (north,), (found,), _ = zone_notation.resolve([north], [text])
    back = np.ravel(utm.to_degrees([east], [north], found))
    assert back[0] == pytest.approx(latitude, abs=1e-8)
    assert utm.wrap(back[1] - longitude) == pytest.approx(0, abs=1e-6)


@given(
    latitude=st.floats(-79.5, 83.5).filter(lambda value: abs(value) > 1e-3),
    number=st.integers(1, 60),
)
def test_the_letter_of_the_hemisphere_is_right_or_refused(latitude, number):
    """Where S has two meanings on land, or none that has land, it is asked."""
    letter = "N" if latitude > 0 else "S"
    longitude = 6 * number - 183.0
    (east,), (north,) = utm.to_utm(
        [latitude], [longitude], f"{number}{utm.band_of(latitude)}"
    )
    is_in_band_s = -59.5 < latitude < -48.5  # By its northing.
    try:
        (north,), (zone,), _ = zone_notation.resolve(
            [north], [f"{number}{letter}"]
        )
    except ValueError:
        assert number in (18, 20)
        assert is_in_band_s
        return
    back = utm.to_degrees([east], [north], zone)[0][0]
    if is_in_band_s and number not in (19, 21):
        return  # Only sea, in that zone.
    assert back == pytest.approx(latitude, abs=1e-8)


def test_the_zones_of_a_table(tmp_path):
    """Beside those with bands, images 5 m apart stay 5 m apart."""
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "images.csv").write_text(
        "path,utm_east,utm_north,utm_zone,split,role\n"
        "a.jpg,261878,6243186,34S,test,query\n"
        "b.jpg,261878,6243191,34H,test,database\n"
        "c.jpg,261878,-3756804,EPSG:32634,test,database\n"
    )
    reading = readers.read(tmp_path, reader="csv_table")
    assert reading.manifest["utm_zone"].tolist() == ["34H"] * 3
    assert reading.manifest["utm_north_m"].tolist() == [
        *(6243186, 6243191, 6243196),
    ]
    second, first = reading.assumptions
    assert second.message == ("The UTM zone '34S' of 1 image is taken for 34H.")
    assert first.message == (
        "The UTM zone 'EPSG:32634' of 1 image is taken for 34H, and "
        "+10,000,000 m north."
    )


@pytest.mark.parametrize("has_latitude", [True, False])
def test_the_zones_of_names(tmp_path, has_latitude):
    degrees = "-51.7236@-072.4875" if has_latitude else "@"
    for role, east in itertools.product(("database", "queries"), (0, 1)):
        name = f"@{673531.868 + east}@4266715.313@18@S@{degrees}@p@.jpg"
        touch(tmp_path, f"images/test/{role}/{name}")
    if not has_latitude:
        with pytest.raises(ValueError, match=r"'18S' around .*\(4 images\)"):
            readers.read(tmp_path, reader="at_names")
    reading = readers.read(
        tmp_path,
        reader="at_names",
        utm_hemisphere="auto" if has_latitude else "south",
    )
    assert reading.manifest["utm_zone"].tolist() == ["18F"] * 4
    [assumption] = reading.assumptions
    assert (assumption.name, assumption.count) == ("zone_notation", 4)
