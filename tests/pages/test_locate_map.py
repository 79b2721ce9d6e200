"""The map around an answer, worked out by hand."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from sare_tf.pages import locate_map
from sare_tf.search import geography, locator

# A street: images 10 m apart, one beyond the first view, one in another zone.
EAST = [*range(0, 400, 10), 9_000, 20]


def _database(zone, other):
    return pd.DataFrame(
        {
            "utm_east_m": [500_000.0 + east for east in EAST],
            "utm_north_m": 4_500_000.0,
            "utm_zone": [zone] * 41 + [other],
        }
    )


@pytest.fixture(scope="module")
def places():
    """Without latitude bands there are no degrees: the grids of the zones."""
    return locate_map.DatabaseMap(_database("17", "18"))


def _match(east, *, zone="17", same_place=False, degrees=(None, None)):
    return locator.Match(
        image_id="a/b.jpg",
        place_id="",
        squared_distance=0.5,
        same_place=same_place,
        utm_east_m=None if east is None else 500_000.0 + east,
        utm_north_m=None if east is None else 4_500_000.0,
        utm_zone=zone,
        latitude=degrees[0],
        longitude=degrees[1],
    )


def _draw(places, *matches):
    return places.around(locator.Answer(matches=matches))


def _points(svg):
    (path,) = re.findall(r'class="database" [^>]* d="([^"]*)"', svg)
    return np.array(re.findall(r"M(-?[\d.]+) (-?[\d.]+)h0", path), np.float64)


def _marks(svg):
    return [
        (kind, float(x), label)
        for kind, x, label in re.findall(
            r'class="mark (\w+)" transform="translate\((\S+) .*?>(\d)</text>',
            svg,
        )
    ]


def test_map_by_hand(places):
    drawn = _draw(places, _match(100, same_place=True), _match(150))
    # 150 m to each side of the first match, and a margin: 300 x 300 m become
    # 384 m high and 1.15 times as wide, from 100 - 220.8 to 100 + 220.8 m.
    width = 1.15 * 384
    low = 100 - width / 2
    # One match is 9 km away: it is there for who zooms out.
    expected = [(x - low) / width * 1000 for x in EAST[:41]]
    points = _points(drawn.svg)
    np.testing.assert_allclose(points[:, 0], expected, atol=0.06)
    # On one line, in the middle of 1000 / 1.15 units.
    np.testing.assert_allclose(points[:, 1], 1000 / 1.15 / 2, atol=0.6)
    assert _marks(drawn.svg) == [
        ("other", pytest.approx((150 - low) / width * 1000, abs=0.06), "2"),
        ("right", 500, "1"),
    ]
    assert "<title>Match 1: b.jpg, d² 0.500</title>" in drawn.svg
    # Without degrees, no tiles fit.
    assert "data-world" not in drawn.svg


def test_matches_that_are_not_on_the_map(places):
    first = _match(100)
    far = _draw(places, first, _match(6000), _match(120)).svg
    assert [label for *_, label in _marks(far)] == ["3", "2", "1"]
    # The first view is the same, with and without the match that is far.
    near = _draw(places, first, _match(120)).svg
    unit = re.compile('data-unit-m="([^"]*)"')
    assert unit.findall(far) == unit.findall(near)
    for match in (_match(100, zone="18"), _match(None)):
        svg = _draw(places, first, match, _match(120)).svg
        assert [label for *_, label in _marks(svg)] == ["3", "1"]


def test_no_map_of_a_first_match_without_position(places):
    assert _draw(places, _match(None), _match(100)) is None


# On the central meridian of zone 17, 81 degrees west, UTM's scale is 0.9996.
# 4,500,000 m of northing are about 40.65 degrees north: of the meridian there,
# 1e-4 degrees are 11.103 m, of the parallel 8.463 m (WGS84).
LATITUDE, LONGITUDE = 40.65, -81.0


def _world_of(latitude, longitude):
    """The definition of tiles: from 0 to 1, eastwards and southwards."""
    down = math.log(math.tan(math.pi / 4 + math.radians(latitude) / 2))
    return (longitude + 180) / 360, (1 - down / math.pi) / 2


def test_positions_with_degrees_are_those_of_tiles():
    places = locate_map.DatabaseMap(_database("17T", "18T"))
    degrees = geography.degrees_at(500_100.0, 4_500_000.0, "17T")
    assert degrees == pytest.approx((LATITUDE, LONGITUDE), abs=0.01)
    drawn = _draw(places, _match(100, zone="17T", degrees=degrees))
    west, north, unit = (
        float(value)
        for value in re.findall(r'data-world="([^"]*)"', drawn.svg)[0].split()
    )
    (mark,) = re.findall(r"translate\((\S+) (\S+)\)", drawn.svg)
    x, y = map(float, mark)
    assert (west + x * unit, north + y * unit) == pytest.approx(
        _world_of(*degrees), rel=0, abs=1e-9
    )
    # Units are rounded to 2 cm, 5e-10 of the world.
    # Images 10 m apart; metres of tiles are those of a sphere.
    unit_m = float(re.findall(r'data-unit-m="([^"]*)"', drawn.svg)[0])
    points = _points(drawn.svg)
    np.testing.assert_allclose(
        np.diff(points[:40, 0]), 10 / 0.9996 / unit_m, rtol=0.02
    )
    # The image of the other zone lies 6 degrees to the east, near the equator
    # of a sphere 6 / 360 of the world.
    other = west + points[-1, 0] * unit
    assert other - (LONGITUDE + 180) / 360 == pytest.approx(6 / 360, abs=1e-6)


def test_metres_that_are_nowhere_on_the_globe():
    """They are drawn in the grid of their zone, not among the others."""
    database = _database("17T", "17T")
    database.loc[0, "utm_east_m"] = 9e9
    places = locate_map.DatabaseMap(database)
    drawn = _draw(places, _match(9e9 - 500_000, zone="17T"))
    assert len(_points(drawn.svg)) == 1
    assert "data-world" not in drawn.svg


def test_a_large_database_is_thinned():
    rng = np.random.default_rng(0)
    count = 200_000
    east = rng.uniform(400_000, 600_000, count)
    places = locate_map.DatabaseMap(
        pd.DataFrame(
            {
                "utm_east_m": np.append(east, 500_100.0),
                "utm_north_m": np.append(
                    rng.uniform(4.4e6, 4.6e6, count), 4_500_000.0
                ),
                "utm_zone": "17",
            }
        )
    )
    svg = _draw(places, _match(100)).svg
    assert 1000 < len(_points(svg)) <= 6000
    assert len(svg) < 150_000
