"""Photographs with their position in the EXIF header, as telephones write it.

    <dataset>/**/*.jpg
    <dataset>/{database,queries}/**/*.jpg
    <dataset>/{train,val,test}/{database,queries}/**/*.jpg

`images/` may stand between. Without split folders, areas are split at random:
images of different splits are at least 50 m apart. Without database/ and
queries/, each area's queries are chosen at random. Photographs without a
position are refused. Positions that the camera itself doubts are kept with a
warning, or left out.
"""

import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import ExifTags, Image

from sare_tf.dataset import heif
from sare_tf.dataset.readers import files_on_disk, gps_position, splitting
from sare_tf.dataset.readers.collector import Assumption, Collector, Reading

_LAYOUT = "**/*.jpg with a position in the EXIF header"


def read(
    dataset: Path,
    *,
    split_fractions: Sequence[float],
    query_fraction: float,
    utm_zone: str,
    doubtful_positions: str,
    positive_radius_m: float,
    seed: int,
) -> Reading:
    """Reads the layout, and the headers of its photographs.

    Args:
        dataset: the folder.
        split_fractions: shares of areas for train, val and test.
        query_fraction: share of each area's images that become queries.
        utm_zone: zone for all; empty: see `utm_zones.project`.
        doubtful_positions: "keep" or "leave_out" those that
            `gps_position.doubts`.
        positive_radius_m: largest error of a position that serves.
        seed: of splits and queries.

    Raises:
        ValueError: no photograph with a position, or split folders beside
            unsplit ones.
    """
    root = files_on_disk.image_root(dataset)
    splits = files_on_disk.split_folders(root)
    collector = Collector(dataset, root, layout=_LAYOUT)
    doubtful = []
    has_roles = bool(splits) or any(
        (root / folder).is_dir() for folder in files_on_disk.ROLE_FOLDERS
    )
    roles = files_on_disk.ROLE_FOLDERS if has_roles else {"": ""}
    for split in splits or [""]:
        for folder, role in roles.items():
            for image_id in collector.image_files(root / split / folder):
                try:
                    columns, doubt = parse(
                        root / image_id, radius_m=positive_radius_m
                    )
                except ValueError as error:
                    collector.refuse(image_id, str(error))
                    continue
                if doubt and doubtful_positions == "leave_out":
                    collector.refuse(image_id, doubt)
                elif (
                    collector.add(image_id, split=split, role=role, **columns)
                    and doubt
                ):
                    doubtful.append((image_id, doubt))
    if doubtful:
        collector.assumptions.append(_assumption(doubtful))
    collector.set_coordinates(utm_zone=utm_zone)
    splitting.complete(
        collector,
        split_fractions=None if splits else split_fractions,
        query_fraction=None if has_roles else query_fraction,
        seed=seed,
    )
    return collector.finish()


def _assumption(doubtful: Sequence[tuple[str, str]]) -> Assumption:
    image_id, doubt = doubtful[0]
    return Assumption(
        name="doubtful_position",
        message=f"{len(doubtful):,} photographs doubt their position, such as "
        f"{image_id}: {doubt}. All are kept.",
        action="--doubtful_positions=leave_out leaves them out.",
        images=doubtful,
        count=len(doubtful),
    )


def parse(path: Path, *, radius_m: float) -> tuple[dict[str, object], str]:
    """Reads position, direction and time in the header of a photograph.

    Args:
        path: the photograph.
        radius_m: largest error of a position that serves, in metres.

    Returns:
        Columns of the manifest, and why the camera doubts the position; empty
        if it does not.

    Raises:
        ValueError: no header that can be read, or no position in it, or a
            HEIC file without the extra heif.
    """
    with contextlib.suppress(OSError), path.open("rb") as file:
        if heif.is_heif(file.read(heif.FIRST_BYTES)):
            heif.register()
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
    columns = {"degrees": gps_position.degrees(gps)}
    direction = gps_position.number(gps.get(ExifTags.GPS.GPSImgDirection))
    # Directions from magnetic north (M) are not headings.
    reference = gps_position.text(gps.get(ExifTags.GPS.GPSImgDirectionRef))
    if 0 <= direction <= 360 and reference == "T":
        columns["heading_deg"] = direction % 360
    columns["timestamp"] = gps_position.text(
        details.get(ExifTags.Base.DateTimeOriginal)
    )
    return columns, gps_position.doubts(gps, radius_m=radius_m)
