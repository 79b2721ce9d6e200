"""What all readers share: finding files, refusing them, and a reading."""

import dataclasses
import functools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pandas as pd

from sare_tf.dataset import manifest, positives
from sare_tf.dataset.readers import utm
from sare_tf.dataset.sqlite_manifest import Listing, sorted_names

EXTENSIONS = (".jpg", ".jpeg", ".png")
ROLES = {"database": "database", "queries": "query"}
_METRES = ("utm_east_m", "utm_north_m")
_DEGREES = ("latitude", "longitude")
# Reasons of refusal that a check of the dataset tells apart; ABSENT is an end.
NOT_IMAGE = f"not one of {', '.join(EXTENSIONS)}"
ABSENT = "but no such file"


class NoImages(ValueError):
    """A dataset of which no image is there."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where an image comes from, if not whole from the file of its image_id.

    Attributes:
        path: the file, relative to the root of the reading.
        box: left, top, right and bottom of the part that is the image, in
            pixels from the top left corner; None: all of it.
    """

    path: str
    box: tuple[float, float, float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a reader found.

    Attributes:
        listing: one row per image; `image_id` is the path relative to `root`,
            with `#` and what part or use of the file it is where `sources`
            has an entry for it.
        root: folder that the image ids are relative to.
        rejected: (path relative to `root`, reason) of files left out.
        relations: what `positives.make_relations` made, where the layout says
            which database images answer a query; else None.
        sources: image_id -> source, for images that are no whole file of
            their own.
    """

    listing: Listing
    root: Path
    rejected: list[tuple[str, str]]
    relations: pd.DataFrame | None = None
    sources: Mapping[str, Source] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def manifest(self) -> pd.DataFrame:
        """The images in memory, in the order in which they were found."""
        return self.listing.table()

    def source(self, image_id: str) -> Source:
        """Where an image comes from."""
        return self.sources.get(image_id) or Source(image_id)


class Collector:
    """Gathers the rows of a reading, and what is refused.

    Args:
        dataset: the dataset's folder, for messages.
        root: folder that image ids are relative to.
        layout: the layout expected, for messages.
        list_only: what a list names need not be there.
    """

    def __init__(
        self,
        dataset: Path,
        root: Path,
        *,
        layout: str,
        list_only: bool = False,
    ):
        self.root = root
        self.rejected = []
        self._dataset = dataset
        self._layout = layout
        self._list_only = list_only
        self.listing = Listing()
        self._sources = {}

    def refuse(self, path: str, reason: str) -> None:
        """Lists a file that is left out. A name that is no text is escaped."""
        text = path.encode("utf-8", "backslashreplace").decode()
        self.rejected.append((text, reason))

    def images(self, folder: Path) -> Iterator[str]:
        """Image ids of the image files below a folder; refuses other files.

        A folder that does not exist has none.
        """
        if not folder.is_dir():
            return
        above = folder.relative_to(self.root).as_posix()
        for name in walk(folder):
            image_id = name if above == "." else f"{above}/{name}"
            if is_image(name):
                yield image_id
            else:
                self.refuse(image_id, NOT_IMAGE)

    def listed(self, name: str) -> str:
        """The image id of a path in a list; empty if it is refused.

        Backslashes are taken for slashes. The path must stay below the root,
        so that a list that came with a dataset can name no other file.
        """
        path = PurePosixPath(name.replace("\\", "/"))
        if not name or path.is_absolute() or PureWindowsPath(name).drive:
            reason = "not a path relative to the dataset"
        elif ".." in path.parts:
            reason = "leaves the dataset's folder by .."
        elif not is_image(path):
            reason = NOT_IMAGE
        elif not (self._list_only or os.path.isfile(self.root / path)):
            reason = f"named in the list, {ABSENT}"
        else:
            return path.as_posix()
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
            image_id: what is unique about it, see `Reading`.
            split: train, val or test.
            role: database or query.
            degrees: its latitude and longitude; `set_coordinates` makes UTM
                of them.
            source: where it comes from, if not the file of its image_id.
            **columns: others of the manifest.

        Returns:
            False if it is refused: for its name, for its position, or because
            it is there already.
        """
        metres = [columns.get(name, 0.0) for name in _METRES]
        reason = ""
        if _is_no_text(image_id):
            reason = "its name is not UTF-8; rename it"
        elif not np.isfinite(metres).all():
            reason = "east and north are no numbers"
        elif degrees is not None:
            reason = utm.problem(*degrees)
            columns |= dict(zip(_DEGREES, degrees, strict=True))
        if not reason:
            columns |= {"image_id": image_id, "split": split, "role": role}
            if not self.listing.add(columns):
                reason = "named more than once"
        if reason:
            self.refuse(image_id, reason)
            return False
        if source is not None:
            self._sources[image_id] = source
        return True

    def set_coordinates(self, *, utm_zone: str = "") -> None:
        """Gives images added with degrees their UTM coordinates.

        Args:
            utm_zone: zone for all; empty: see `coordinates.project`.
        """
        rows, *degrees = self._located(_DEGREES, "latitude IS NOT NULL")
        self._locate(rows, *utm.project(*degrees, utm_zone=utm_zone))

    def unify_zones(self, *, utm_zone: str = "") -> None:
        """Gives images of several zones coordinates that can be compared.

        Those without zone, whose coordinates may be made up, stay as they are.

        Args:
            utm_zone: zone for all; empty: see `coordinates.unify`.
        """
        wanted = "utm_zone != '' AND utm_east_m + utm_north_m IS NOT NULL"
        known = self.listing.column(
            f"SELECT DISTINCT utm_zone FROM images WHERE {wanted}"
        )
        if not known or (len(known) == 1 and utm_zone in ("", *known)):
            return
        rows, *metres = self._located(_METRES, wanted)
        # Each zone is one text in memory.
        zones = [
            sys.intern(zone)
            for (zone,) in self.listing.run(
                f"SELECT utm_zone FROM images WHERE {wanted} ORDER BY rowid"
            )
        ]
        self._locate(rows, *utm.unify(*metres, zones, utm_zone=utm_zone))

    def _located(self, columns: tuple[str, str], wanted: str) -> np.ndarray:
        """Row and two numbers of the images wanted, float64 [3, B]."""
        found = self.listing.run(
            f"SELECT rowid, {', '.join(columns)} FROM images WHERE {wanted} "
            "ORDER BY rowid"
        )
        return np.fromiter(found, np.dtype((np.float64, 3))).T

    def _locate(
        self,
        rows: np.ndarray,
        east_m: np.ndarray,
        north_m: np.ndarray,
        zones: list[str],
    ) -> None:
        self.listing.run_many(
            "UPDATE images SET utm_east_m = ?, utm_north_m = ?, utm_zone = ? "
            "WHERE rowid = ?",
            (
                (float(east), float(north), zone, int(row))
                for row, east, north, zone in zip(
                    rows, east_m, north_m, zones, strict=True
                )
            ),
        )

    def drop(self, rows: Iterable[int], reason: str) -> None:
        """Refuses images that were added.

        Args:
            rows: their `rowid`.
            reason: why.
        """
        for row in rows:
            image_id = self.listing.value(
                "SELECT image_id FROM images WHERE rowid = ?", int(row)
            )
            self.refuse(image_id, reason)
            self.listing.run("DELETE FROM images WHERE rowid = ?", int(row))

    def finish(
        self, *, relations: Iterable[tuple[str, str, str]] | None = None
    ) -> Reading:
        """Makes the reading.

        Args:
            relations: query image_id, database image_id and relation. Those
                of images that were refused are left out.

        Raises:
            NoImages: no image was added.
            ValueError: the manifest refuses the rows.
        """
        if not len(self.listing):
            first = ""
            if self.rejected:
                first = ", such as {}: {}".format(*self.rejected[0])
            raise NoImages(
                f"Expected images at {self._layout}. Received: "
                f"dataset={str(self._dataset)!r} with none "
                f"({len(self.rejected)} other files{first}). Choose another "
                "--reader, or move the images."
            )
        self.listing.check()
        if relations is not None:
            relations = self._known(list(relations))
        return Reading(
            self.listing, self.root, self.rejected, relations, self._sources
        )

    def _known(self, pairs: list[tuple[str, str, str]]) -> pd.DataFrame:
        """Relations of images that are there."""
        named = {image_id for pair in pairs for image_id in pair[:2]}
        rows = []
        for image_id in sorted(named):
            rows += self.listing.run(
                "SELECT image_id, role FROM images WHERE image_id = ?", image_id
            )
        there = {image_id for image_id, _ in rows}
        return positives.make_relations(
            [pair for pair in pairs if there.issuperset(pair[:2])],
            pd.DataFrame(rows, columns=["image_id", "role"]),
        )


def crop(path: str, box: Iterable[float]) -> tuple[str, Source]:
    """Image id and source of a part of a file.

    The id ends as a media fragment of the W3C does: `#xywh=`, then left, top,
    width and height in pixels.

    Args:
        path: of the file, relative to the root of the reading.
        box: left, top, right, bottom, in pixels; rounded.
    """
    left, top, right, bottom = (round(float(edge)) for edge in box)
    image_id = f"{path}#xywh={left},{top},{right - left},{bottom - top}"
    return image_id, Source(path, (left, top, right, bottom))


def image_root(dataset: Path) -> Path:
    """The folder `images` of a dataset where it has one, else itself."""
    images = dataset / "images"
    return images if images.is_dir() else dataset


def split_folders(root: Path) -> list[str]:
    """The folders train, val and test at the top, where there are any.

    Raises:
        ValueError: there are, beside database/ or queries/.
    """
    splits = [name for name in manifest.SPLITS if (root / name).is_dir()]
    roles = [name for name in ROLES if (root / name).is_dir()]
    if splits and roles:
        raise ValueError(
            "Expected either split folders or database/ and queries/ at the "
            f"top. Received: dataset={str(root)!r} with {splits + roles}."
        )
    return splits


def only_file(dataset: Path, *patterns: str) -> Path:
    """The one file at the top of a dataset that matches.

    Args:
        dataset: the folder.
        *patterns: glob patterns; the first that any file matches counts.

    Raises:
        ValueError: none matches, or several do.
    """
    found = []
    for pattern in patterns:
        found = sorted(
            path for path in dataset.glob(pattern) if path.name[0] != "."
        )
        if found:
            break
    if len(found) != 1:
        raise ValueError(
            f"Expected one file {' or '.join(patterns)} in the dataset. "
            f"Received: dataset={str(dataset)!r} with "
            + (", ".join(path.name for path in found) or "none")
            + ". Choose another --reader, or move the others away."
        )
    return found[0]


def read_table(path: Path, *columns: str) -> pd.DataFrame:
    """Reads a CSV file of a known dataset; every value as text.

    Args:
        path: the file.
        *columns: those that it must have.

    Raises:
        ValueError: it is absent or unreadable, or lacks a column.
    """
    return pd.concat(read_blocks(path, *columns), ignore_index=True)


def read_blocks(path: Path, *columns: str) -> Iterator[pd.DataFrame]:
    """As `read_table`, some rows at a time; one block at least."""
    try:
        with pd.read_csv(
            path,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            chunksize=manifest.BLOCK_ROWS,
        ) as blocks:
            for block in blocks:
                _check_columns(path, block, columns)
                yield block
    except (
        OSError,
        UnicodeError,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
    ) as error:
        raise ValueError(
            f"Expected a CSV file. Received: path={str(path)!r} ({error}). "
            "Check --dataset, or get the file again."
        ) from error


def _check_columns(
    path: Path, table: pd.DataFrame, columns: Sequence[str]
) -> None:
    missing = [name for name in columns if name not in table]
    if missing:
        raise ValueError(
            f"Expected the columns {', '.join(columns)}. Received: "
            f"path={str(path)!r} without {missing}. Choose another --reader, "
            "or get the file again."
        )


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a text file, without the empty ones, as they are asked for.

    Raises:
        ValueError: it is absent or not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from filter(None, map(str.strip, file))
    except (OSError, UnicodeError) as error:
        raise ValueError(
            f"Expected a text file in UTF-8. Received: path={str(path)!r} "
            f"({error}). Check --dataset, or get the file again."
        ) from error


def number(text: str) -> float:
    """A number of a table; NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def walk(folder: Path) -> Iterator[str]:
    """All files below a folder, sorted; follows links, but no circle twice.

    Hidden files and folders are passed over, as operating systems leave them.

    Yields:
        Paths relative to the folder, with slashes.
    """
    yield from _walk(os.fspath(folder), "", frozenset())


def is_image(path: str | os.PathLike[str]) -> bool:
    """True for the extensions that are read, in any case."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS


def _is_no_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def _is_folder(entry: os.DirEntry) -> bool:
    """False for a link that leads to itself: reading it will say why."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _walk(
    folder: str, below: str, above: frozenset[tuple[int, int]]
) -> Iterator[str]:
    """Files of a folder, whose own path ends in `below`."""
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    above = above | {identity}
    with os.scandir(folder) as entries:
        # A folder is marked by what no name holds, and sorts before all.
        names = sorted_names(
            entry.name + "\0" * _is_folder(entry)
            for entry in entries
            if not entry.name.startswith(".")
        )
        for name in names:
            if name.endswith("\0"):
                name = name[:-1]
                inside = os.path.join(folder, name)
                yield from _walk(inside, f"{below}{name}/", above)
            else:
                yield below + name
