"""The position in the GPS fields of an EXIF header, and what doubts it.

Source: Exif 2.32, section 4.6.6 (degrees, minutes and seconds are unsigned, and
a letter names the hemisphere).
"""

import re
from collections.abc import Mapping

from PIL.ExifTags import GPS

# Datums whose positions differ from WGS84's by less than 3 m: those of
# continents, which move by some centimetres a year.
_WGS84 = re.compile(
    r"(WGS(19)?84.*|WORLDGEODETICSYSTEM1984|ETRS89|NAD83|GDA(94|2020)"
    r"|JGD20(00|11)|CGCS2000|ITRF\d*|UNKNOWN|UNDEFINED)?"
)
_UNITS = ("degrees", "minutes", "seconds")


def degrees(gps: Mapping[int, object]) -> tuple[float, float]:
    """Returns latitude and longitude, in degrees north and east.

    Numbers that are divided by 0 become NaN.

    Args:
        gps: the GPS fields by their tags.

    Raises:
        ValueError: fields that are missing, or that are no degrees, minutes and
            seconds with a letter.
    """
    return (
        _degrees(gps, GPS.GPSLatitude, "NS"),
        _degrees(gps, GPS.GPSLongitude, "EW"),
    )


def doubts(gps: Mapping[int, object], *, radius_m: float) -> str:
    """Returns why the camera doubts its position; empty if it does not.

    Args:
        gps: the GPS fields by their tags.
        radius_m: largest error of a position that serves, in metres.
    """
    if text(gps.get(GPS.GPSStatus)).upper() == "V":
        return "its receiver had no fix (GPSStatus V)"
    error_m = number(gps.get(GPS.GPSHPositioningError))
    if error_m > radius_m:
        return (
            f"its position may be wrong by {error_m:g} m (GPSHPositioningError)"
        )
    datum = text(gps.get(GPS.GPSMapDatum))
    if not _WGS84.fullmatch(re.sub(r"[^A-Z0-9]", "", datum.upper())):
        return f"its position is of the datum {datum!r}, not of WGS84"
    return ""


def number(value: object) -> float:
    """Returns a number; NaN for one that is absent or divided by 0."""
    try:
        return float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return float("nan")


def text(value: object) -> str:
    """Returns a text without blanks around it; empty for no text."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return value.strip(" \0") if isinstance(value, str) else ""


def _degrees(gps: Mapping[int, object], tag: int, signs: str) -> float:
    letter = text(gps.get(tag - 1)).upper()[:1]  # Its tag is the one before.
    if not letter or letter not in signs:
        raise ValueError(f"its position does not say {' or '.join(signs)}")
    if isinstance(gps.get(tag), str | bytes):  # Letters are no numbers.
        raise ValueError("its position is a text, not numbers")
    try:
        numbers = [number(value) for value in gps[tag]]
    except (KeyError, TypeError):
        raise ValueError("its position is incomplete") from None
    name = "latitude" if signs == "NS" else "longitude"
    if problem := _problem(numbers):
        written = " ".join(f"{value:g}" for value in numbers)
        raise ValueError(f"its {name} is {written} {letter}: {problem}")
    value = sum(value / 60**power for power, value in enumerate(numbers))
    return value if letter == signs[0] else -value


def _problem(numbers: list[float]) -> str:
    """Says why numbers are no degrees, minutes and seconds; empty if they are.

    A fraction of a degree beside minutes, or of a minute beside seconds, comes
    from a writer that fills in the rest twice, or in other units.
    """
    if not 1 <= len(numbers) <= 3:
        return f"{len(numbers)} numbers, not degrees, minutes and seconds"
    for unit, value in zip(_UNITS, numbers, strict=False):
        if value < 0:
            return f"{unit} below 0 beside a letter"
        if unit != "degrees" and value >= 60:
            return f"{value:g} {unit}, not below 60"
    for place, value in enumerate(numbers):
        # NaN is no fraction: `utm.problem` refuses it.
        if value % 1 > 0 and any(numbers[place + 1 :]):
            return (
                f"a fraction of {_UNITS[place]} beside {_UNITS[place + 1]}, "
                "which should hold it"
            )
    return ""
