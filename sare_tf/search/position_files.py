"""Positions that were found, as files for maps: GeoJSON, KML, GPX and CSV.

The ending of a file's name is its format:

    .geojson   RFC 7946: a Point for each photograph, null if it has none
    .kml       OGC KML 2.2: a Placemark for each photograph
    .gpx       GPX 1.1: a waypoint for each photograph that has a position
    .csv       UTF-8 with a header: a row for each photograph

Degrees are of WGS84, rounded to 1e-7 (1 cm); longitudes are from -180 to below
180. Characters that the formats cannot hold are replaced by U+FFFD.
"""

import csv
import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO
from xml.etree import ElementTree

from absl import logging

from sare_tf.runtime import atomic_files, run_lock
from sare_tf.runtime.paths import split
from sare_tf.search.answers import Answer

# What XML 1.0 (section 2.2) and Unicode texts cannot hold: control characters,
# and halves of pairs, as Python reads file names of another encoding.
_NO_TEXT = re.compile(
    "[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Position:
    """Where a photograph was taken, as far as it was found.

    Args:
        name: the photograph.
        latitude: degrees north, None if unknown.
        longitude: degrees east, None if unknown.
        properties: what else is known, by name. Texts, numbers, booleans, or
            None.
    """

    name: str
    latitude: float | None
    longitude: float | None
    properties: Mapping[str, str | float | bool | None]

    def __post_init__(self):
        set_field = object.__setattr__
        set_field(self, "name", clean(self.name))
        properties = {
            clean(key): clean(value) for key, value in self.properties.items()
        }
        set_field(self, "properties", properties)
        if self.latitude is None or self.longitude is None:
            set_field(self, "latitude", None)
            set_field(self, "longitude", None)
            return
        set_field(self, "latitude", round(self.latitude, 7))
        # A longitude of 180 is written as -180: GPX ends below 180.
        longitude = (round(self.longitude, 7) + 180) % 360 - 180
        set_field(self, "longitude", round(longitude, 7))


def of_answer(photo: str, answer: Answer) -> Position:
    """Returns the position of the first match of a photograph.

    A photograph that was rejected, or not looked up, has none.

    Args:
        photo: its name.
        answer: its answer.
    """
    status = "found"
    if answer.error:
        status = f"not looked up: {answer.error}"
    elif answer.rejected:
        status = "not in this database"
    first = answer.matches[0] if status == "found" else None
    reliability = answer.reliability

    def of_first(name: str) -> Any:
        return getattr(first, name) if first else None

    names = ("image_id", "place_id", "squared_distance")
    metres = ("utm_east_m", "utm_north_m", "utm_zone")
    return Position(
        name=photo,
        latitude=of_first("latitude"),
        longitude=of_first("longitude"),
        properties={
            "status": status,
            **{name: of_first(name) for name in (*names, *metres)},
            "confidence": answer.confidence,
            **(
                {"probability": answer.tracked.probability}
                if answer.tracked
                else {}
            ),
            "right_share": reliability and reliability.right,
            "right_share_low": reliability and reliability.low,
            "right_share_high": reliability and reliability.high,
            "right_share_queries": reliability and reliability.queries,
        },
    )


def paths_of(text: str | None) -> list[str]:
    """Returns the files that `--write_positions` names.

    Args:
        text: files with commas between; None or empty for none.
    """
    return split(text or "")


def check(paths: Sequence[str]) -> None:
    """Refuses files of other formats.

    Args:
        paths: the files.

    Raises:
        ValueError: a name with another ending.
    """
    for path in paths:
        if Path(path).suffix.lower() not in _FORMATS:
            raise ValueError(
                f"Expected a file that ends in {', '.join(_FORMATS)}. "
                f"Received: write_positions={path!r}. The ending chooses the "
                "format."
            )


def write(
    paths: Sequence[str],
    positions: Sequence[Position],
    *,
    writer: Callable[[Sequence[Position], TextIO], None] | None = None,
) -> None:
    """Writes positions into files, each in the format of its ending.

    Args:
        paths: the files, which are replaced.
        positions: one for each photograph.
        writer: writes a file instead, such as a track.

    Raises:
        BlockingIOError: another run writes one of the files.
        OSError: a file cannot be written.
        ValueError: a name with another ending.
    """
    check(paths)
    count = sum(position.latitude is not None for position in positions)
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with (
            run_lock.only_run(path),
            atomic_files.file_in_one_piece(path) as unfinished,
            open(unfinished, "w", encoding="utf-8", newline="") as file,
        ):
            write_as = writer or _FORMATS[Path(path).suffix.lower()]
            write_as(positions, file)
        logging.info(
            "Positions in %s: %d of %d photographs have latitude and "
            "longitude.",
            path,
            count,
            len(positions),
        )


def feature(position: Position) -> dict[str, Any]:
    """Returns a Feature of GeoJSON: a point, or null where there is none.

    Args:
        position: of a photograph.
    """
    geometry = None
    if position.latitude is not None:
        coordinates = [position.longitude, position.latitude]
        geometry = {"type": "Point", "coordinates": coordinates}
    return {
        "type": "Feature",
        "geometry": geometry,
        "properties": {"name": position.name, **position.properties},
    }


def _write_geojson(positions: Sequence[Position], file: TextIO) -> None:
    features = [feature(position) for position in positions]
    collection = {"type": "FeatureCollection", "features": features}
    json.dump(collection, file, ensure_ascii=False, indent=1, allow_nan=False)


def _write_kml(positions: Sequence[Position], file: TextIO) -> None:
    root = ElementTree.Element("kml", xmlns="http://www.opengis.net/kml/2.2")
    document = ElementTree.SubElement(root, "Document")
    _add(document, "name", "Photographs")
    for position in positions:
        placemark = ElementTree.SubElement(document, "Placemark")
        _add(placemark, "name", position.name)
        extended = ElementTree.SubElement(placemark, "ExtendedData")
        for name, value in position.properties.items():
            data = ElementTree.SubElement(extended, "Data", name=name)
            _add(data, "value", _as_text(value))
        if position.latitude is not None:
            point = ElementTree.SubElement(placemark, "Point")
            degrees = (
                f"{_as_degrees(position.longitude)},"
                f"{_as_degrees(position.latitude)}"
            )
            _add(point, "coordinates", degrees)
    write_xml(root, file)


def gpx_root() -> ElementTree.Element:
    """Returns the root of a GPX file."""
    return ElementTree.Element(
        "gpx",
        version="1.1",
        creator="sare_tf",
        xmlns="http://www.topografix.com/GPX/1/1",
    )


def add_gpx_point(
    parent: ElementTree.Element, tag: str, position: Position
) -> None:
    """Adds a point with latitude and longitude to a GPX file.

    Args:
        parent: the element that it belongs to.
        tag: "wpt" or "trkpt".
        position: of a photograph.
    """
    point = ElementTree.SubElement(
        parent,
        tag,
        lat=_as_degrees(position.latitude),
        lon=_as_degrees(position.longitude),
    )
    _add(point, "name", position.name)
    words = [
        f"{name}: {_as_text(value)}"
        for name, value in position.properties.items()
        if _as_text(value)
    ]
    _add(point, "desc", "\n".join(words))


def _write_gpx(positions: Sequence[Position], file: TextIO) -> None:
    root = gpx_root()
    for position in positions:
        if position.latitude is not None:
            add_gpx_point(root, "wpt", position)
    write_xml(root, file)


def _write_csv(positions: Sequence[Position], file: TextIO) -> None:
    names = dict.fromkeys(
        name for position in positions for name in position.properties
    )
    table = csv.writer(file)
    table.writerow(["photo", "latitude", "longitude", *names])
    for position in positions:
        table.writerow(
            [
                position.name,
                _as_degrees(position.latitude),
                _as_degrees(position.longitude),
                *(_as_text(position.properties.get(name)) for name in names),
            ]
        )


_FORMATS: dict[str, Callable[[Sequence[Position], TextIO], None]] = {
    ".geojson": _write_geojson,
    ".kml": _write_kml,
    ".gpx": _write_gpx,
    ".csv": _write_csv,
}


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text


def write_xml(root: ElementTree.Element, file: TextIO) -> None:
    """Writes a file of XML, with its declaration.

    Args:
        root: its root.
        file: opened as UTF-8.
    """
    ElementTree.indent(root, " ")
    file.write('<?xml version="1.0" encoding="UTF-8"?>\n')
    file.write(ElementTree.tostring(root, encoding="unicode"))
    file.write("\n")


def _as_degrees(value: float | None) -> str:
    return "" if value is None else f"{value:.7f}"


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def clean(value: Any) -> Any:
    """Replaces what a text cannot hold; makes plain numbers; NaN is unknown.

    Args:
        value: a text, a number, a boolean or None.
    """
    if isinstance(value, str):
        return _NO_TEXT.sub("\ufffd", value)
    if hasattr(value, "item"):
        value = value.item()
    is_number = isinstance(value, float) and value - value == 0
    return value if not isinstance(value, float) or is_number else None
