"""A region: the polygons of a GeoJSON object (RFC 7946).

Positions are (longitude, latitude) in degrees of WGS84. Lines between them are
straight in longitude and latitude (section 3.1.1), so a region that crosses the
antimeridian is cut there into two polygons (section 3.1.9). This module imports
neither numpy nor TensorFlow.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# A ring is a closed line; the first ring of a polygon is its border, and the
# others are holes.
Ring = tuple[tuple[float, float], ...]
Polygon = tuple[Ring, ...]


def read(path: str | Path) -> dict[str, Any]:
    """Reads a file of GeoJSON.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds no JSON object.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            "Expected a file of GeoJSON with a Polygon or MultiPolygon. "
            f"Received: region={str(path)!r}, which is no file."
        )
    try:
        return parse(Path(path).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{error} It was read from {str(path)!r}.") from error


def parse(text: str) -> dict[str, Any]:
    """Reads a text of GeoJSON.

    Args:
        text: the text.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        region = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refused(f"a text that is no JSON: {error}") from error
    if not isinstance(region, dict):
        raise _refused(f"{region!r:.40}")
    return region


def polygons_of(region: Mapping[str, Any]) -> tuple[Polygon, ...]:
    """Returns the polygons of a GeoJSON object.

    Args:
        region: a Polygon, a MultiPolygon, or a Feature, FeatureCollection or
            GeometryCollection of these.

    Raises:
        ValueError: it is something else, has no polygon, or a ring is not
            closed, has fewer than four positions, or crosses the antimeridian.
    """
    if not isinstance(region, Mapping):
        raise _refused(f"{region!r:.40}")
    polygons = tuple(
        tuple(_ring(ring) for ring in _list(polygon, "a polygon"))
        for polygon in _coordinates(region, depth=0)
    )
    if not polygons or not all(polygons):
        raise _refused("a region without a polygon")
    return polygons


def _coordinates(region: Any, *, depth: int) -> list[Any]:
    """Returns the coordinates of the polygons in an object, not yet checked."""
    kind = region.get("type") if isinstance(region, Mapping) else None
    if kind == "Polygon":
        return [region.get("coordinates")]
    if kind == "MultiPolygon":
        return _list(region.get("coordinates"), "the coordinates")
    inner = {
        "Feature": lambda: [region.get("geometry")],
        "FeatureCollection": lambda: _list(region.get("features"), "features"),
        "GeometryCollection": lambda: _list(
            region.get("geometries"), "geometries"
        ),
    }
    # Ours: deeper ones are no regions.
    if kind not in inner or depth > 8:
        raise _refused(f"type={kind!r:.40}")
    return [
        polygon
        for one in inner[kind]()
        for polygon in _coordinates(one, depth=depth + 1)
    ]


def _ring(values: Any) -> Ring:
    ring = tuple(_position(value) for value in _list(values, "a ring"))
    if len(ring) < 4 or ring[0] != ring[-1]:
        raise _refused(
            f"a ring of {len(ring)} positions that is not closed: it has at "
            "least 4, and ends where it begins"
        )
    for (west, _), (east, _) in zip(ring, ring[1:], strict=False):
        # An edge of 360 degrees is a border of the whole world.
        if 180 < abs(east - west) < 360:
            raise _refused(
                f"an edge from longitude {west:g} to {east:g}; cut the region "
                "in two at the antimeridian, or put a position between if the "
                "edge is so long"
            )
    return ring


def _position(value: Any) -> tuple[float, float]:
    numbers = _list(value, "a position")[:2]
    is_right = len(numbers) == 2 and all(
        isinstance(number, int | float)
        and not isinstance(number, bool)
        and math.isfinite(number)
        for number in numbers
    )
    if not is_right or abs(numbers[0]) > 180 or abs(numbers[1]) > 90:
        raise _refused(
            f"the position {value!r:.60}; a longitude is from -180 to 180 and "
            "stands before a latitude from -90 to 90"
        )
    return float(numbers[0]), float(numbers[1])


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _refused(f"{name} that is no list: {value!r:.40}")
    return list(value)


def _refused(received: str) -> ValueError:
    return ValueError(
        "Expected a region as GeoJSON, a Polygon or MultiPolygon. Received: "
        f"{received}."
    )
