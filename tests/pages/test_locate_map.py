"""The map around an answer, worked out by hand."""

import re

import pandas as pd
import pytest

from sare_tf.pages import locate_map
from sare_tf.search import confidence, locator

# A street: images 10 m apart, one beyond the map, one in another zone.
EAST = [*range(0, 400, 10), 9_000, 20]
ZONES = ["17T"] * 41 + ["18T"]


@pytest.fixture
def places():
    return confidence.Places(
        pd.DataFrame(
            {
                "utm_east_m": [500_000.0 + east for east in EAST],
                "utm_north_m": 4_500_000.0,
                "utm_zone": ZONES,
                "place_id": "",
            }
        ),
        radius_m=25,
    )


def _match(east, *, zone="17T", same_place=False):
    return locator.Match(
        image_id="a",
        place_id="",
        squared_distance=0.5,
        same_place=same_place,
        utm_east_m=None if east is None else 500_000.0 + east,
        utm_north_m=None if east is None else 4_500_000.0,
        utm_zone=zone,
        latitude=None,
        longitude=None,
    )


def _draw(places, *matches):
    return locate_map.map_of(locator.Answer(matches=matches), places)


def test_map_by_hand(places):
    drawn = _draw(places, _match(100, same_place=True), _match(150))
    # 150 m to each side of the first match, and a margin: 300 x 300 m become
    # 384 m high and 1.15 times as wide, from 100 - 220.8 to 100 + 220.8 m.
    width = 1.15 * 384
    low = 100 - width / 2
    inside = [x for x in EAST[:40] if 0 <= x - low <= width]
    expected = {round((x - low) / width * 1000) for x in inside}
    (path,) = re.findall(r'class="database" [^>]* d="([^"]*)"', drawn.svg)
    points = re.findall(r"M(\d+) (\d+)h0", path)
    # On one line, in the middle of 1000 / 1.15 units.
    assert {y for _, y in points} <= {"434", "435"}
    assert {int(x) for x, _ in points} == expected
    marks = re.findall(
        r'<g class="(\w+)"><circle cx="(\d+)".*?>(\d)</text>', drawn.svg
    )
    other = str(round((150 - low) / width * 1000))
    assert marks == [("other", other, "2"), ("right", "500", "1")]


def test_matches_that_are_not_on_the_map(places):
    first = _match(100)
    for match in (_match(6000), _match(100, zone="18T"), _match(None)):
        svg = _draw(places, first, match, _match(120)).svg
        assert re.findall(r">(\d)</text>", svg) == ["3", "1"]


def test_no_map_of_a_first_match_without_position(places):
    assert _draw(places, _match(None), _match(100)) is None
