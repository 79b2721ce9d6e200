"""A table of photographs: one CSV file and the images that it names.

    <dataset>/images.csv, or another name if it is the only .csv there

Its first line names the columns, in any order and letter case. Others than
these are ignored:

    path                            required; relative to the dataset
    latitude, longitude             degrees of WGS84
    utm_east, utm_north, utm_zone   metres, instead; zone such as 17T, or as
                                    `zone_notation` has it, or none
    place                           equal for images of the same spot
    split                           train, val or test
    role                            database or query
    heading, timestamp, panorama, sequence, frame, condition

Every image has a position or a place. A cell with "nan", "None" or "NULL" is
empty; one with "NA" only where a number is expected. Without `split`, areas
(or, where not every image has a position, places) are split at random; without
`role`, each area's or place's queries are chosen at random. Commas, semicolons,
tabs or bars separate, or what a first line such as `sep=;` says. The encoding
is UTF-8, or UTF-16 with a byte order mark.
"""

import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from sare_tf.dataset.names import ROLES, SPLITS
from sare_tf.dataset.readers import files_on_disk, splitting, table_cells
from sare_tf.dataset.readers.collector import Assumption, Collector, Reading
from sare_tf.runtime import text_files

_LAYOUT = "the paths that the CSV file names"
_DEGREES = ("latitude", "longitude")
_METRES = ("utm_east", "utm_north")
_TEXTS = {
    "timestamp": "timestamp",
    "panorama": "panorama_id",
    "sequence": "sequence_id",
    "condition": "condition",
}
_NUMBERS = (*_DEGREES, *_METRES, "heading", "frame")
# Columns in which equal texts mean something. A missing value has many
# spellings, each of which would be one place, or one panorama.
_NAMES = ("place", "timestamp", "panorama", "sequence")
_COLUMNS = {
    *("path", *_NUMBERS, *_NAMES, "utm_zone", "split", "role", "condition"),
}
# The line with which spreadsheets say what separates the columns.
_SEPARATOR = re.compile(r"""["']?sep=(.)["']?[,;\t|]*""", re.IGNORECASE)
# Missing values that an assumption names.
_NAMED = 10_000


def read(
    dataset: Path,
    *,
    split_fractions: Sequence[float],
    query_fraction: float,
    utm_zone: str,
    utm_hemisphere: str,
    seed: int,
    list_only: bool,
) -> Reading:
    """Reads the table.

    Args:
        dataset: the folder of the table.
        split_fractions: shares for train, val and test, without `split`.
        query_fraction: share of queries, without `role`.
        utm_zone: zone for all; empty: see `utm_zones.project`.
        utm_hemisphere: that of zones which do not say it.
        seed: of splits and queries.
        list_only: images may be absent.

    Raises:
        ValueError: no table, a table that cannot be read or lacks columns, or
            no image that can be used.
    """
    table = files_on_disk.only_file(dataset, "images.csv", "*.csv")
    collector = Collector(dataset, dataset, layout=_LAYOUT, list_only=list_only)
    lines = _read(table)
    header = _header(table, next(lines, (1, []))[1])
    missing = {name: [] for name in _NAMES}
    where = header.index("path")
    for number, fields in lines:
        while len(fields) > len(header) and not fields[-1]:
            fields.pop()
        if len(fields) != len(header):
            collector.refuse(
                fields[min(where, len(fields) - 1)],
                f"line {number}: {len(fields)} fields, not {len(header)}",
            )
            continue
        fields = dict(zip(header, fields, strict=True))
        for name, value in _without_missing(fields).items():
            missing[name].append((fields["path"], f"line {number}: {value}"))
        _add(collector, fields)
    collector.assumptions += _assumptions(missing)
    collector.set_coordinates(utm_zone=utm_zone)
    collector.unify_zones(utm_zone=utm_zone, utm_hemisphere=utm_hemisphere)
    splitting.complete(
        collector,
        split_fractions=None if "split" in header else split_fractions,
        query_fraction=None if "role" in header else query_fraction,
        seed=seed,
    )
    return collector.finish()


