"""NetVLAD's `dbStruct` files: Pittsburgh 30k and 250k, Tokyo.

    <dataset>/*.mat       one per split; its field whichSet is the split
    <dataset>/images/     database images, by the names in the .mat files
    <dataset>/queries/    query images

The names come from the .mat files; a folder that they name is listed once. An
image that is there with another extension is found: Tokyo 24/7 is listed as
.jpg and distributed as .png. Fields are read by name, since their order
differs; the distances in them (25 m, 10 m) are flags here.

From an image's name come, where it has them, its panorama, place, heading and
condition; see `data/pittsburgh.md` and `data/tokyo.md`.
"""

import os
import re
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
from scipy import io

from sare_tf.dataset import manifest
from sare_tf.dataset.readers import reading
from sare_tf.dataset.sqlite_manifest import Listing

_LAYOUT = "images/ and queries/, by the names in *.mat"
# Folder, role, then the fields of names, coordinates, time stamps and count.
_LISTS = (
    ("images", "database", "dbImageFns", "utmDb", "dbTimeStamp", "numImages"),
    ("queries", "query", "qImageFns", "utmQ", "qTimeStamp", "numQueries"),
)
# Pittsburgh. The yaw counts 30 degree steps from a direction that is not told.
_PITTSBURGH = re.compile(r"(?P<panorama>\d+)_pitch\d+_yaw\d+\.\w+")
# Tokyo 24/7 database: panorama, pitch, heading.
_TOKYO = re.compile(r"(?P<panorama>.{22})_\d{3}_(?P<heading>\d{3})\.\w+")
# Tokyo Time Machine: spot, year and month, latitude, longitude, heading, pitch.
_TIME_MACHINE = re.compile(
    r"(?P<place>.{22})__(?P<month>\d{6})_[-.\d]+_[-.\d]+_"
    r"(?P<heading>\d{3})_\d{3}\.\w+"
)
# Tokyo 24/7 queries come in threes: by day, at sunset, at night.
_TOKYO_QUERY = re.compile(r"(?P<number>\d{5})\.\w+")
_CONDITIONS = ("night", "day", "sunset")


def read(dataset: Path, *, list_only: bool) -> reading.Reading:
    """Reads the layout; with `list_only`, images may be absent.

    Raises:
        FileNotFoundError: no folder images/ or queries/.
        ValueError: no image, two .mat files of one split, or a file that is no
            dbStruct.
    """
    paths = sorted(dataset.glob("*.mat"))
    _check_folder(dataset, paths, list_only=list_only)
    listing, rejected, splits = Listing(), [], {}
    names = _Names(dataset)
    for path in paths:
        listed = parse(path)
        split = listed[0]["split"]
        if split in splits:
            raise ValueError(
                "Expected one .mat file per split. Received: "
                f"dataset={str(dataset)!r} with {splits[split]} and "
                f"{path.name}, both of the split {split!r}. Give each dataset "
                "a folder of its own; its images/ and queries/ may be links."
            )
        splits[split] = path.name
        found = []
        for row in listed:
            image_id = row["image_id"]
            there = image_id if list_only else names.find(image_id)
            if there:
                found.append(row | {"image_id": there})
            else:
                reason = f"named in {path.name}, {reading.ABSENT}"
                rejected.append((image_id, reason))
        listing.add_all(found)
    if not len(listing):
        raise reading.NoImages(
            f"Expected images at {_LAYOUT}. Received: dataset="
            f"{str(dataset)!r} with none of {len(rejected)} listed, such as "
            f"{rejected[0][0]}. Move or link the images there."
        )
    listing.check()
    return reading.Reading(listing, dataset, rejected)


def parse(path: str | Path) -> list[dict[str, object]]:
    """Reads one .mat file alone; whether its images exist is not looked at.

    Args:
        path: of a file with the variable `dbStruct`.

    Returns:
        Columns of the manifest of every image, database before queries, in the
        order of the file. Coordinates are float64.

    Raises:
        ValueError: it is no such file, or contradicts itself.
    """
    path = Path(path)
    try:
        structure = io.loadmat(path, variable_names="dbStruct")["dbStruct"]
        return _rows(structure.reshape(-1)[0])
    except NotImplementedError as error:
        raise _refusal(path, "MATLAB v7.3; save it again as -v7") from error
    except KeyError as error:
        raise _refusal(path, "no variable dbStruct") from error
    except (
        io.matlab.MatReadError,
        AttributeError,
        IndexError,
        OSError,
        TypeError,
        ValueError,
        zlib.error,
    ) as error:
        raise _refusal(path, str(error)) from error


