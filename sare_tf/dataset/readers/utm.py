"""Latitude and longitude to UTM, and back.

Degrees are of WGS84, north and east positive. Metres are UTM's, with 10,000 km
added to north south of the equator. Zones are written with their latitude band
("17T"). The transverse Mercator projection is Krueger's series to the fourth
order (Karney, "Transverse Mercator with an accuracy of a few nanometers",
J. Geodesy 85, 2011, eqs. 7-11, 35, 36). Its error is below a micrometre within
20 degrees of the central meridian, so that a city on the border of zones can
get the coordinates of one.
"""

import re

import numpy as np

# WGS84, and UTM's scale and false origin.
EQUATOR_M = 6_378_137.0
FLATTENING = 1 / 298.257223563
_SCALE = 0.9996
_FALSE_EAST_M = 500_000.0
# Added to northings south of the equator.
FALSE_NORTH_M = 10_000_000.0

_ECCENTRICITY = np.sqrt(FLATTENING * (2 - FLATTENING))
_N = FLATTENING / (2 - FLATTENING)
_RADIUS_M = EQUATOR_M / (1 + _N) * (1 + _N**2 / 4 + _N**4 / 64)
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


def problem(latitude: float, longitude: float) -> str:
    """Says why degrees are no position of a photograph; empty if they are."""
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
    """Returns the zone of a point, with exceptions in Norway and Svalbard."""
    number = int((longitude + 180) // 6) % 60 + 1
    if 56 <= latitude < 64 and 3 <= longitude < 12:
        number = 32
    if latitude >= 72 and 0 <= longitude < 42:
        number = 31 + 2 * int((longitude + 3) // 12)
    return f"{number}{band_of(latitude)}"


def band_of(latitude: float) -> str:
    """Returns the latitude band of a latitude, of the nearest one beyond."""
    return _BANDS[int(min(max(latitude + 80, 0), 164) // 8)]


def parse_zone(zone: str) -> tuple[int, bool]:
    """Returns the number of a zone, and whether it is north of the equator.

    Raises:
        ValueError: `zone` is no zone with a latitude band.
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
    """Converts degrees to metres east and north of one zone, [B] each.

    Args:
        latitude: [B].
        longitude: [B].
        zone: of all points, wherever they are.

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
    return east, north if is_north else north + FALSE_NORTH_M


def to_degrees(
    east_m: np.ndarray, north_m: np.ndarray, zone: str
) -> tuple[np.ndarray, np.ndarray]:
    """Converts metres of one zone to latitude and longitude, [B] each.

    Args:
        east_m: [B].
        north_m: [B].
        zone: of all points.

    Raises:
        ValueError: `zone` is no zone with a latitude band.
    """
    number, is_north = parse_zone(zone)
    north_m = np.asarray(north_m, np.float64)
    north_m = north_m if is_north else north_m - FALSE_NORTH_M
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
    return np.degrees(np.arctan(tangent)), wrap(longitude)


def wrap(degrees: np.ndarray) -> np.ndarray:
    """Returns the same directions, from -180 to 180."""
    return (degrees + 180) % 360 - 180


def _conformal(tangent: np.ndarray) -> np.ndarray:
    """Returns the tangent of the conformal latitude from the latitude's."""
    secant = np.hypot(1, tangent)
    sigma = np.sinh(
        _ECCENTRICITY * np.arctanh(_ECCENTRICITY * tangent / secant)
    )
    return tangent * np.hypot(1, sigma) - sigma * secant
