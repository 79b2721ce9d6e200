"""Latitude and longitude <-> UTM, and which zone a dataset gets.

Degrees are of WGS84, north and east positive; metres are UTM's, north with its
10,000 km added south of the equator. Zones are written with their latitude band
("17T"). The transverse Mercator projection is Krueger's series to the fourth
order (Karney, "Transverse Mercator with an accuracy of a few nanometers",
J. Geodesy 85, 2011, eqs. 7-11, 35, 36): below a micrometre within 20 degrees of
the central meridian, so that a city on the border of zones can be given the
coordinates of one.
"""

import re

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# WGS84, and UTM's scale and false origin.
_EQUATOR_M = 6_378_137.0
_FLATTENING = 1 / 298.257223563
_SCALE = 0.9996
_FALSE_EAST_M = 500_000.0
_FALSE_NORTH_M = 10_000_000.0

_ECCENTRICITY = np.sqrt(_FLATTENING * (2 - _FLATTENING))
_N = _FLATTENING / (2 - _FLATTENING)
_RADIUS_M = _EQUATOR_M / (1 + _N) * (1 + _N**2 / 4 + _N**4 / 64)
_POWERS = _N ** np.arange(1, 5)
_ALPHA = [
    np.array([1 / 2, -2 / 3, 5 / 16, 41 / 180]) @ _POWERS,
    np.array([13 / 48, -3 / 5, 557 / 1440]) @ _POWERS[1:],
    np.array([61 / 240, -103 / 140]) @ _POWERS[2:],
    49561 / 161280 * _POWERS[3],
]
_BETA = [
    np.array([1 / 2, -2 / 3, 37 / 96, -1 / 360]) @ _POWERS,
    np.array([1 / 48, 1 / 15, -437 / 1440]) @ _POWERS[1:],
    np.array([17 / 480, -37 / 840]) @ _POWERS[2:],
    4397 / 161280 * _POWERS[3],
]
_BANDS = "CDEFGHJKLMNPQRSTUVWXX"

# A dataset within this of the meridian of its zone is given one zone.
_ONE_ZONE_DEG = 10.0
# As far as coordinates of one zone are of use: distances are 6 % too long.
_LIMIT_DEG = 20.0
# Images in cells that touch belong to one region. Images of two regions are at
# least a cell apart: more than a kilometre everywhere in UTM's range.
_CELL_DEG = 0.1


def problem(latitude: float, longitude: float) -> str:
    """Why these degrees are no position of a photograph; empty if they are."""
    if not (np.isfinite(latitude) and np.isfinite(longitude)):
        return "latitude and longitude are no numbers"
    if latitude == longitude == 0:
        return "latitude and longitude are 0: no position"
    if not -80 <= latitude <= 84:
        return f"latitude {latitude:g} is not from -80 to 84, UTM's range"
    if not -180 <= longitude <= 180:
        return f"longitude {longitude:g} is not from -180 to 180"
    return ""