def _read(table: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the clean fields of lines that are not empty, with numbers."""
    try:
        with table.open(encoding=text_files.encoding_of(table)) as file:
            above, first = 0, file.readline()
            while first and not first.strip():
                above, first = above + 1, file.readline()
            if separator := _SEPARATOR.fullmatch(first.strip("\n")):
                above, first = above + 1, file.readline()
                delimiter = separator[1]
            else:
                delimiter = max(",;\t|", key=first.count)
            lines = itertools.chain([first], file)
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            for line in reader:
                fields = list(map(table_cells.clean, line))
                if any(fields):
                    yield above + reader.line_num, fields
    except (OSError, UnicodeError, csv.Error) as error:
        raise ValueError(
            f"Expected a CSV file in UTF-8. Received: path={str(table)!r} "
            f"({error}). Save it as CSV UTF-8."
        ) from error


def _header(table: Path, line: list[str]) -> list[str]:
    """Returns the names of the columns, once they are checked."""
    header = [name.lower() for name in line]
    _check(table, header)
    # Tables that were written with their row numbers have columns of no name.
    other = sorted(set(header) - _COLUMNS - {""})
    if other:
        logging.info("Columns of %s ignored: %s.", table, ", ".join(other))
    return header


def _check(table: Path, header: list[str]) -> None:
    counts = [
        sum(name in header for name in pair) for pair in (_DEGREES, _METRES)
    ]
    if (
        "path" not in header
        or 1 in counts
        or counts == [2, 2]
        or not ("place" in header or any(counts))
        or any(header.count(name) > 1 for name in _COLUMNS)
    ):
        raise ValueError(
            "Expected columns path, and latitude and longitude, or utm_east "
            "and utm_north, or place, each once. Received: "
            f"path={str(table)!r} with {header}. Rename them in its first line."
        )


def _without_missing(fields: dict[str, str]) -> dict[str, str]:
    """Empties the cells of a line that stand for missing values.

    Returns:
        Name and content of those in a column where others are names.
    """
    emptied = {}
    for name, value in fields.items():
        is_number = name in _NUMBERS or name == "utm_zone"
        if (
            value
            and (is_number or name in _NAMES)
            and table_cells.is_missing(value, is_number=is_number)
        ):
            fields[name] = ""
            if not is_number:
                emptied[name] = value
    return emptied


def _assumptions(
    missing: dict[str, list[tuple[str, str]]],
) -> Iterator[Assumption]:
    """Says which cells of columns of names were taken for empty."""
    for name, cells in missing.items():
        if not cells:
            continue
        yield Assumption(
            name=f"missing_{name}",
            message=f"{len(cells):,} cell{'s' * (len(cells) > 1)} of the "
            f"column {name} taken for missing values, the first in "
            f"{cells[0][1]!r}.",
            action="If it is a name, write it in another way; otherwise leave "
            "these cells empty.",
            images=cells[:_NAMED],
            count=len(cells),
        )


def _add(collector: Collector, fields: dict[str, str]) -> None:
    image_id = collector.listed_file(fields["path"])
    if not image_id:
        return
    try:
        columns = _columns(fields)
    except ValueError as error:
        collector.refuse(image_id, str(error))
        return
    collector.add(image_id, **columns)


def _columns(fields: dict[str, str]) -> dict[str, object]:
    """Makes columns of the manifest of the fields of a line.

    Raises:
        ValueError: the line cannot be used; says why.
    """
    columns = {"split": fields.get("split", ""), "role": fields.get("role", "")}
    for name, allowed in (("split", SPLITS), ("role", ROLES)):
        if name in fields and columns[name] not in allowed:
            raise ValueError(
                f"{name} {columns[name]!r} is not {', '.join(allowed)}"
            )
    for name in _NAMES:
        if table_cells.is_rounded(fields.get(name, "")):
            raise ValueError(
                f"{name} is a number that a spreadsheet has rounded: "
                f"{fields[name]!r}"
            )
    if fields.get("place"):
        columns["place_id"] = fields["place"]
    if any(fields.get(name) for name in _DEGREES):
        columns["degrees"] = tuple(_number(fields, name) for name in _DEGREES)
    elif any(fields.get(name) for name in _METRES):
        columns |= {f"{name}_m": _number(fields, name) for name in _METRES}
        columns["utm_zone"] = fields.get("utm_zone", "").lstrip("0").upper()
    elif "place_id" not in columns:
        raise ValueError("neither a position nor a place")
    if fields.get("heading"):
        columns["heading_deg"] = _number(fields, "heading") % 360
    if fields.get("frame"):
        frame = _number(fields, "frame")
        if frame < 0 or frame % 1:
            raise ValueError(f"frame is no count: {fields['frame']!r}")
        columns["frame"] = int(frame)
    for name, column in _TEXTS.items():
        columns[column] = fields.get(name, "")
    return columns


def _number(fields: dict[str, str], name: str) -> float:
    value = files_on_disk.number(fields[name])
    if not np.isfinite(value):
        raise ValueError(f"{name} is no number: {fields[name]!r}")
    return value
