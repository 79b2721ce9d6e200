"""What a reader makes: a `Reading`, gathered image by image."""

import dataclasses
import functools
import itertools
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pandas as pd

from sare_tf.dataset import positives
from sare_tf.dataset.readers import (
    files_on_disk,
    utm,
    utm_zones,
    zone_notation,
)
from sare_tf.dataset.sqlite_manifest import SqliteManifest

# Reasons of refusal that a check of the dataset counts by themselves. ABSENT is
# the end of one.
NOT_IMAGE = f"not one of {', '.join(files_on_disk.EXTENSIONS)}"
ABSENT = "but no such file"

# Files that a message counts.
_COUNTED = 10_000
_METRES = ("utm_east_m", "utm_north_m")
_DEGREES = ("latitude", "longitude")


class NoImages(ValueError):
    """A dataset without a single image."""


@dataclasses.dataclass(frozen=True)
class Source:
    """The file of an image, where it is not the whole file of its image_id.

    Attributes:
        path: the file, relative to the root of the reading.
        box: left, top, right and bottom of the part that is the image, in
            pixels from the top left corner; None: all of the file's image.
    """

    path: str
    box: tuple[float, float, float, float] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assumption:
    """What a reader took the dataset to mean, where others may mean more.

    Attributes:
        name: kind of assumption, in snake case.
        message: the assumption, in a sentence.
        action: what to do if it is wrong.
        images: the images or lines concerned, with what is particular to each;
            empty where they are not named.
        count: how many there are.
    """

    name: str
    message: str
    action: str
    images: Sequence[tuple[str, str]] = ()
    count: int


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a reader read.

    Attributes:
        images: the manifest, on disk. `image_id` is the path relative to
            `root`, or begins with it and a `#` where `sources` has an entry.
        root: folder that the image ids are relative to.
        rejected: (path relative to `root`, reason) of files left out.
        relations: the table of `positives.make_relations`, if the layout says
            which database images answer a query; else None.
        sources: image_id -> source, for images that are no whole file of
            their own.
        assumptions: what is not certain of the dataset.
    """

    images: SqliteManifest
    root: Path
    rejected: list[tuple[str, str]]
    relations: pd.DataFrame | None = None
    sources: Mapping[str, Source] = dataclasses.field(default_factory=dict)
    assumptions: Sequence[Assumption] = ()

    @functools.cached_property
    def manifest(self) -> pd.DataFrame:
        """The images in memory, in the order in which they were added."""
        return self.images.table()

    def source(self, image_id: str) -> Source:
        """Returns the source of an image."""
        return self.sources.get(image_id) or Source(image_id)


class Collector:
    """Gathers the images of a reading, and the files that are refused.

    Attributes:
        images: the manifest so far.
        root: as given.
        rejected: (path, reason) of files left out so far.
        assumptions: what was assumed so far.

    Args:
        dataset: the dataset's folder, for messages.
        root: folder that image ids are relative to.
        layout: the layout expected, for messages.
        list_only: whether images that a list names may be absent.
    """

    def __init__(
        self,
        dataset: Path,
        root: Path,
        *,
        layout: str,
        list_only: bool = False,
    ):
        self.images = SqliteManifest()
        self.root = root
        self.rejected = []
        self.assumptions = []
        self._dataset = dataset
        self._layout = layout
        self._list_only = list_only
        self._sources = {}
        self._spellings = files_on_disk.Spellings(root)

    def refuse(self, path: str, reason: str) -> None:
        """Lists a file that is left out. A name that is no text is escaped."""
        text = path.encode("utf-8", "backslashreplace").decode()
        self.rejected.append((text, reason))

    def image_files(self, folder: Path) -> Iterator[str]:
        """Yields image ids of the image files below a folder, sorted.

        Other files are refused. A folder that does not exist has none.
        """
        if not folder.is_dir():
            return
        above = folder.relative_to(self.root).as_posix()
        for name in files_on_disk.walk(folder):
            image_id = name if above == "." else f"{above}/{name}"
            if files_on_disk.is_image(name):
                yield image_id
            else:
                self.refuse(image_id, NOT_IMAGE)

    def listed_file(self, name: str) -> str:
        """Returns the image id of a path in a list; empty if it is refused.

        Backslashes are taken for slashes, and a name is found in either
        spelling of its accents. The path must stay below the root,
        so that a list that came with a dataset can name no other file.
        """
        path = PurePosixPath(name.replace("\\", "/"))
        if not name or path.is_absolute() or PureWindowsPath(name).drive:
            reason = "not a path relative to the dataset"
        elif ".." in path.parts:
            reason = "leaves the dataset's folder by .."
        elif not files_on_disk.is_image(path):
            reason = NOT_IMAGE
        elif self._list_only or os.path.isfile(self.root / path):
            return path.as_posix()
        elif not name.isascii() and (spelled := self._spellings.find(path)):
            return spelled
        else:
            reason = f"named in the list, {ABSENT}"
        self.refuse(name, reason)
        return ""

    def add(
        self,
        image_id: str,
        *,
        split: str,
        role: str,
        degrees: tuple[float, float] | None = None,
        source: Source | None = None,
        **columns: object,
    ) -> bool:
        """Adds an image.

        Args:
            image_id: its unique id, see `Reading`.
            split: train, val or test; "" if it is chosen later.
            role: database or query; "" if it is chosen later.
            degrees: its latitude and longitude, which `set_coordinates` turns
                into UTM.
            source: its source, if that is not the whole file of its image_id.
            **columns: other columns of the manifest.

        Returns:
            False if it is refused: for its name, for its position, or because
            it is there already.
        """
        metres = [columns.get(name, 0.0) for name in _METRES]
        reason = ""
        if not _is_text(image_id):
            reason = "its name is not UTF-8; rename it"
        elif not np.isfinite(metres).all():
            reason = "east and north are no numbers"
        elif degrees is not None:
            reason = utm.problem(*degrees)
            columns |= dict(zip(_DEGREES, degrees, strict=True))
        if not reason:
            if "place_id" in columns:
                # Equal whatever the spelling of accents.
                columns["place_id"] = unicodedata.normalize(
                    "NFC", columns["place_id"]
                )
            columns |= {"image_id": image_id, "split": split, "role": role}
            if not self.images.add(columns):
                reason = "named more than once"
        if reason:
            self.refuse(image_id, reason)
            return False
        if source is not None:
            self._sources[image_id] = source
        return True

    def set_coordinates(self, *, utm_zone: str = "") -> None:
        """Gives images that were added with degrees their UTM coordinates.

        Args:
            utm_zone: zone for all; empty: see `utm_zones.project`.
        """
        rows, *degrees = self.images.degrees()
        self.images.set_positions(
            rows, *utm_zones.project(*degrees, utm_zone=utm_zone)
        )

    def unify_zones(
        self, *, utm_zone: str = "", utm_hemisphere: str = "auto"
    ) -> None:
        """Gives images of several zones coordinates that can be compared.

        Zones may be written in any way that `zone_notation` knows. Images
        without a zone keep their coordinates, which may be made up.

        Args:
            utm_zone: zone for all; empty: see `utm_zones.unify`.
            utm_hemisphere: that of zones for which northings do not decide it.

        Raises:
            ValueError: a hemisphere that is not certain, or an error of
                `utm_zones.unify`.
        """
        known = self.images.zones()
        if any(map(zone_notation.needs_northings, known)):
            self._resolve_zones(utm_hemisphere)
            known = self.images.zones()
        if not known or (len(known) == 1 and utm_zone in ("", *known)):
            return
        rows, *positions = self.images.positions(with_zone=True)
        self.images.set_positions(
            rows, *utm_zones.unify(*positions, utm_zone=utm_zone)
        )

    def _resolve_zones(self, utm_hemisphere: str) -> None:
        """Gives every zone its band, and notes what was assumed for it."""
        rows, east_m, north_m, texts = self.images.positions(with_zone=True)
        known_rows, known_latitude, _ = self.images.degrees()
        latitude = np.full(len(rows), np.nan)
        latitude[np.isin(rows, known_rows)] = known_latitude[
            np.isin(known_rows, rows)
        ]
        north_m, zones, reinterpreted = zone_notation.resolve(
            north_m, texts, hemisphere=utm_hemisphere, latitude=latitude
        )
        self.images.set_positions(rows, east_m, north_m, zones)
        for one in reinterpreted:
            images = f"{one.count:,} image{'s' * (one.count > 1)}"
            added = f", and {one.added_m:+,.0f} m north" if one.added_m else ""
            self.assumptions.append(
                Assumption(
                    name="zone_notation",
                    message=f"The UTM zone {one.text!r} of {images} is taken "
                    f"for {one.zone}{added}.",
                    action="If it is another one, write the zone with its "
                    "latitude band, or as '17 north' or '17 south'.",
                    count=one.count,
                )
            )

    def drop(self, rows: Iterable[int], reason: str) -> None:
        """Refuses images that were added before.

        Args:
            rows: their rows in `images`.
            reason: why.
        """
        for row in rows:
            self.refuse(self.images.remove(int(row)), reason)

    def finish(
        self, *, relations: Iterable[tuple[str, str, str]] | None = None
    ) -> Reading:
        """Makes the reading.

        Args:
            relations: query image_id, database image_id and relation. Those
                of images that were refused are left out.

        Raises:
            NoImages: no image was added.
            ValueError: the rows make no manifest.
        """
        if not len(self.images):
            raise NoImages(
                f"Expected images at {self._layout}. Received: "
                f"dataset={str(self._dataset)!r} with none "
                f"({self._other_files()}). Choose another --reader, or move "
                "the images."
            )
        self.images.check()
        if relations is not None:
            relations = self._make_relations(list(relations))
        return Reading(
            self.images,
            self.root,
            self.rejected,
            relations,
            self._sources,
            self.assumptions,
        )

    def _other_files(self) -> str:
        """Says which files there are instead of images of the layout."""
        if self.rejected:
            first = ": ".join(self.rejected[0])
            return f"{len(self.rejected)} other files, such as {first}"
        names = list(
            itertools.islice(files_on_disk.walk(self._dataset), _COUNTED + 1)
        )
        number = f"more than {_COUNTED}" if names[_COUNTED:] else len(names)
        first = next(filter(files_on_disk.is_image, names), "")
        return f"{number} other files{first and f', such as {first}'}"

    def _make_relations(
        self, pairs: list[tuple[str, str, str]]
    ) -> pd.DataFrame:
        """Makes the relations of images that are there."""
        named = {image_id for pair in pairs for image_id in pair[:2]}
        roles = list(self.images.roles(sorted(named)))
        there = {image_id for image_id, _ in roles}
        return positives.make_relations(
            [pair for pair in pairs if there.issuperset(pair[:2])],
            pd.DataFrame(roles, columns=["image_id", "role"]),
        )


def crop(path: str, box: Iterable[float]) -> tuple[str, Source]:
    """Returns image id and source of a part of a file.

    The id ends as a media fragment of the W3C does: `#xywh=`, then left, top,
    width and height in pixels.

    Args:
        path: of the file, relative to the root of the reading.
        box: left, top, right, bottom, in pixels; rounded.
    """
    left, top, right, bottom = (round(float(edge)) for edge in box)
    image_id = f"{path}#xywh={left},{top},{right - left},{bottom - top}"
    return image_id, Source(path, (left, top, right, bottom))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
