"""Photographs -> the places that they may show, for `locate` and its page.

`search.confidence` defines the confidence of an answer.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sare_tf import serving
from sare_tf.dataset import image_refusal, manifest, names
from sare_tf.dataset.readers import utm
from sare_tf.records.records import Records
from sare_tf.search import confidence
from sare_tf.search.descriptor_arrays import check_unit
from sare_tf.search.opened_index import Index


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
        """The address of its position on OpenStreetMap."""
        if self.latitude is None:
            return None
        return (
            f"https://www.openstreetmap.org/?mlat={self.latitude:.6f}&mlon={self.longitude:.6f}"
            f"#map=18/{self.latitude:.6f}/{self.longitude:.6f}"
        )

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
        if not self.same_place:
            words.append("(another place)")
        return "  ".join(words)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Searched:
    """What a photograph was compared with.

    Args:
        images: number of images.
        places: number of their places; None if the place of one is unknown.
        split: the splits of the records that they are from, such as "test" or
            "all"; None if the index was not built from records.
        search: "exact" or "scann".
        recall: the share of the nearest images that the search finds, see
            `Index.recall_at`; None if it is not known.
    """

    images: int
    places: int | None
    split: str | None
    search: str
    recall: float | None

    @classmethod
    def of(cls, index: Index, k: int) -> "Searched":
        """Describes a search of an index for k images."""
        places = None
        if manifest.has_places(index.manifest):
            places = index.manifest["place_id"].nunique()
        return cls(
            images=len(index.manifest),
            places=places,
            split=index.metadata["split"],
            search=index.searches_with,
            recall=index.recall_at(k),
        )

    def as_text(self) -> str:
        """Returns it in words, such as "558 images of 40 places"."""
        words = f"{self.images} image{'s' * (self.images != 1)}"
        if self.places is not None:
            words += f" of {self.places} place{'s' * (self.places != 1)}"
        if self.split not in (None, names.ALL_SPLITS):
            words += f" (split {self.split})"
        return words


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """The matches of one photograph, or why it has none.

    Args:
        matches: its matches, nearest first.
        confidence: from 0 to 1, see `search.confidence`. None if the database
            holds no other place.
        error: why the photograph could not be looked up; empty if it was.
        searched: what it was compared with.
    """

    matches: Sequence[Match] = ()
    confidence: float | None = None
    error: str = ""
    searched: Searched | None = None

    def as_json(self) -> dict[str, Any]:
        """Returns the answer as a JSON object."""
        if self.error:
            return {"error": self.error}
        return {
            "confidence": self.confidence,
            "searched": self.searched and dataclasses.asdict(self.searched),
            "matches": [
                {**dataclasses.asdict(match), "map_url": match.map_url}
                for match in self.matches
            ],
        }

    def as_text(self) -> str:
        """Returns the answer in words, with one line for each match."""
        if self.error:
            return f"not looked up: {self.error}\n"
        if self.confidence is None:
            lines = ["no other place to compare with"]
        else:
            lines = [f"confidence {self.confidence:.3f}"]
        if self.searched is not None:
            lines[0] += f", compared with {self.searched.as_text()}"
        for rank, match in enumerate(self.matches, 1):
            lines.append(f"{rank:>4}  {match.as_text()}")
        if self.matches and self.matches[0].map_url:
            lines.append(f"      {self.matches[0].map_url}")
        return "\n".join(lines) + "\n"


class Locator:
    """An index and its model, which locate photographs.

    Args:
        index: folder of the index, or several, as `Index.open` takes them.
        export: folder of the export that the index was built with, or a server
            of it (`serving.load`).
        exact: search exactly, without ScaNN.
        check: compare the files of the index with their digests.
        positive_radius_m: images at most this far apart show the same place,
            and so do images of the same place_id.

    Call arguments:
        encoded: bytes of B photographs.
        k: matches to find for each; all images if the index has fewer.

    Output:
        B answers.

    Raises:
        FileNotFoundError: index or export does not exist.
        ValueError: one of them is damaged, or the index was built with another
            export.
    """

    def __init__(
        self,
        *,
        index: str | Path | Sequence[str | Path],
        export: str | Path | serving.Server,
        exact: bool = False,
        check: bool = True,
        positive_radius_m: float = 25.0,
    ):
        self.index = Index.open(index, exact=exact, check=check)
        self._servable = serving.load(export)
        self.index.check_export(self._servable)
        rows = self.index.manifest
        self.places = confidence.Places(rows, radius_m=positive_radius_m)
        self._rows = rows[["image_id", "place_id", "utm_zone"]]

    @property
    def servable(self) -> serving.Servable | serving.RemoteServable:
        """The model."""
        return self._servable

    def __call__(self, encoded: Sequence[bytes], *, k: int) -> list[Answer]:
        descriptors, errors = self._embed(encoded)
        answers = [Answer(error=error) for error in errors]
        good = [number for number, error in enumerate(errors) if not error]
        count = len(self.index.manifest)
        searched = Searched.of(self.index, max(k, confidence.DEPTH))
        rows, distances = self.index.search(
            descriptors[good], max(k, confidence.DEPTH)
        )
        same = self.places.same_as_first(rows)
        confidences = confidence.of_neighbours(distances, same, count=count)
        for line, number in enumerate(good):
            sure = confidences[line]
            answers[number] = Answer(
                matches=[
                    self._match(
                        rows[line, i], distances[line, i], same[line, i]
                    )
                    for i in range(min(k, count))
                    if rows[line, i] >= 0
                ],
                confidence=None if np.isnan(sure) else float(sure),
                searched=searched,
            )
        return answers

    def _embed(self, encoded: Sequence[bytes]) -> tuple[np.ndarray, list[str]]:
        """Descriptors [B, D], and for each why it cannot be used, or ""."""
        descriptors, valid = self._servable(list(encoded))
        errors = [""] * len(encoded)
        for number, image in enumerate(encoded):
            if not valid[number]:
                errors[number] = image_refusal.why_not(image)
                continue
            try:
                check_unit(descriptors[number : number + 1], ["its descriptor"])
            except ValueError as error:
                errors[number] = str(error)
        return descriptors, errors

    def _match(self, row: int, distance: float, same_place: bool) -> Match:
        east, north = self.places.positions[row].tolist()
        known = bool(np.isfinite([east, north]).all())
        image_id, place_id, zone = self._rows.iloc[row]
        latitude, longitude = None, None
        if known:
            latitude, longitude = degrees_of(east, north, zone)
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
    """The images that an index was built from, by image_id.

    If the index was built from several records, only images of one of them are
    known.

    Args:
        records: folder of `build_records`.
        index: the opened index.

    Raises:
        FileNotFoundError: the folder has no finished records.
        ValueError: they are damaged, or the index was built from others.
    """

    def __init__(self, records: str | Path, index: Index):
        self._records = Records(records)
        if self._records.fingerprint not in index.records_fingerprints:
            expected = sorted(name[:12] for name in index.records_fingerprints)
            raise ValueError(
                "Expected records that the index was built from, with "
                f"fingerprint {' or '.join(expected)}. Received: records="
                f"{str(records)!r} with {self._records.fingerprint[:12]}. "
                "Name the other ones with --records."
            )

    def read(self, image_ids: Sequence[str]) -> list[bytes | None]:
        """Returns encoded images in the order of their names.

        An image that the records lack is None.
        """
        return self._records.read_named(image_ids)

    def queries(self, count: int) -> list[str]:
        """Returns names of a few queries of the records, of several places."""
        manifest = self._records.manifest
        queries = manifest["image_id"][manifest["role"] == "query"]
        rows = np.linspace(0, len(queries) - 1, min(count, len(queries)))
        return queries.iloc[rows.round().astype(int)].tolist()


def degrees_of(
    east_m: float, north_m: float, zone: str
) -> tuple[float | None, float | None]:
    """Returns the latitude and longitude of a position, if it has them.

    Args:
        east_m: metres east of UTM.
        north_m: metres north of UTM.
        zone: its zone, such as "17T".

    Returns:
        Degrees north and east; None if the zone lacks its latitude band, or if
        no position on the globe has these metres.
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