def zone_of(latitude: float, longitude: float) -> str:
    """The zone of a point, with the exceptions of Norway and Svalbard."""
    number = int((longitude + 180) // 6) % 60 + 1
    if 56 <= latitude < 64 and 3 <= longitude < 12:
        number = 32
    if latitude >= 72 and 0 <= longitude < 42:
        number = 31 + 2 * int((longitude + 3) // 12)
    return f"{number}{_BANDS[int((latitude + 80) // 8)]}"


def parse_zone(zone: str) -> tuple[int, bool]:
    """Number of a zone, and whether it is north of the equator.

    Raises:
        ValueError: it is no zone with a latitude band.
    """
    match = re.fullmatch(r"0?(\d{1,2})([C-HJ-NP-X])", zone.upper())
    if not match or not 1 <= int(match[1]) <= 60:
        raise ValueError(
            "Expected a UTM zone with its latitude band, such as 17T. "
            f"Received: utm_zone={zone!r}."
        )
    return int(match[1]), match[2] >= "N"


def to_utm(
    latitude: np.ndarray, longitude: np.ndarray, zone: str
) -> tuple[np.ndarray, np.ndarray]:
    """Degrees to metres east and north of one zone.

    Args:
        latitude: [B].
        longitude: [B].
        zone: of all of them, wherever they are.

    Raises:
        ValueError: `zone` is no zone with a latitude band.
    """
    number, is_north = parse_zone(zone)
    angle = np.radians(np.asarray(longitude, np.float64) - (6 * number - 183))
    tangent = _conformal(np.tan(np.radians(np.asarray(latitude, np.float64))))
    xi = np.arctan2(tangent, np.cos(angle))
    eta = np.arcsinh(np.sin(angle) / np.hypot(tangent, np.cos(angle)))
    along = sum(
        a * np.sin(2 * j * xi) * np.cosh(2 * j * eta)
        for j, a in enumerate(_ALPHA, 1)
    )
    across = sum(
        a * np.cos(2 * j * xi) * np.sinh(2 * j * eta)
        for j, a in enumerate(_ALPHA, 1)
    )
    east = _FALSE_EAST_M + _SCALE * _RADIUS_M * (eta + across)
    north = _SCALE * _RADIUS_M * (xi + along)
    return east, north if is_north else north + _FALSE_NORTH_M


def to_degrees(
    east_m: np.ndarray, north_m: np.ndarray, zone: str
) -> tuple[np.ndarray, np.ndarray]:
    """Metres east and north of one zone to latitude and longitude.

    Args:
        east_m: [B].
        north_m: [B].
        zone: of all of them.

    Raises:
        ValueError: `zone` is no zone with a latitude band.
    """
    number, is_north = parse_zone(zone)
    north_m = np.asarray(north_m, np.float64)
    north_m = north_m if is_north else north_m - _FALSE_NORTH_M
    xi = north_m / (_SCALE * _RADIUS_M)
    eta = (np.asarray(east_m, np.float64) - _FALSE_EAST_M) / (
        _SCALE * _RADIUS_M
    )
    along = sum(
        b * np.sin(2 * j * xi) * np.cosh(2 * j * eta)
        for j, b in enumerate(_BETA, 1)
    )
    across = sum(
        b * np.cos(2 * j * xi) * np.sinh(2 * j * eta)
        for j, b in enumerate(_BETA, 1)
    )
    xi, eta = xi - along, eta - across
    conformal = np.sin(xi) / np.hypot(np.sinh(eta), np.cos(xi))
    # Newton's method for the latitude (Karney, eqs. 19-21); 3 steps are exact.
    squeeze = 1 - _ECCENTRICITY**2
    tangent = conformal / squeeze
    for _ in range(3):
        guess = _conformal(tangent)
        tangent = tangent + (
            (conformal - guess)
            / np.hypot(1, guess)
            * (1 + squeeze * tangent**2)
            / (squeeze * np.hypot(1, tangent))
        )
    longitude = (
        6 * number - 183 + np.degrees(np.arctan2(np.sinh(eta), np.cos(xi)))
    )
    return np.degrees(np.arctan(tangent)), _wrap(longitude)


def project(
    latitude: np.ndarray, longitude: np.ndarray, *, utm_zone: str = ""
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Degrees to UTM: one zone, or one for each of regions far apart.

    All images get the zone of their median point, also those beyond its
    borders. Where they reach farther than 10 degrees from the meridian of that
    zone (images of many cities), each region gets its own: a region is a set
    of images in touching cells of 0.1 degrees.

    Args:
        latitude: [B].
        longitude: [B].
        utm_zone: zone for all images, instead.

    Returns:
        Metres east [B] and north [B], and B zones.

    Raises:
        ValueError: `utm_zone` is no zone, or images that are to share a zone
            are more than 20 degrees from its meridian.
    """
    latitude = np.asarray(latitude, np.float64)
    longitude = np.asarray(longitude, np.float64)
    if not len(latitude):
        return latitude, longitude, []
    regions = [np.arange(len(latitude))]
    zone = utm_zone or _median_zone(latitude, longitude)
    if not utm_zone and _farthest(longitude, zone) > _ONE_ZONE_DEG:
        regions = members(_regions(latitude, longitude))
    east, north = np.empty_like(latitude), np.empty_like(latitude)
    zones = np.empty(len(latitude), object)
    for rows in regions:
        zone = utm_zone or _median_zone(latitude[rows], longitude[rows])
        farthest = _farthest(longitude[rows], zone)
        if farthest > _LIMIT_DEG:
            raise ValueError(
                f"Expected images at most {_LIMIT_DEG:g} degrees from the "
                f"meridian of the UTM zone that they share. Received: {zone}, "
                f"and an image {farthest:.0f} degrees away. Check latitude and "
                "longitude, leave out --utm_zone, or build parts by themselves."
            )
        east[rows], north[rows] = to_utm(latitude[rows], longitude[rows], zone)
        zones[rows] = zone
    return east, north, zones.tolist()


def members(labels: np.ndarray) -> list[np.ndarray]:
    """Positions of each label, int64 [B] with labels from 0."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.cumsum(np.bincount(labels))[:-1])


def unify(
    east_m: np.ndarray,
    north_m: np.ndarray,
    zones: list[str],
    *,
    utm_zone: str = "",
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Coordinates in several zones to those that `project` would choose.

    Images that have the zone chosen keep their numbers exactly, as all do
    where there is one zone.

    Args:
        east_m: [B].
        north_m: [B].
        zones: B zones with their latitude bands.
        utm_zone: zone for all images, instead.

    Returns:
        Metres east [B] and north [B], and B zones.

    Raises:
        ValueError: several zones of which one has no latitude band, or as
            `project` does.
    """
    east_m = np.array(east_m, np.float64)
    north_m = np.array(north_m, np.float64)
    if len(set(zones)) == 1 and utm_zone in ("", zones[0]):
        return east_m, north_m, list(zones)
    latitude, longitude = np.empty_like(east_m), np.empty_like(east_m)
    had = np.array(zones, object)
    for zone in set(zones):
        rows = had == zone
        latitude[rows], longitude[rows] = to_degrees(
            east_m[rows], north_m[rows], zone
        )
    east, north, chosen = project(latitude, longitude, utm_zone=utm_zone)
    kept = [
        parse_zone(old) == parse_zone(new)
        for old, new in zip(zones, chosen, strict=True)
    ]
    return np.where(kept, east_m, east), np.where(kept, north_m, north), chosen


def _conformal(tangent: np.ndarray) -> np.ndarray:
    """Tangent of the conformal latitude, from that of the latitude."""
    secant = np.hypot(1, tangent)
    sigma = np.sinh(
        _ECCENTRICITY * np.arctanh(_ECCENTRICITY * tangent / secant)
    )
    return tangent * np.hypot(1, sigma) - sigma * secant


def _wrap(degrees: np.ndarray) -> np.ndarray:
    """The same direction, from -180 to 180."""
    return (degrees + 180) % 360 - 180


def _median_zone(latitude: np.ndarray, longitude: np.ndarray) -> str:
    # Longitudes count from their mean direction, so that 179 and -179 are near.
    turns = np.exp(1j * np.radians(longitude)).mean()
    centre = np.degrees(np.angle(turns))
    middle = _wrap(centre + np.median(_wrap(longitude - centre)))
    return zone_of(float(np.median(latitude)), float(middle))


def _farthest(longitude: np.ndarray, zone: str) -> float:
    number, _ = parse_zone(zone)
    return float(np.abs(_wrap(longitude - (6 * number - 183))).max())


def _regions(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """int64 [B]: numbers from 0 of connected sets of touching cells."""
    columns = round(360 / _CELL_DEG)
    row = np.floor((latitude + 90) / _CELL_DEG).astype(np.int64)
    column = np.floor((longitude + 180) / _CELL_DEG).astype(np.int64) % columns
    cells, of_image = np.unique(row * columns + column, return_inverse=True)
    rows, cols = np.divmod(cells, columns)
    links = []
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        wanted = (rows + down) * columns + (cols + right) % columns
        found = np.searchsorted(cells, wanted)
        found[found == len(cells)] = 0
        touching = np.flatnonzero(cells[found] == wanted)
        links.append(np.stack([touching, found[touching]]))
    first, second = np.concatenate(links, axis=1)
    graph = coo_array(
        (np.ones(len(first)), (first, second)), shape=(len(cells), len(cells))
    )
    _, region = connected_components(graph, directed=False)
    return region[of_image].astype(np.int64)
