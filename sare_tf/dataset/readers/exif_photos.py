"""Photographs with their position in the EXIF header, as telephones write it.

    <dataset>/**/*.jpg
    <dataset>/{database,queries}/**/*.jpg
    <dataset>/{train,val,test}/{database,queries}/**/*.jpg

`images/` may stand between. Without split folders, areas are split at random:
images of different splits are at least 50 m apart. Without database/ and
queries/, each area's queries are chosen at random. Photographs without a
position are refused.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import ExifTags, Image

from sare_tf.dataset.readers import files_on_disk, splitting
from sare_tf.dataset.readers.collector import Collector, Reading

_LAYOUT = "**/*.jpg with a position in the EXIF header"


def read(
    dataset: Path,
    *,
    split_fractions: Sequence[float],
    query_fraction: float,
    utm_zone: str,
    seed: int,
) -> Reading:
    """Reads the layout, and the headers of its photographs.

    Args:
        dataset: the folder.
        split_fractions: shares of areas for train, val and test.
        query_fraction: share of each area's images that become queries.
        utm_zone: zone for all; empty: see `utm_zones.project`.
        seed: of splits and queries.

    Raises:
        ValueError: no photograph with a position, or split folders beside
            unsplit ones.
    """
    root = files_on_disk.image_root(dataset)
    splits = files_on_disk.split_folders(root)
    collector = Collector(dataset, root, layout=_LAYOUT)
    has_roles = bool(splits) or any(
        (root / folder).is_dir() for folder in files_on_disk.ROLE_FOLDERS
    )
    roles = files_on_disk.ROLE_FOLDERS if has_roles else {"": ""}
    for split in splits or [""]:
        for folder, role in roles.items():
            for image_id in collector.image_files(root / split / folder):
                try:
                    columns = parse(root / image_id)
                except ValueError as error:
                    collector.refuse(image_id, str(error))
                    continue
                collector.add(image_id, split=split, role=role, **columns)
    collector.set_coordinates(utm_zone=utm_zone)
    splitting.complete(
        collector,
        split_fractions=None if splits else split_fractions,
        query_fraction=None if has_roles else query_fraction,
        seed=seed,
    )
    return collector.finish()


def parse(path: Path) -> dict[str, object]:
    """Reads position, direction and time in the header of a photograph.

    Raises:
        ValueError: no header that can be read, or no position in it.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd headers and of large panoramas.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                exif = image.getexif()
                gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
                details = exif.get_ifd(ExifTags.IFD.Exif)
    except Exception as error:  # Pillow raises whatever its parsers raise.
        raise ValueError(f"its header cannot be read: {error}") from error
    if ExifTags.GPS.GPSLatitude not in gps:
        raise ValueError("no position in its EXIF header")
    columns = {
        "degrees": (
            _degrees(gps, ExifTags.GPS.GPSLatitude, "NS"),
            _degrees(gps, ExifTags.GPS.GPSLongitude, "EW"),
        )
    }
    direction = _float(gps.get(ExifTags.GPS.GPSImgDirection))
    # Directions from magnetic north (M) are not headings.
    reference = _text(gps.get(ExifTags.GPS.GPSImgDirectionRef))
    if 0 <= direction <= 360 and reference == "T":
        columns["heading_deg"] = direction % 360
    columns["timestamp"] = _text(details.get(ExifTags.Base.DateTimeOriginal))
    return columns


def _degrees(gps: Mapping[int, object], tag: int, signs: str) -> float:
    """Makes degrees of degrees, minutes, seconds and hemisphere."""
    letter = _text(gps.get(tag - 1)).upper()[:1]  # Its tag is the one before.
    if not letter or letter not in signs:
        raise ValueError(f"its position does not say {' or '.join(signs)}")
    try:
        numbers = [_float(number) for number in gps[tag]]
    except (KeyError, TypeError):
        raise ValueError("its position is incomplete") from None
    degrees = sum(value / 60**power for power, value in enumerate(numbers))
    return degrees if letter == signs[0] else -degrees


def _float(value: object) -> float:
    """Returns a number; NaN for one that is absent or divided by 0."""
    try:
        return float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return float("nan")


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return value.strip(" \0") if isinstance(value, str) else ""
