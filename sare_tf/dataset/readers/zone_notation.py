"""UTM zones as others write them -> a number with its latitude band.

A zone is written with its latitude band here ("34H"). Others write the
hemisphere ("34S", "34 south", "EPSG:32734", "WGS 84 / UTM zone 34S"), or the
number only. S is both a band, 32 to 40 degrees north, and the southern
hemisphere. Northings tell them apart, but for those of band S, which are also
those of 50 to 58 degrees south: there the question is whether there is land.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from absl import logging

from sare_tf.dataset.readers import utm

# Codes of WGS84, and of ETRS89 and NAD83, which differ from it by a metre or
# two: hemisphere, first and last zone.
_EPSG = {
    "326": ("north", 1, 60),
    "327": ("south", 1, 60),
    "258": ("north", 28, 38),
    "269": ("north", 1, 23),
}
# Also as GeoJSON, OGC and PROJ write it, and as a column of floats.
_EPSG_CODE = re.compile(
    r"(?:(?:URN:OGC:DEF:CRS:|\+INIT=)?EPSG(?: ?:[\d.]*:? ?| )"
    r"|HTTPS?://WWW\.OPENGIS\.NET/DEF/CRS/EPSG/[\d.]+/)?(\d{3})(\d\d)(?:\.0)?"
)
# Of EPSG, and of Esri: "WGS_1984_UTM_Zone_34S".
_CRS_NAME = re.compile(
    r"(?:WGS ?(?:19)?84|ETRS ?(?:19)?89|NAD ?(?:19)?83)(?: ?/ ?| )"
    r"UTM ZONE ?(\d{1,2}) ?([NS])"
)
_PROJ = re.compile(r"\+PROJ=UTM (?:.* )?\+ZONE=(\d{1,2})\b(.*)")
_PLAIN = re.compile(
    r"(?:UTM ?)?(?:ZONE ?)?0?(\d{1,2})(?:\.0)?(?: ?[-/]? ?\(?"
    r"(N(?:ORTH(?:ERN)?)?|S(?:OUTH(?:ERN)?)?|[C-HJ-NP-X])\)?)?"
)

# Band S, and a degree around it: a region has the band of its median image.
_BAND_S_DEG = (31.0, 41.0)
# Of the zones whose numbers with S stand for land at 50 to 58 degrees south,
# these have land in band S, too: Washington and Puerto Natales, Bermuda and
# the Falkland Islands. In all other zones, only band S has places with streets.
_BOTH_LAND, _SOUTH_LAND = {18, 20}, {19, 21}
# Images on both sides of the equator share a zone; farther from it than a
# degree, a northing belongs to the other hemisphere's grid.
_EQUATOR_M = 110_000.0
# Northings of 80 degrees south and of 84 degrees north.
_SOUTHERNMOST_M, _NORTHERNMOST_M = 1_110_000.0, 9_340_000.0


@dataclasses.dataclass(frozen=True)
class Zone:
    """A zone as it is written.

    Attributes:
        number: from 1 to 60.
        band: its latitude band, where that is certain; "N" or "S" where it may
            be the hemisphere instead; else empty.
        hemisphere: "north" or "south"; empty where the text does not say it.
    """

    number: int
    band: str = ""
    hemisphere: str = ""


@dataclasses.dataclass(frozen=True)
class Reinterpreted:
    """Images whose zone or northings do not say by themselves where they are.

    Attributes:
        text: the zone as it is written, in the first of its spellings.
        zone: the zone that they got.
        added_m: metres that were added to their northings.
        count: how many they are.
    """

    text: str
    zone: str
    added_m: float
    count: int


def parse(text: str) -> Zone | None:
    """Parses a zone in any of the notations; None if it is none of them."""
    text = " ".join(text.upper().replace("_", " ").split())
    zone = None
    if match := _EPSG_CODE.fullmatch(text):
        half, first, last = _EPSG.get(match[1], ("", 1, 0))
        if first <= int(match[2]) <= last:
            zone = Zone(int(match[2]), hemisphere=half)
    elif match := _CRS_NAME.fullmatch(text):
        zone = Zone(int(match[1]), hemisphere=_of_letter(match[2]))
    elif match := _PROJ.fullmatch(text):
        is_south = "+SOUTH" in match[2]
        zone = Zone(int(match[1]), hemisphere="south" if is_south else "north")
    elif match := _PLAIN.fullmatch(text):
        letters = match[2] or ""
        if len(letters) > 1:
            zone = Zone(int(match[1]), hemisphere=_of_letter(letters[0]))
        elif letters and letters not in "NS":
            half = "north" if letters >= "N" else "south"
            zone = Zone(int(match[1]), letters, half)
        else:
            zone = Zone(int(match[1]), letters)
    return zone if zone and 1 <= zone.number <= 60 else None


def of_latitude(text: str, latitude: float) -> str:
    """Returns a zone with its band, for images around a latitude.

    Args:
        text: a zone in any notation.
        latitude: of their median.

    Raises:
        ValueError: `text` is no zone.
    """
    zone = parse(text)
    if zone is None:
        utm.parse_zone(text)  # Says what is expected.
    if zone.hemisphere and zone.band:
        return f"{zone.number}{zone.band}"
    half = zone.hemisphere or (
        "south" if zone.band != "N" and latitude < 0 else "north"
    )
    if (half == "south") != (latitude < 0):  # Beyond the equator.
        return f"{zone.number}{'M' if half == 'south' else 'N'}"
    return f"{zone.number}{utm.band_of(latitude)}"


def resolve(
    north_m: np.ndarray,
    texts: Sequence[str],
    *,
    hemisphere: str = "auto",
    latitude: np.ndarray | None = None,
) -> tuple[np.ndarray, list[str], list[Reinterpreted]]:
    """Gives positions zones with their bands, and northings of these zones.

    Images whose zones are written in the same way are taken together: their
    median northing decides what is meant. Texts that are no zones stay as they
    are: names of another plane.

    Args:
        north_m: [B].
        texts: B zones.
        hemisphere: that of zones for which northings do not decide it: north,
            south, or auto, which refuses them.
        latitude: [B], where the dataset says it beside the zone, else NaN.

    Returns:
        Metres north [B], B zones, and what was not taken as it is written.

    Raises:
        ValueError: zones for which northings do not decide what is meant.
    """
    north_m = np.array(north_m, np.float64)
    texts = np.array(texts, object)
    zones = texts.copy()
    reinterpreted = []
    spellings: dict[Zone, list[str]] = {}
    for text in sorted(set(texts.tolist())):
        zone = parse(text)
        if zone is not None:
            spellings.setdefault(zone, []).append(text)
    for zone, spelled in spellings.items():
        rows = np.isin(texts, spelled)
        middle = float(np.median(north_m[rows]))
        half = (
            zone.hemisphere
            or _known_half(zone, latitude, rows)
            or _half(zone, middle, spellings, hemisphere)
        )
        if not half:
            raise _undecided(spelled[0], zone, middle, int(rows.sum()))
        resolved, added_m = _place(zone, half, middle)
        north_m[rows] += added_m
        zones[rows] = resolved
        is_certain = zone.hemisphere or resolved[-1] == zone.band
        if added_m or not is_certain:
            reinterpreted.append(
                Reinterpreted(spelled[0], resolved, added_m, int(rows.sum()))
            )
    return north_m, zones.tolist(), reinterpreted


def resolve_manifest(table: pd.DataFrame) -> None:
    """Resolves the zones of a manifest in place; warns of what it assumes.

    Raises:
        ValueError: as `resolve`.
    """
    rows = np.flatnonzero(
        table["utm_zone"].ne("") & table["utm_east_m"].notna()
    )
    north_m, zones, reinterpreted = resolve(
        table["utm_north_m"].to_numpy()[rows], table["utm_zone"].iloc[rows]
    )
    for name, values in (("utm_north_m", north_m), ("utm_zone", zones)):
        table.iloc[rows, table.columns.get_loc(name)] = values
    for one in reinterpreted:
        logging.warning(
            "The UTM zone %r is taken for %s, and %+.0f m north.",
            *(one.text, one.zone, one.added_m),
        )


def needs_northings(text: str) -> bool:
    """Returns whether `resolve` may change images of a zone, or refuse them."""
    zone = parse(text)
    return zone is not None and (
        zone.hemisphere != "north" or text != f"{zone.number}{zone.band}"
    )


def _of_letter(letter: str) -> str:
    return {"N": "north", "S": "south"}[letter]


def _known_half(
    zone: Zone, latitude: np.ndarray | None, rows: np.ndarray
) -> str:
    """Returns the hemisphere of latitudes that the dataset says; else empty."""
    if latitude is None or zone.band == "N":
        return ""
    known = latitude[rows]
    known = known[np.isfinite(known)]
    if not len(known):
        return ""
    return "south" if np.median(known) < 0 else "north"


def _half(
    zone: Zone, middle: float, others: Iterable[Zone], hemisphere: str
) -> str:
    """Returns the hemisphere that a median northing decides; else empty."""
    if zone.band == "N":
        return "north"
    if middle < 0:
        return "south"
    if zone.band == "S":
        low, high = _BAND_S_DEG
        if not low <= _latitude(zone.number, middle, "north") <= high:
            return "south"
    elif middle < _SOUTHERNMOST_M:
        return "north"
    elif middle > _NORTHERNMOST_M:
        return "south"
    if hemisphere != "auto":
        return hemisphere
    if not zone.band:
        return ""
    if zone.number in _BOTH_LAND:
        # Where others have bands, S is one, too.
        has_bands = any(other.band not in "NS" for other in others)
        return "north" if has_bands else ""
    return "south" if zone.number in _SOUTH_LAND else "north"


def _place(zone: Zone, half: str, middle: float) -> tuple[str, float]:
    """Returns the zone with its band, and what to add to northings."""
    if zone.band and zone.hemisphere:
        # Southern northings without UTM's 10,000 km.
        is_without = half == "south" and middle < -_EQUATOR_M
        added = utm.FALSE_NORTH_M if is_without else 0.0
        return f"{zone.number}{zone.band}", added
    added = 0.0
    if half == "south" and middle < 0:
        added = utm.FALSE_NORTH_M
    elif half == "north" and middle < -_EQUATOR_M:
        half, added = "south", utm.FALSE_NORTH_M
    elif half == "south" and middle > utm.FALSE_NORTH_M + _EQUATOR_M:
        half, added = "north", -utm.FALSE_NORTH_M
    latitude = _latitude(zone.number, middle + added, half)
    # A region across the equator has the grid of its zone as written.
    if (half == "south") != (latitude < 0):
        return f"{zone.number}{'M' if half == 'south' else 'N'}", added
    low, high = _BAND_S_DEG
    if zone.band == "S" and half == "north" and low <= latitude <= high:
        return f"{zone.number}S", added
    return f"{zone.number}{utm.band_of(latitude)}", added


def _latitude(number: int, north_m: float, half: str) -> float:
    """Returns the latitude of a northing on the meridian of a zone."""
    zone = f"{number}{'M' if half == 'south' else 'N'}"
    latitude, _ = utm.to_degrees([500_000.0], [north_m], zone)
    return float(latitude[0])


def _undecided(text: str, zone: Zone, middle: float, count: int) -> ValueError:
    north, south = (
        _latitude(zone.number, middle, half) for half in ("north", "south")
    )
    return ValueError(
        "Expected UTM zones whose hemisphere is certain. Received: utm_zone="
        f"{text!r} around {middle:,.0f} m north ({count} images), which is "
        f"{north:.1f} degrees north or {-south:.1f} degrees south. Give "
        "--utm_hemisphere=north or south, or write the zone as "
        f"'{zone.number} north' or '{zone.number} south'."
    )
