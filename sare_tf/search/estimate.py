"""Where a photograph was taken: an estimate of its position, and its ellipse.

`placing` makes estimates from the nearest images, and `calibration` holds what
was measured on the split val. This module imports neither numpy nor TensorFlow.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

# The ways to make a position of the nearest images, in words.
METHODS = {
    "nearest": "the position of the nearest match",
    "mean": "the weighted mean of the matches",
    "peak": "where the matches are densest",
}
# Ours: if less of the weight of the matches agrees, places look alike.
_ALIKE = 0.5
# Shares of photographs that an ellipse is meant to contain, by their names.
SHARES = {"68": 0.68, "95": 0.95}


def normal_scale(share: float) -> float:
    """Returns the squared radius that holds this share of a normal plane.

    The squared Mahalanobis distance of two dimensions has the distribution
    chi-square with two degrees of freedom, 1 - exp(-x / 2).
    """
    return -2 * math.log(1 - share)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placing:
    """How positions are estimated, and how far they are trusted.

    Args:
        method: one of `METHODS`.
        temperature: squared distance by which a match has to be farther to
            weigh 1 / e; None: see `point_estimates.weights_of`.
        scales: for each of `SHARES` the squared radius of its ellipse, in
            standard deviations of the matches.
        queries: validation queries that this was measured on; 0: none.
        median_m: median error of each method on these; empty if not measured.
    """

    method: str = "nearest"
    temperature: float | None = None
    scales: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {
            name: normal_scale(share) for name, share in SHARES.items()
        }
    )
    queries: int = 0
    median_m: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Self:
        """Returns what `dataclasses.asdict` wrote.

        Raises:
            ValueError, TypeError: it was written by something else.
        """
        placing = cls(**written)
        if placing.method not in METHODS or set(placing.scales) != set(SHARES):
            raise ValueError(f"it holds no placing: {written!r:.60}")
        return placing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ellipse:
    """An ellipse around a position that holds a share of the truths.

    Args:
        share: the name of the share, one of `SHARES`.
        major_m: its larger half axis, metres.
        minor_m: its smaller half axis.
        azimuth_deg: where the larger one points to, clockwise from grid north,
            from 0 to 180.
    """

    share: str
    major_m: float
    minor_m: float
    azimuth_deg: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """An estimated position.

    Args:
        method: one of `METHODS`.
        images: number of matches that it was made of.
        agreement: share of their weight that is at the estimate, within the
            radius of a place.
        utm_east_m: metres east.
        utm_north_m: metres north.
        utm_zone: their zone; empty if unknown.
        latitude: degrees north, None if unknown.
        longitude: degrees east, None if unknown.
        heading_deg: where the camera looked, clockwise from north; None if
            the matches do not say it.
        ellipses: one for each of `SHARES`; none of a single match.
        queries: validation queries that the size of the ellipses was measured
            on; 0: it is that of a normal distribution.
        split: of these.
    """

    method: str
    images: int
    agreement: float
    utm_east_m: float
    utm_north_m: float
    utm_zone: str
    latitude: float | None
    longitude: float | None
    heading_deg: float | None
    ellipses: Sequence[Ellipse]
    queries: int
    split: str

    def as_text(self) -> str:
        """Returns the position in words, on one line."""
        if self.latitude is not None:
            where = f"{self.latitude:.6f}, {self.longitude:.6f}"
        else:
            where = (
                f"{self.utm_east_m:.1f} m east, {self.utm_north_m:.1f} m north"
            )
        words = f"position {where} ({METHODS[self.method]})"
        if self.heading_deg is not None:
            words += f", looking to {self.heading_deg:.0f}°"
        words += f"; {self.ellipse_text}"
        if self.agreement < _ALIKE:
            words += (
                f"; {100 * self.agreement:.0f} % of the matches' weight is "
                "there, other places look alike"
            )
        return words

    @property
    def ellipse_text(self) -> str:
        """The ellipses in words."""
        if not self.ellipses:
            return "from one match, so its error is unknown"
        sizes = " and ".join(
            f"{one.share} % within {_metres(one.major_m)} x "
            f"{_metres(one.minor_m)} m"
            for one in self.ellipses
        )
        if self.queries:
            return f"{sizes} ({self.split}, n = {self.queries})"
        return f"{sizes} (not calibrated)"

    def as_json(self) -> dict[str, Any]:
        """Returns the estimate as a JSON object."""
        return {**dataclasses.asdict(self), "text": self.as_text()}

    @classmethod
    def from_json(cls, written: Mapping[str, Any] | None) -> Self | None:
        """Returns the estimate that `as_json` wrote; None of None."""
        if written is None:
            return None
        fields = {key: one for key, one in written.items() if key != "text"}
        fields["ellipses"] = [Ellipse(**one) for one in written["ellipses"]]
        return cls(**fields)


def _metres(metres: float) -> str:
    return f"{metres:.0f}" if metres >= 10 else f"{metres:.1f}"
