"""Files of positions, read by the rules of their formats.

The XML is checked against what the schemas of KML 2.2 and GPX 1.1 demand here:
names and their order, attributes, and the ranges of values.
"""

import csv
import json
import re
from xml.etree import ElementTree

import pytest

from sare_tf.search import position_files
from sare_tf.search.answers import Answer, Match
from sare_tf.search.calibration import Reliability
from sare_tf.search.position_files import Position

KML = "{http://www.opengis.net/kml/2.2}"
GPX = "{http://www.topografix.com/GPX/1/1}"
AWKWARD = "a<b> & \"c\" 'd', ü\u0007\udc80 ]]>.jpg"
CLEAN = "a<b> & \"c\" 'd', ü\ufffd\ufffd ]]>.jpg"
POSITIONS = [
    Position(
        name=AWKWARD,
        latitude=40.65061234567,
        longitude=-80.99763891,
        properties={"status": "found", "confidence": 0.25, "is_right": True},
    ),
    # The antimeridian, from either side.
    Position(name="west", latitude=-17.0, longitude=180.0, properties={}),
    Position(
        name="round", latitude=-17.5, longitude=179.99999999, properties={}
    ),
    Position(
        name="beyond", latitude=-17.5, longitude=180.25, properties={"n": 7}
    ),
    Position(
        name="nowhere",
        latitude=None,
        longitude=None,
        properties={"status": "not in this database", "confidence": None},
    ),
]
DEGREES = [
    (40.6506123, -80.9976389),
    (-17.0, -180.0),
    (-17.5, -180.0),
    (-17.5, -179.75),
    None,
]
NAMES = [CLEAN, "west", "round", "beyond", "nowhere"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps") / "new"
    endings = ("geojson", "kml", "gpx", "csv")
    paths = {ending: folder / f"places.{ending}" for ending in endings}
    position_files.write([str(path) for path in paths.values()], POSITIONS)
    assert sorted(folder.iterdir()) == sorted(paths.values())
    return {name: path.read_bytes() for name, path in paths.items()}


def test_geojson(written):
    """RFC 7946: longitude first, null for a Feature without a position."""
    collection = json.loads(written["geojson"].decode("utf-8"))
    assert set(collection) == {"type", "features"}
    assert collection["type"] == "FeatureCollection"
    for feature, name, degrees in zip(
        collection["features"], NAMES, DEGREES, strict=True
    ):
        assert set(feature) == {"type", "geometry", "properties"}
        assert feature["type"] == "Feature"
        assert feature["properties"]["name"] == name
        geometry = feature["geometry"]
        if degrees is None:
            assert geometry is None
            continue
        assert set(geometry) == {"type", "coordinates"}
        assert geometry["type"] == "Point"
        assert geometry["coordinates"] == list(reversed(degrees))
    first = collection["features"][0]["properties"]
    assert (first["confidence"], first["is_right"]) == (0.25, True)
    assert collection["features"][-1]["properties"]["confidence"] is None


def test_kml(written):
    root = ElementTree.fromstring(written["kml"])
    assert root.tag == f"{KML}kml"
    (document,) = root
    assert document.tag == f"{KML}Document"
    assert document[0].tag == f"{KML}name"
    for placemark, name, degrees in zip(
        document[1:], NAMES, DEGREES, strict=True
    ):
        assert placemark.tag == f"{KML}Placemark"
        # The schema's order: name, ExtendedData, then the geometry.
        tags = [child.tag.removeprefix(KML) for child in placemark]
        assert tags == ["name", "ExtendedData", "Point"][: 2 + bool(degrees)]
        assert placemark[0].text == name
        for data in placemark[1]:
            assert data.tag == f"{KML}Data"
            assert [child.tag for child in data] == [f"{KML}value"]
        if degrees:
            (coordinates,) = placemark[2]
            assert coordinates.tag == f"{KML}coordinates"
            east, north = map(float, coordinates.text.split(","))
            assert (north, east) == degrees
    values = {data.get("name"): data[0].text for data in document[1][1]}
    assert values == {
        "status": "found",
        "confidence": "0.25",
        "is_right": "true",
    }


def test_gpx(written):
    root = ElementTree.fromstring(written["gpx"])
    assert root.tag == f"{GPX}gpx"
    assert root.attrib == {"version": "1.1", "creator": "sare_tf"}
    # A waypoint has a position, so the photograph without one has none.
    for waypoint, name, degrees in zip(
        root, NAMES[:-1], DEGREES[:-1], strict=True
    ):
        assert waypoint.tag == f"{GPX}wpt"
        assert set(waypoint.attrib) == {"lat", "lon"}
        # xsd:decimal: no exponent. The longitude ends below 180.
        for value in waypoint.attrib.values():
            assert re.fullmatch(r"-?\d+\.\d+", value)
        position = float(waypoint.get("lat")), float(waypoint.get("lon"))
        assert position == degrees
        assert -180 <= position[1] < 180
        assert [child.tag for child in waypoint] == [f"{GPX}name", f"{GPX}desc"]
        assert waypoint[0].text == name
    assert root[0][1].text == "status: found\nconfidence: 0.25\nis_right: true"


def test_csv(written):
    lines = written["csv"].decode("utf-8").splitlines(keepends=True)
    rows = list(csv.DictReader(lines))
    assert [row["photo"] for row in rows] == NAMES
    for row, degrees in zip(rows, DEGREES, strict=True):
        if degrees is None:
            assert row["latitude"] == row["longitude"] == ""
        else:
            assert float(row["latitude"]) == degrees[0]
            assert float(row["longitude"]) == degrees[1]
    assert [row["status"] for row in rows] == [
        "found",
        "",
        "",
        "",
        "not in this database",
    ]
    assert rows[3]["n"] == "7"


@pytest.mark.parametrize("name", ["a.json", "a", "a.kmz", "b.geojson.gz"])
def test_other_formats_are_refused(name):
    with pytest.raises(ValueError, match="ends in .geojson, .kml, .gpx, .csv"):
        position_files.check(["a.GPX", name])


def test_positions_of_answers_by_hand():
    match = Match(
        image_id="a/b.jpg",
        place_id="lift",
        squared_distance=0.5,
        same_place=True,
        utm_east_m=500_000.0,
        utm_north_m=4_500_000.0,
        utm_zone="17T",
        latitude=40.5,
        longitude=-81.0,
    )
    found = Answer(
        matches=[match],
        confidence=0.5,
        reliability=Reliability.of(8, 10, "val"),
    )
    position = position_files.of_answer("p.jpg", found)
    assert (position.latitude, position.longitude) == (40.5, -81.0)
    assert position.properties["status"] == "found"
    assert position.properties["place_id"] == "lift"
    assert position.properties["right_share"] == 0.8
    assert position.properties["right_share_queries"] == 10
    rejected = Answer(matches=[match], confidence=0.1, rejected=True)
    position = position_files.of_answer("p.jpg", rejected)
    assert position.latitude is None
    assert position.properties["status"] == "not in this database"
    assert position.properties["image_id"] is None
    position = position_files.of_answer("p.jpg", Answer(error="a GIF"))
    assert position.properties["status"] == "not looked up: a GIF"


def test_what_json_cannot_hold_is_unknown(tmp_path):
    nan = Position(
        name="a",
        latitude=1.0,
        longitude=None,
        properties={"metres": float("nan"), "far": float("inf")},
    )
    assert nan.latitude is None
    path = tmp_path / "a.geojson"
    position_files.write([str(path)], [nan])
    (feature,) = json.loads(path.read_text())["features"]
    assert feature["properties"] == {"name": "a", "metres": None, "far": None}


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    broken = Position(
        name="a", latitude=0.0, longitude=0.0, properties={"x": 1}
    )
    object.__setattr__(broken, "name", "\udc80")
    with pytest.raises(UnicodeEncodeError):
        position_files.write([str(path)], [broken])
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.csv"]
