"""What is known of photographs before they are looked up: where and when.

`prior_rows` says which images of a database agree with it. This module imports
neither numpy nor TensorFlow, so that a command can send a prior to the process
of `--keep_warm`.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, Self

from sare_tf.search import region as regions

# Times from the year on: 2016, 2016-07, 201607, 2016-07-31, 20160731_124512,
# 2016-07-31T12:45:12.5Z, and 2016:07:31 12:45:12 of EXIF.
_TIME = re.compile(
    r"((?:1[89]|2[01])\d\d)(?:[-:/]?(0[1-9]|1[0-2])"
    r"(?:[-:/]?(0[1-9]|[12]\d|3[01])"
    r"(?:[T _]?([01]\d|2[0-3]):?([0-5]\d)"
    r"(?::?([0-5]\d|60)(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?)?)?"
)
_DIGITS = 14  # of a time with seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prior:
    """Restricts search to images that agree with what is known.

    An image is searched if it agrees with every argument that is given. Images
    of unknown position, time, condition or place agree with none.

        prior = Prior(near=(41.8902, 12.4922), within_m=2000)
        rows, distances = index.search(descriptors, 10, where=prior)

    Args:
        near: latitude and longitude of a point, degrees of WGS84.
        within_m: largest distance from the point along the ground, metres.
        region: a GeoJSON object (RFC 7946) with a Polygon or MultiPolygon, cut
            in two where it crosses the antimeridian. Which images on its
            border are inside is not defined.
        taken_from: earliest time, such as 2016, 2016-07 or 2016-07-31T12:45.
        taken_until: latest time; 2016-07 ends with that month. An image whose
            time is a month agrees if a part of the month is in the span. Times
            are compared as they are written: time zones are ignored.
        conditions: conditions of images, in the words of the manifest.
        place_ids: places of images.

    Raises:
        ValueError: a point without a distance, or the other way round; a
            region that is no polygon; a time that cannot be read or a span
            that ends before it begins; or nothing is given.
    """

    near: tuple[float, float] | None = None
    within_m: float | None = None
    region: Mapping[str, Any] | None = None
    taken_from: str | None = None
    taken_until: str | None = None
    conditions: tuple[str, ...] = ()
    place_ids: tuple[str, ...] = ()

    def __post_init__(self):
        set_field = object.__setattr__
        for name in ("conditions", "place_ids"):
            texts = getattr(self, name)
            if isinstance(texts, str):
                texts = (texts,)
            set_field(self, name, tuple(map(str, texts)))
        if self.near is not None:
            set_field(self, "near", tuple(self.near))
        self._check_point()
        if self.region is not None:
            # Kept as one geometry, however it was written.
            polygons = regions.polygons_of(self.region)
            whole = {"type": "MultiPolygon", "coordinates": polygons}
            set_field(self, "region", whole)
        first, last = self.time_span
        if first > last:
            raise ValueError(
                "Expected a span of time that ends after it begins. Received: "
                f"taken_from={self.taken_from!r}, "
                f"taken_until={self.taken_until!r}."
            )
        if not any(self.as_json().values()):
            raise ValueError(
                "Expected a prior: near with within_m, region, taken_from, "
                "taken_until, conditions or place_ids. Received none of them."
            )

    def _check_point(self) -> None:
        if self.near is None and self.within_m is None:
            return
        if self.near is None or self.within_m is None:
            raise ValueError(
                "Expected near, a latitude and longitude, together with "
                f"within_m, a distance. Received: near={self.near}, "
                f"within_m={self.within_m}. Give both or none."
            )
        is_point = len(self.near) == 2 and all(
            isinstance(number, int | float) and math.isfinite(number)
            for number in self.near
        )
        if not is_point or abs(self.near[0]) > 90 or abs(self.near[1]) > 180:
            raise ValueError(
                "Expected near as a latitude from -90 to 90 and a longitude "
                f"from -180 to 180. Received: near={self.near}."
            )
        if not (self.within_m > 0 and math.isfinite(self.within_m)):
            raise ValueError(
                "Expected within_m above 0, metres. Received: "
                f"within_m={self.within_m}."
            )

    @property
    def polygons(self) -> tuple[regions.Polygon, ...]:
        """The polygons of the region; empty without one."""
        return self.region["coordinates"] if self.region else ()

    @property
    def time_span(self) -> tuple[int, int]:
        """The first and the last second, as `span_of` writes them."""
        ends = []
        for name, unknown in (("taken_from", "0"), ("taken_until", "9")):
            text = getattr(self, name)
            span = span_of(text or "")
            if text and span is None:
                raise ValueError(
                    f"Expected {name} as 2016, 2016-07, 2016-07-31 or "
                    f"2016-07-31T12:45. Received: {name}={text!r}."
                )
            ends.append(span or 2 * (int(unknown * _DIGITS),))
        return ends[0][0], ends[1][1]

    def as_text(self) -> str:
        """Returns the prior in words."""
        words = []
        if self.near:
            latitude, longitude = self.near
            words.append(
                f"within {self.within_m:g} m of {latitude:g}, {longitude:g}"
            )
        if self.region:
            words.append("inside the region")
        if self.taken_from or self.taken_until:
            span = f"from {self.taken_from}" if self.taken_from else ""
            until = f"until {self.taken_until}" if self.taken_until else ""
            words.append(f"taken {span}{' ' * bool(span and until)}{until}")
        for name, texts in (
            ("condition", self.conditions),
            ("place", self.place_ids),
        ):
            if texts:
                more = f" and {len(texts) - 5} more" if len(texts) > 5 else ""
                words.append(f"of {name} {' or '.join(texts[:5])}{more}")
        return ", ".join(words)

    def as_json(self) -> dict[str, Any]:
        """Returns the prior as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Self:
        """Returns the prior that `as_json` wrote."""
        return cls(**written)


def span_of(timestamp: str) -> tuple[int, int] | None:
    """Returns the first and the last second of a time.

    Args:
        timestamp: a year and as much more as is known, see `_TIME`.

    Returns:
        Two numbers of 14 digits, YYYYMMDDhhmmss, which order times; a span of
        2016-07 is 20160700000000 to 20160799999999. None if the text is no
        time.
    """
    match = _TIME.fullmatch(timestamp.strip())
    if not match:
        return None
    digits = "".join(part for part in match.groups() if part)
    return int(digits.ljust(_DIGITS, "0")), int(digits.ljust(_DIGITS, "9"))
