"""Photographs -> the places they may show: what `locate` and its page tell.

`sare_tf.confidence` says what the confidence of an answer is.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sare_tf import serving
from sare_tf.dataset import image_refusal
from sare_tf.dataset.readers import utm
from sare_tf.records.records import Records
from sare_tf.search import confidence
from sare_tf.search.descriptor_arrays import check_unit
from sare_tf.search.opened_index import Index


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """A database image found for a photograph.

    Args:
        image_id: its name in the index.
        place_id: empty if unknown.
        squared_distance: between the descriptors.
        same_place: whether it shows the place of the first match.
        utm_east_m: None if unknown.
        utm_north_m: None if unknown.
        utm_zone: empty if unknown.
        latitude: degrees north, None if unknown.
        longitude: degrees east, None if unknown.
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

    @property
    def map_url(self) -> str | None:
        """Its position on OpenStreetMap."""
        if self.latitude is None:
            return None
        at = f"{self.latitude:.6f}", f"{self.longitude:.6f}"
        return (
            "https://www.openstreetmap.org/?mlat={0}&mlon={1}#map=18/{0}/{1}"
        ).format(*at)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What was found for one photograph, or why nothing was.

    Args:
        matches: nearest first.
        confidence: from 0 to 1, as of `sare_tf.confidence`. None where the
            database holds no other place.
        error: why the photograph could not be looked up; empty if it was.
    """

    matches: Sequence[Match] = ()
    confidence: float | None = None
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """The answer as a JSON object."""
        if self.error:
            return {"error": self.error}
        return {
            "confidence": self.confidence,
            "matches": [
                {**dataclasses.asdict(match), "map_url": match.map_url}
                for match in self.matches
            ],
        }


class Locator:
    """An index and its model, ready to be asked.

    Call arguments:
        encoded: bytes of B photographs.
        k: matches to find for each.

    Output:
        B answers.

    Args:
        index: folder of the index, or several, as `Index.open` takes them.
        export: folder of the export that the index was built with, or a server
            of it (`serving.load`).
        exact: search exactly, without ScaNN.
        positive_radius_m: images at most so far apart show one place, as do
            those with one place_id.

    Raises:
        FileNotFoundError: index or export is not there.
        ValueError: it is damaged, or another export than the index's.
    """

    def __init__(
        self,
        *,
        index: str | Path | Sequence[str | Path],
        export: str | Path | serving.Server,
        exact: bool = False,
        positive_radius_m: float = 25.0,
    ):
        self.index = Index.open(index, exact=exact)
        self._servable = serving.load(export)
        self.index.check_export(self._servable)
        rows = self.index.manifest
        self.places = confidence.Places(rows, radius_m=positive_radius_m)
        self._rows = rows[["image_id", "place_id", "utm_zone"]]

    def check_k(self, k: int) -> None:
        """Refuses to find more matches than the index has images.

        Raises:
            ValueError: k is out of range.
        """
        count = len(self.index.manifest)
        if not 1 <= k <= count:
            raise ValueError(
                f"Expected k from 1 to the {count} images of the index. "
                f"Received: k={k}. Ask for fewer matches."
            )

    def __call__(self, encoded: Sequence[bytes], *, k: int) -> list[Answer]:
        self.check_k(k)
        descriptors, valid = self._servable(list(encoded))
        errors = [""] * len(encoded)
        for at, image in enumerate(encoded):
            if not valid[at]:
                errors[at] = image_refusal.why_not(image)
                continue
            try:
                check_unit(descriptors[at : at + 1], ["it"])
            except ValueError as error:
                errors[at] = str(error)
        good = [at for at, error in enumerate(errors) if not error]
        answers = [Answer(error=error) for error in errors]
        count = len(self.index.manifest)
        found, distances = self.index.search(
            descriptors[good], min(max(k, confidence.DEPTH), count)
        )
        same = self.places.same_as_first(found)
        sure = confidence.of_neighbours(distances, same, count=count)
        for at, rows, *figures, value in zip(
            good, found, distances, same, sure, strict=True
        ):
            matches = [
                self._match(*values)
                for values in zip(rows[:k], *figures, strict=False)
                if values[0] >= 0
            ]
            answers[at] = Answer(
                matches=matches,
                confidence=None if np.isnan(value) else float(value),
            )
        return answers

    def _match(self, row: int, distance: float, same_place: bool) -> Match:
        east, north = self.places.positions[row].tolist()
        known = bool(np.isfinite([east, north]).all())
        image_id, place_id, zone = self._rows.iloc[row]
        latitude, longitude = None, None
        if known:
            latitude, longitude = _degrees(east, north, zone)
        return Match(
            image_id=image_id,
            place_id=place_id,
            squared_distance=float(distance),
            same_place=bool(same_place),
            utm_east_m=east if known else None,
            utm_north_m=north if known else None,
            utm_zone=zone,
            latitude=latitude,
            longitude=longitude,
        )


class Gallery:
    """The images that an index was built of, by image_id.

    Of an index of several records those of one are known.

    Args:
        records: folder of `build_records`.
        index: the opened index.

    Raises:
        FileNotFoundError: no finished records are there.
        ValueError: they are damaged, or others than those of the index.
    """

    def __init__(self, records: str | Path, index: Index):
        self._records = Records(records)
        if self._records.fingerprint not in index.records_fingerprints:
            made = sorted(name[:12] for name in index.records_fingerprints)
            raise ValueError(
                "Expected records that the index was built from, with "
                f"fingerprint {' or '.join(made)}. Received: records="
                f"{str(records)!r} with {self._records.fingerprint[:12]}. "
                "Name the other ones with --records."
            )

    def read(self, image_ids: Sequence[str]) -> list[bytes | None]:
        """Encoded images in the order of their names; None where unknown."""
        return self._records.read_named(image_ids)


def _degrees(
    east_m: float, north_m: float, zone: str
) -> tuple[float | None, float | None]:
    """Latitude and longitude; None where they cannot be told.

    That is without a zone or its latitude band, and for metres that no position
    on the globe has.
    """
    metres = [east_m], [north_m]
    try:
        degrees = utm.to_degrees(*metres, zone)
        back = utm.to_utm(*degrees, zone)
    except ValueError:
        return None, None
    if not np.allclose(back, metres, rtol=0, atol=1):
        return None, None
    latitude, longitude = (float(value[0]) for value in degrees)
    return latitude, longitude
