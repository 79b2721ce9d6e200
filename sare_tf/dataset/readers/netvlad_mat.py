"""NetVLAD's `dbStruct` files: Pittsburgh 30k and 250k, Tokyo.

    <dataset>/*.mat       one per split; its field whichSet is the split
    <dataset>/images/     database images, by the names in the .mat files
    <dataset>/queries/    query images

The names come from the .mat files. An image with another extension on disk is
found: Tokyo 24/7 is listed as .jpg and distributed as .png. Fields are read by
name, since their order differs. The distances in them (25 m, 10 m) are flags
here.

Panorama, place, heading and condition come from an image's name, where it has
them; see `data/pittsburgh.md` and `data/tokyo.md`.
"""

import os
import re
from pathlib import Path, PurePosixPath

import numpy as np

from sare_tf.dataset.names import SPLITS
from sare_tf.dataset.readers import files_on_disk
from sare_tf.dataset.readers.collector import ABSENT, NoImages, Reading
from sare_tf.dataset.sqlite_manifest import SqliteManifest
from sare_tf.runtime import matlab_files

_LAYOUT = "images/ and queries/, by the names in *.mat"
# Folder, role, then the fields of names, coordinates, time stamps and count.
_LISTS = (
    ("images", "database", "dbImageFns", "utmDb", "dbTimeStamp", "numImages"),
    ("queries", "query", "qImageFns", "utmQ", "qTimeStamp", "numQueries"),
)
# Pittsburgh. The yaw counts steps of 30 degrees from an unknown direction.
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


def read(dataset: Path, *, list_only: bool) -> Reading:
    """Reads the layout; with `list_only`, images may be absent.

    Raises:
        FileNotFoundError: no folder images/ or queries/.
        ValueError: no image, two .mat files of one split, or a file that is no
            dbStruct.
    """
    paths = sorted(dataset.glob("*.mat"))
    _check_folder(dataset, paths, list_only=list_only)
    images, rejected, splits = SqliteManifest(), [], {}
    names = _Names(dataset)
    for path in paths:
        rows = parse(path)
        split = rows[0]["split"]
        if split in splits:
            raise ValueError(
                "Expected one .mat file per split. Received: "
                f"dataset={str(dataset)!r} with {splits[split]} and "
                f"{path.name}, both of the split {split!r}. Give each dataset "
                "a folder of its own; its images/ and queries/ may be links."
            )
        splits[split] = path.name
        present = []
        for row in rows:
            image_id = row["image_id"]
            on_disk = image_id if list_only else names.find(image_id)
            if on_disk:
                present.append(row | {"image_id": on_disk})
            else:
                reason = f"named in {path.name}, {ABSENT}"
                rejected.append((image_id, reason))
        images.add_all(present)
    if not len(images):
        raise NoImages(
            f"Expected images at {_LAYOUT}. Received: dataset="
            f"{str(dataset)!r} with none of {len(rejected)} listed, such as "
            f"{rejected[0][0]}. Move or link the images there."
        )
    images.check()
    return Reading(images, dataset, rejected)


def parse(path: str | Path) -> list[dict[str, object]]:
    """Reads one .mat file, and does not check whether its images exist.

    Args:
        path: of a file with the variable `dbStruct`.

    Returns:
        Columns of the manifest for every image, database before queries, in
        the order of the file.

    Raises:
        ValueError: no dbStruct, or one that contradicts itself.
    """
    path = Path(path)
    try:
        structure = matlab_files.load(path, names=["dbStruct"])["dbStruct"]
        return _rows(structure.reshape(-1)[0])
    except NotImplementedError as error:
        raise _refusal(path, "MATLAB v7.3; save it again as -v7") from error
    except KeyError as error:
        raise _refusal(path, "no variable dbStruct") from error
    except (
        AttributeError,
        IndexError,
        OSError,
        TypeError,
        ValueError,
    ) as error:
        raise _refusal(path, str(error)) from error


class _Names:
    """The names below a folder; each folder in it is listed once."""

    def __init__(self, root: Path):
        self._root = root
        self._listed = {}

    def find(self, image_id: str) -> str | None:
        """Returns the image's path with its extension on disk, or None."""
        parent, _, name = image_id.rpartition("/")
        if parent not in self._listed:
            try:
                self._listed[parent] = frozenset(
                    os.listdir(self._root / parent)
                )
            except OSError:
                self._listed[parent] = frozenset()
        stem = name.rpartition(".")[0]
        candidates = [name, *(stem + end for end in files_on_disk.EXTENSIONS)]
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
    """Returns the rows of a dbStruct.

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
    if split not in SPLITS:
        raise ValueError(
            f"whichSet is {split!r}, not one of {', '.join(SPLITS)}"
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
    """Returns columns of the manifest that the name of an image holds."""
    if match := _PITTSBURGH.fullmatch(name):
        return {"panorama_id": match["panorama"]}
    if match := _TIME_MACHINE.fullmatch(name):
        return {
            "panorama_id": f"{match['place']}_{match['month']}",
            "place_id": match["place"],
            "heading_deg": float(match["heading"]),
        }
    if match := _TOKYO.fullmatch(name):
        return {
            "panorama_id": match["panorama"],
            "heading_deg": float(match["heading"]),
        }
    if role == "query" and (match := _TOKYO_QUERY.fullmatch(name)):
        return {"condition": _CONDITIONS[int(match["number"]) % 3]}
    return {}


def _refusal(path: Path, reason: str) -> ValueError:
    return ValueError(
        "Expected a .mat file with NetVLAD's dbStruct. Received: path="
        f"{str(path)!r} ({reason}). Take the file from NetVLAD's dataset "
        "specifications, or move it elsewhere."
    )
