"""Suspicious positions, in hand-made manifests."""

import re

import numpy as np
import pytest
from toy_findings import at, by_name, concerned, table

from sare_tf.checks import (
    land,
    position_findings,
    positions,
    zone_findings,
)
from sare_tf.checks.finding import ERROR, WARNING
from sare_tf.dataset.readers import utm_zones


def city(count=200, *, latitude=40.44, longitude=-79.99, name="c"):
    """Photographs within a kilometre or so, with degrees."""
    rng = np.random.default_rng(0)
    return {
        f"{name}{n:03d}": (latitude + a, longitude + b)
        for n, (a, b) in enumerate(rng.uniform(-0.005, 0.005, (count, 2)))
    }


def located(degrees):
    """A manifest as readers make it of degrees."""
    latitude, longitude = np.array(list(degrees.values())).T
    east, north, zones = utm_zones.project(latitude, longitude)
    return table(
        *(
            (name, "test", "database", at(float(x), float(y), zone=zone))
            for name, x, y, zone in zip(
                degrees, east, north, zones, strict=True
            )
        )
    )


def test_a_city_is_not_suspicious():
    rows = located(city())
    assert position_findings.suspicious(rows) == []
    assert zone_findings.zones(rows) == []
    assert set(positions.regions(rows)) == {0}


def test_swapped_latitude_and_longitude():
    rows = located(city() | {"s1": (-79.99, 40.44), "s2": (-79.985, 40.441)})
    found = by_name(position_findings.suspicious(rows))
    assert concerned(found["swapped"]) == ["s1", "s2"]
    assert found["swapped"].severity == ERROR
    [(_, detail), _] = found["swapped"].images
    assert detail == "latitude -79.99000, longitude 40.44000"
    assert set(found) == {"swapped", "antarctica"}


def test_all_of_it_swapped():
    rows = located(city(latitude=-79.9, longitude=40.4))
    [found] = position_findings.suspicious(rows)
    assert (found.name, found.severity) == ("antarctica", WARNING)
    assert found.count == 200


def test_all_of_it_swapped_and_at_sea():
    """Cape Town: 33.9 south, 18.4 east; the other way round the Atlantic."""
    [found] = position_findings.suspicious(
        located(city(latitude=18.4, longitude=-33.9))
    )
    assert (found.name, found.severity) == ("at_sea", WARNING)
    assert found.count == 200
    assert re.search(
        r"around 18\.\d+, -33\.\d+\. With latitude and longitude swapped, they "
        r"would be on land, around -33\.\d+, 18\.\d+\.",
        found.message,
    )
    rows = located(city(latitude=-33.9, longitude=18.4))
    assert position_findings.suspicious(rows) == []
    # 0, 30 W and 30 S, 0: sea both ways. The first is above 0.
    [found] = position_findings.suspicious(
        located(city(latitude=-30, longitude=-5))
    )
    assert found.name == "at_sea"
    assert "swapped, they" not in found.message


def test_land_and_sea():
    places = {
        (40.44, -79.99): False,  # Pittsburgh
        (35.68, 139.69): False,  # Tokyo
        (51.51, -0.13): False,  # London
        (-0.13, 51.51): True,  # The Indian Ocean
        (-0.5, 179.999): True,
        (-0.5, -179.999): True,
        (89.99, 0.0): True,
        (-90.0, 180.0): False,
        (np.nan, 12.0): False,
    }
    assert land.is_sea(np.array(list(places))).tolist() == list(places.values())


def test_near_the_diagonal_nothing_is_swapped():
    rows = located(
        city(latitude=36.20, longitude=36.15)
        | city(20, latitude=36.15, longitude=36.40, name="d")
    )
    assert position_findings.suspicious(rows) == []


def test_an_image_far_from_all_others():
    rows = located(city() | {"far": (40.8, -79.5)})
    [found] = position_findings.suspicious(rows)
    assert (found.name, concerned(found)) == ("far_from_all", ["far"])
    assert positions.regions(rows).tolist().count(0) == 200
    # A world tour of single images is no mistake.
    tour = located({f"{n}": (n - 40.0, 20.0 + n / 10) for n in range(80)})
    assert position_findings.suspicious(tour) == []
    assert position_findings.suspicious(tour.iloc[:1]) == []


def test_the_position_zero():
    rows = table(
        *((f"c{n}", "test", "database", at(500_000 + n)) for n in range(9)),
        ("zero", "test", "database", at(0, 0)),
    )
    found = by_name(position_findings.suspicious(rows))
    assert concerned(found["position_zero"]) == ["zero"]
    assert found["position_zero"].severity == ERROR
    # Metres that are made up may begin there.
    rows = table(
        *(
            (f"c{n}", "test", "database", at(0, 2.4 * n, zone=""))
            for n in range(9)
        ),
    )
    assert position_findings.suspicious(rows) == []


@pytest.mark.parametrize(("copies", "is_odd"), [(24, False), (25, True)])
def test_many_images_at_one_position(copies, is_odd):
    """A panorama of Pittsburgh has 24 cut-outs."""
    rows = table(
        *((f"s{n}", "test", "database", at(500_000)) for n in range(copies)),
        *((f"c{n}", "test", "database", at(500_010 + n)) for n in range(9)),
    )
    found = by_name(position_findings.suspicious(rows))
    assert ("same_position" in found) == is_odd
    if is_odd:
        assert found["same_position"].count == 25
        assert "25 images at 1 position" in found["same_position"].message
