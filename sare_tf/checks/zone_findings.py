"""Findings in UTM zones: no position, no zone, or outside of the zone."""

import numpy as np
import pandas as pd

from sare_tf.checks.finding import (
    ERROR,
    NOTE,
    WARNING,
    Finding,
    count,
    if_any,
    named,
)
from sare_tf.checks.positions import Positions
from sare_tf.dataset import manifest
from sare_tf.dataset.readers import zone_notation

# About as far from the middle of its zone as `utm_zones.project` goes.
_ZONE_EAST_M, _ZONE_NORTH_M = 2_300_000.0, 10_000_000.0
# Latitude bands of UTM, 8 degrees each from 80 south; and, ours, how far images
# of a region may be from the middle of their band.
_BANDS, _BAND_DEG = "CDEFGHJKLMNPQRSTUVWX", 24.0
# Zones that a message names.
_NAMED = 8


def zones(table: pd.DataFrame) -> list[Finding]:
    """Finds images without position or zone, or outside of their zone."""
    positions = Positions.of(table)
    several = _several_zones(positions)
    if not positions.located.any():
        return several
    return [
        *_no_position(positions),
        *_outside_zone(positions),
        *_hemisphere(positions),
        *_no_zone(positions),
        *several,
    ]


def _no_position(positions: Positions) -> list[Finding]:
    table, missing = positions.table, ~positions.located
    return if_any(
        named(table, missing, table["split"].iat.__getitem__),
        severity=WARNING,
        name="no_position",
        message=f"{count(missing.sum(), 'image')} of {len(table):,} "
        "without a position, though others have one.",
        action="Add their positions, or leave them out: positives by "
        "radius need one of every image.",
    )


def _outside_zone(positions: Positions) -> list[Finding]:
    east, north = positions.points.T
    outside = (
        (np.abs(east - 500_000) > _ZONE_EAST_M)
        | (north < 0)
        | (north > _ZONE_NORTH_M)
        | _off_band(positions.zones, positions.degrees[:, 0])
    )
    outside &= positions.located & positions.has_zone
    return if_any(
        positions.in_metres(outside),
        severity=ERROR,
        name="outside_zone",
        message=f"{count(outside.sum(), 'image')} outside of their UTM zone.",
        action="Check east and north (swapped?), the zone, whose letter is the "
        "latitude band, and that they are metres and not degrees.",
    )


def _hemisphere(positions: Positions) -> list[Finding]:
    """Finds zones whose S is hardly a band: in records of earlier versions."""
    rows = np.flatnonzero(positions.located & positions.has_zone)
    written = positions.zones[rows]
    _, resolved, _ = zone_notation.resolve(
        positions.points[rows, 1], written, hemisphere="north"
    )
    marked = np.zeros(len(positions.zones), bool)
    marked[rows] = [
        manifest.grid(before) != manifest.grid(after)
        for before, after in zip(written, resolved, strict=True)
    ]
    return if_any(
        positions.in_degrees(marked),
        severity=ERROR,
        name="hemisphere",
        message=f"{count(marked.sum(), 'image')} whose UTM zone has the letter "
        "of the hemisphere instead of the latitude band: their latitudes are "
        "wrong.",
        action="Build the records again: the readers know both notations.",
    )


def _no_zone(positions: Positions) -> list[Finding]:
    without = positions.located & ~positions.has_zone
    if without.sum() == positions.located.sum():
        return [
            Finding(
                severity=NOTE,
                name="no_zone",
                message="No image has a UTM zone with its latitude band: "
                "positions are treated as metres on one plane.",
                action="No action is needed if they are, or if they are made "
                "up.",
                count=int(without.sum()),
            )
        ]
    return if_any(
        named(
            positions.table,
            without,
            lambda row: f"zone {positions.zones[row]!r}",
        ),
        severity=ERROR,
        name="no_zone",
        message=f"{count(without.sum(), 'image')} with a "
        "position but no UTM zone, though others have one.",
        action="Give them a zone with its latitude band, such as 17T.",
    )


def _several_zones(positions: Positions) -> list[Finding]:
    names, counts = np.unique(
        positions.zones[positions.has_zone].astype(str), return_counts=True
    )
    if len(names) < 2:
        return []
    words = [
        f"{name} ({number:,})"
        for name, number in zip(names, counts, strict=True)
    ]
    shown = ", ".join(words[:_NAMED])
    if len(words) > _NAMED:
        shown += f" and {len(words) - _NAMED} more"
    return [
        Finding(
            severity=NOTE,
            name="several_zones",
            message=f"{len(names)} UTM zones: {shown}. Images of different "
            "zones are never positives.",
            action="No action is needed for different cities. If the border "
            "of zones cuts a city, set --utm_zone.",
            count=len(names),
        )
    ]


def _off_band(zones: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Marks images far from the latitude band of their zone, bool [B].

    Readers give all images of a region the band of their median.
    """
    middle = {
        letter: -76.0 + 8.0 * number for number, letter in enumerate(_BANDS)
    }
    bands = [middle.get(zone[-1:], np.nan) for zone in zones]
    return np.abs(latitude - np.array(bands)) > _BAND_DEG
