"""Files of a track: GeoJSON and GPX with lines, KML and CSV with points.

    .geojson   RFC 7946: a Point for each frame, null where there is a gap, and
               a LineString for each piece of the track
    .gpx       GPX 1.1: a track, with a segment for each piece
    .kml .csv  as of `search.position_files`

A piece ends at a gap, which is a frame that was rejected, could not be read, or
has no latitude and longitude.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO
from xml.etree import ElementTree

from sare_tf.search import position_files
from sare_tf.search.position_files import Position
from sare_tf.sequences.tracking import Track


def write(paths: Sequence[str], track: Track, *, name: str) -> None:
    """Writes a track into files, each in the format of its ending.

    Args:
        paths: the files, which are replaced.
        track: the track.
        name: of the sequence.

    Raises:
        BlockingIOError: another run writes one of the files.
        OSError: a file cannot be written.
        ValueError: a name with another ending.
    """
    points = [
        position_files.of_answer(photo, answer)
        for photo, answer in track.answers
    ]
    pieces = _pieces(points, track.segments)

    def geojson(positions: Sequence[Position], file: TextIO) -> None:
        _write_geojson(positions, pieces, file)

    def gpx(positions: Sequence[Position], file: TextIO) -> None:
        del positions
        _write_gpx(pieces, name, file)

    writers = {".geojson": geojson, ".gpx": gpx}
    for path in paths:
        writer = writers.get(Path(path).suffix.lower())
        position_files.write([path], points, writer=writer)


def _pieces(
    points: Sequence[Position], segments: Sequence[Sequence[int]]
) -> list[list[Position]]:
    """The points of each piece of the track."""
    pieces = []
    for segment in segments:
        is_open = False
        for number in segment:
            if points[number].latitude is None:
                is_open = False
                continue
            if not is_open:
                pieces.append([])
            pieces[-1].append(points[number])
            is_open = True
    return pieces


def _write_geojson(
    points: Sequence[Position],
    pieces: Sequence[Sequence[Position]],
    file: TextIO,
) -> None:
    features = [position_files.feature(point) for point in points]
    for piece in pieces:
        for line in _lines(piece):
            features.append(
                {
                    "type": "Feature",
                    "geometry": {
                        "type": "LineString",
                        "coordinates": [
                            [point.longitude, point.latitude] for point in line
                        ],
                    },
                    "properties": {
                        "first": line[0].name,
                        "last": line[-1].name,
                        "frames": len(line),
                    },
                }
            )
    collection = {"type": "FeatureCollection", "features": features}
    json.dump(collection, file, ensure_ascii=False, indent=1, allow_nan=False)


def _lines(piece: Sequence[Position]) -> list[list[Position]]:
    """A piece, cut where it crosses the antimeridian; two points or more."""
    lines = [[piece[0]]]
    for before, point in zip(piece, piece[1:], strict=False):
        if abs(point.longitude - before.longitude) > 180:
            lines.append([])
        lines[-1].append(point)
    return [line for line in lines if len(line) > 1]


def _write_gpx(
    pieces: Sequence[Sequence[Position]], name: str, file: TextIO
) -> None:
    root = position_files.gpx_root()
    track = ElementTree.SubElement(root, "trk")
    ElementTree.SubElement(track, "name").text = position_files.clean(name)
    for piece in pieces:
        segment = ElementTree.SubElement(track, "trkseg")
        for point in piece:
            position_files.add_gpx_point(segment, "trkpt", point)
    position_files.write_xml(root, file)