class _Names:
    """The names in a folder and below; every folder is listed once."""

    def __init__(self, root: Path):
        self._root = root
        self._listed = {}

    def find(self, image_id: str) -> str | None:
        """The image's path with the extension that it has on disk."""
        parent, _, name = image_id.rpartition("/")
        if parent not in self._listed:
            try:
                self._listed[parent] = frozenset(
                    os.listdir(self._root / parent)
                )
            except OSError:
                self._listed[parent] = frozenset()
        stem = name.rpartition(".")[0]
        candidates = [name, *(stem + end for end in reading.EXTENSIONS)]
        for candidate in candidates:
            if candidate in self._listed[parent]:
                return f"{parent}/{candidate}"
        return None


def _check_folder(dataset: Path, paths: list[Path], *, list_only: bool) -> None:
    if not paths:
        raise ValueError(
            f"Expected images at {_LAYOUT}. Received: dataset="
            f"{str(dataset)!r} with none, for want of a .mat file. Put the "
            "dbStruct files there, or choose another --reader."
        )
    for folder, *_ in _LISTS:
        if not (list_only or (dataset / folder).is_dir()):
            raise FileNotFoundError(
                f"Expected images at {_LAYOUT}. Received: dataset="
                f"{str(dataset)!r} without {folder}/. Link it; where the "
                "queries are among the database images, as in Tokyo Time "
                "Machine, link queries to images."
            )


def _rows(structure: np.void) -> list[dict[str, object]]:
    """Rows of a dbStruct.

    Raises:
        ValueError: says what is wrong with it.
    """
    fields = structure.dtype.names or ()
    missing = [
        name
        for name in ("whichSet", *(n for item in _LISTS for n in item[2:4]))
        if name not in fields
    ]
    if missing:
        raise ValueError(f"no field {', '.join(missing)}")
    split = str(structure["whichSet"].reshape(-1)[0])
    if split not in manifest.SPLITS:
        raise ValueError(
            f"whichSet is {split!r}, not one of {', '.join(manifest.SPLITS)}"
        )
    rows = []
    for folder, role, names, places, times, count in _LISTS:
        names = [str(cell[0]) for cell in structure[names].reshape(-1)]
        places = np.asarray(structure[places], np.float64)
        if places.shape != (2, len(names)) or not np.isfinite(places).all():
            raise ValueError(
                f"{len(names)} {role} images, but coordinates of shape "
                f"{places.shape}, or some not finite"
            )
        # Counts are uint16 or int32 and time stamps int32: int before use.
        if count in fields and int(structure[count].item()) != len(names):
            raise ValueError(
                f"{count} is {int(structure[count].item())}, but there are "
                f"{len(names)} names"
            )
        stamps = [""] * len(names)
        if times in fields:
            stamps = [str(int(stamp)) for stamp in structure[times].reshape(-1)]
        for name, east, north, stamp in zip(
            names, *places.tolist(), stamps, strict=True
        ):
            pure = PurePosixPath(name)
            if pure.is_absolute() or ".." in pure.parts or "\\" in name:
                raise ValueError(f"the name {name!r} leads out of the folder")
            rows.append(
                {
                    "image_id": f"{folder}/{name}",
                    "split": split,
                    "role": role,
                    "utm_east_m": east,
                    "utm_north_m": north,
                    "timestamp": stamp,
                    **_named(pure.name, role),
                }
            )
    if not rows:
        raise ValueError("no image")
    return rows


def _named(name: str, role: str) -> dict[str, object]:
    """What the base name of an image tells."""
    if found := _PITTSBURGH.fullmatch(name):
        return {"panorama_id": found["panorama"]}
    if found := _TIME_MACHINE.fullmatch(name):
        return {
            "panorama_id": f"{found['place']}_{found['month']}",
            "place_id": found["place"],
            "heading_deg": float(found["heading"]),
        }
    if found := _TOKYO.fullmatch(name):
        return {
            "panorama_id": found["panorama"],
            "heading_deg": float(found["heading"]),
        }
    if role == "query" and (found := _TOKYO_QUERY.fullmatch(name)):
        return {"condition": _CONDITIONS[int(found["number"]) % 3]}
    return {}


def _refusal(path: Path, reason: str) -> ValueError:
    return ValueError(
        "Expected a .mat file with NetVLAD's dbStruct. Received: path="
        f"{str(path)!r} ({reason}). Take the file from NetVLAD's dataset "
        "specifications, or move it elsewhere."
    )
