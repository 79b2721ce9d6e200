"""The answer to a photograph: its matches, and how sure they are.

`Locator` makes answers, and `Answer.from_json` those of another process. This
module imports neither numpy nor TensorFlow, so that a command which only prints
answers starts at once.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

from sare_tf.dataset import names
from sare_tf.search.estimate import Estimate
from sare_tf.search.reliability import RejectionRates, Reliability

# Ours: upper ends of the confidence, and the word for the margin between the
# first match and the nearest image of another place. The words order answers.
_MARGINS = ((0.05, "narrow"), (0.2, "fair"), (1.0, "wide"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """A database image that was retrieved for a photograph.

    Args:
        image_id: its name in the index.
        place_id: its place, empty if unknown.
        squared_distance: squared distance of the descriptors.
        same_place: whether it shows the place of the first match.
        utm_east_m: None if unknown.
        utm_north_m: None if unknown.
        utm_zone: empty if unknown.
        latitude: degrees north, None if unknown.
        longitude: degrees east, None if unknown.
        inliers: local features that agree with the photograph's; None if the
            match was not verified.
        lines: some of these, each as x and y in the photograph and x and y in
            the match, as shares of width and height. Not part of the JSON.
    """

    image_id: str
    place_id: str
    squared_distance: float
    same_place: bool
    utm_east_m: float | None
    utm_north_m: float | None
    utm_zone: str
    latitude: float | None
    longitude: float | None
    inliers: int | None = None
    lines: Sequence[tuple[float, float, float, float]] = ()

    @property
    def map_url(self) -> str | None:
        """The address of its position on OpenStreetMap."""
        if self.latitude is None:
            return None
        return (
            f"https://www.openstreetmap.org/?mlat={self.latitude:.6f}&mlon={self.longitude:.6f}"
            f"#map=18/{self.latitude:.6f}/{self.longitude:.6f}"
        )

    def as_json(self) -> dict[str, Any]:
        """Returns the match as a JSON object."""
        fields = {**_fields_of(self), "map_url": self.map_url}
        del fields["lines"]
        return fields

    def as_text(self) -> str:
        """Returns the match in words, on one line."""
        words = [f"{self.squared_distance:.4f}", self.image_id]
        if self.place_id:
            words.append(f"place {self.place_id}")
        if self.utm_east_m is not None:
            zone = f" zone {self.utm_zone}" if self.utm_zone else ""
            words.append(
                f"{self.utm_east_m:.1f} m east, {self.utm_north_m:.1f} m "
                f"north{zone}"
            )
        if self.latitude is not None:
            words.append(f"{self.latitude:.6f}, {self.longitude:.6f}")
        if self.inliers is not None:
            words.append(f"{self.inliers} inliers")
        if not self.same_place:
            words.append("(another place)")
        return "  ".join(words)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Searched:
    """What a photograph was compared with.

    Args:
        images: number of images that were searched.
        indexed: number of images of the index; more than `images` if a prior
            left some out.
        places: number of places of those that were searched; None if the place
            of one is unknown.
        split: the splits of the records that they are from, such as "test" or
            "all"; None if the index was not built from records.
        search: "exact" or "scann".
        recall: the share of the nearest images that the search finds, see
            `Index.recall_at`; None if it is not known.
        prior: what was known of the photograph, in words; empty for nothing.
    """

    images: int
    indexed: int
    places: int | None
    split: str | None
    search: str
    recall: float | None
    prior: str = ""

    def as_text(self) -> str:
        """Returns it in words, such as "558 images of 40 places"."""
        words = f"{self.images} image{'s' * (self.images != 1)}"
        # Places that were asked for follow by their names.
        if self.places is not None and "of place " not in self.prior:
            words += f" of {self.places} place{'s' * (self.places != 1)}"
        if self.split not in (None, names.ALL_SPLITS):
            words += f" (split {self.split})"
        if self.prior:
            words += f" {self.prior}, out of {self.indexed}"
        return words


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tracked:
    """What the frames around a frame say of its place.

    Args:
        probability: of the place of the first match, from 0 to 1.
        frames: number of frames that were looked up together.
        method: of `--sequence_method`.
    """

    probability: float
    frames: int
    method: str

    def as_text(self) -> str:
        """Returns it in words."""
        words = f"place with probability {self.probability:.2f}"
        if self.frames == 1:
            return f"{words}, by this frame only"
        return f"{words}, by {self.frames} frames ({self.method})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """The matches of one photograph, or why it has none.

    Args:
        matches: its matches, nearest first.
        confidence: from 0 to 1, see `search.confidence`. None if the database
            holds no other place.
        error: why the photograph could not be looked up; empty if it was.
        searched: what it was compared with.
        reliability: how often answers of this confidence were right; None if
            the index has no calibration that fits.
        rejected: whether the photograph is declared not to be in the database.
        rejection: how often that is wrong; None without `--reject_below`.
        position: where the photograph was taken, as estimated from the first
            matches; None if these have no position, or if it is rejected.
        reranked: what re-ranking did, in words; empty without it. If it put
            another place first, there is no confidence.
        tracked: what the frames around it say; None without `--sequence`. Then
            there is no confidence.
    """

    matches: Sequence[Match] = ()
    confidence: float | None = None
    error: str = ""
    searched: Searched | None = None
    reliability: Reliability | None = None
    rejected: bool = False
    rejection: RejectionRates | None = None
    position: Estimate | None = None
    reranked: str = ""
    tracked: Tracked | None = None

    @property
    def confidence_text(self) -> str:
        """How sure the answer is, in words."""
        if self.error:
            return ""
        if self.tracked is not None:
            words = self.tracked.as_text()
            return f"not in this database: {words}" * self.rejected or words
        if self.reliability is not None:
            words = self.reliability.as_text()
            if self.rejected:
                words = f"not in this database: {words}"
            if self.rejection is not None:
                words += f"; {self.rejection.false_alarm_text}"
            return words
        if self.confidence is None and self.reranked:
            return self.reranked
        if self.confidence is None:
            return "no other place to compare with"
        word = next(word for end, word in _MARGINS if self.confidence <= end)
        return (
            f"{word} margin to the nearest other place (confidence "
            f"{self.confidence:.3f}, not calibrated)"
        )

    def as_json(self) -> dict[str, Any]:
        """Returns the answer as a JSON object."""
        if self.error:
            return {"error": self.error}
        return {
            "confidence": self.confidence,
            "confidence_text": self.confidence_text,
            "reliability": _fields_of(self.reliability),
            "rejected": self.rejected,
            "rejection": _fields_of(self.rejection),
            "position": self.position and self.position.as_json(),
            "reranked": self.reranked,
            "tracked": _fields_of(self.tracked),
            "searched": _fields_of(self.searched),
            "matches": [match.as_json() for match in self.matches],
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Self:
        """Returns the answer that `as_json` wrote."""
        if "error" in written:
            return cls(error=written["error"])
        return cls(
            matches=[
                Match(**{k: v for k, v in match.items() if k != "map_url"})
                for match in written["matches"]
            ],
            confidence=written["confidence"],
            searched=_made(Searched, written["searched"]),
            reliability=_made(Reliability, written["reliability"]),
            rejected=written["rejected"],
            rejection=_made(RejectionRates, written["rejection"]),
            position=Estimate.from_json(written["position"]),
            reranked=written["reranked"],
            tracked=_made(Tracked, written["tracked"]),
        )

    def as_text(self) -> str:
        """Returns the answer in words, with one line for each match."""
        if self.error:
            return f"not looked up: {self.error}\n"
        lines = [self.confidence_text]
        if self.searched is not None:
            lines[0] += f", compared with {self.searched.as_text()}"
        if self.reranked not in ("", self.confidence_text):
            lines[0] += f"; {self.reranked}"
        if self.position is not None:
            lines.append(f"      {self.position.as_text()}")
        elif self.matches and all(
            match.utm_east_m is None for match in self.matches
        ):
            lines.append("      position unknown: no match has one")
        for rank, match in enumerate(self.matches, 1):
            lines.append(f"{rank:>4}  {match.as_text()}")
        if self.matches and self.matches[0].map_url and not self.rejected:
            lines.append(f"      {self.matches[0].map_url}")
        return "\n".join(lines) + "\n"


def _fields_of(value: Any) -> dict[str, Any] | None:
    return None if value is None else dataclasses.asdict(value)


def _made(cls: type, fields: Mapping[str, Any] | None) -> Any:
    return None if fields is None else cls(**fields)
