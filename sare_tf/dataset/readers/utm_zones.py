"""The UTM zones that the images of a dataset get.

Coordinates of two zones cannot be compared, so images near each other get the
same zone, also where a border lies between them.
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sare_tf.dataset.readers import utm, zone_notation

# A dataset gets one zone if all of it is as near to the zone's meridian. Ours.
_ONE_ZONE_DEG = 10.0
# The coordinates of a zone are of no use farther from its meridian than this:
# distances are 6 % too long there.
_LIMIT_DEG = 20.0
# Images in cells that touch belong to one region. Images of two regions are at
# least a cell apart: more than a kilometre everywhere in UTM's range. Ours.
_CELL_DEG = 0.1


def project(
    latitude: np.ndarray, longitude: np.ndarray, *, utm_zone: str = ""
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Converts degrees to UTM: one zone, or one for each distant region.

    All images get the zone of their median point, also those beyond its
    borders. If one is farther than 10 degrees from the meridian of that zone
    (images of many cities), each region gets its own zone: a region is a set
    of images in touching cells of 0.1 degrees.

    Args:
        latitude: [B].
        longitude: [B].
        utm_zone: zone for all images instead, in any notation.

    Returns:
        Metres east [B] and north [B], and B zones.

    Raises:
        ValueError: `utm_zone` is no zone, or an image is more than 20 degrees
            from the meridian of its zone.
    """
    latitude = np.asarray(latitude, np.float64)
    longitude = np.asarray(longitude, np.float64)
    if not len(latitude):
        return latitude, longitude, []
    if utm_zone:
        utm_zone = zone_notation.of_latitude(utm_zone, np.median(latitude))
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
        east[rows], north[rows] = utm.to_utm(
            latitude[rows], longitude[rows], zone
        )
        zones[rows] = zone
    return east, north, zones.tolist()


def members(labels: np.ndarray) -> list[np.ndarray]:
    """Returns the positions of each label, of int64 [B] labels from 0."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.cumsum(np.bincount(labels))[:-1])


def unify(
    east_m: np.ndarray,
    north_m: np.ndarray,
    zones: list[str],
    *,
    utm_zone: str = "",
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Converts coordinates of several zones to the zones of `project`.

    An image that has its zone already keeps its numbers exactly.

    Args:
        east_m: [B].
        north_m: [B].
        zones: B zones with their latitude bands.
        utm_zone: zone for all images instead.

    Returns:
        Metres east [B] and north [B], and B zones.

    Raises:
        ValueError: a zone among several has no latitude band, or an error of
            `project`.
    """
    east_m = np.array(east_m, np.float64)
    north_m = np.array(north_m, np.float64)
    if len(set(zones)) == 1 and utm_zone in ("", zones[0]):
        return east_m, north_m, list(zones)
    latitude, longitude = np.empty_like(east_m), np.empty_like(east_m)
    zone_of_image = np.array(zones, object)
    for zone in set(zones):
        rows = zone_of_image == zone
        latitude[rows], longitude[rows] = utm.to_degrees(
            east_m[rows], north_m[rows], zone
        )
    east, north, new_zones = project(latitude, longitude, utm_zone=utm_zone)
    kept = [
        utm.parse_zone(old) == utm.parse_zone(new)
        for old, new in zip(zones, new_zones, strict=True)
    ]
    east, north = np.where(kept, east_m, east), np.where(kept, north_m, north)
    return east, north, new_zones


def _median_zone(latitude: np.ndarray, longitude: np.ndarray) -> str:
    # Longitudes count from their mean direction, so that 179 and -179 are near.
    turns = np.exp(1j * np.radians(longitude)).mean()
    centre = np.degrees(np.angle(turns))
    middle = utm.wrap(centre + np.median(utm.wrap(longitude - centre)))
    return utm.zone_of(float(np.median(latitude)), float(middle))


def _farthest(longitude: np.ndarray, zone: str) -> float:
    number, _ = utm.parse_zone(zone)
    return float(np.abs(utm.wrap(longitude - (6 * number - 183))).max())


def _regions(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Numbers the connected sets of touching cells from 0, int64 [B]."""
    columns = round(360 / _CELL_DEG)
    row = np.floor((latitude + 90) / _CELL_DEG).astype(np.int64)
    column = np.floor((longitude + 180) / _CELL_DEG).astype(np.int64) % columns
    cells, of_image = np.unique(row * columns + column, return_inverse=True)
    rows, cols = np.divmod(cells, columns)
    links = []
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        wanted = (rows + down) * columns + (cols + right) % columns
        neighbours = np.searchsorted(cells, wanted)
        neighbours[neighbours == len(cells)] = 0
        touching = np.flatnonzero(cells[neighbours] == wanted)
        links.append(np.stack([touching, neighbours[touching]]))
    first, second = np.concatenate(links, axis=1)
    graph = coo_array(
        (np.ones(len(first)), (first, second)), shape=(len(cells), len(cells))
    )
    _, region = connected_components(graph, directed=False)
    return region[of_image].astype(np.int64)
