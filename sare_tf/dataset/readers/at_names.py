"""Folders whose file names hold the coordinates, between `@`.

    <dataset>/images/{train,val,test}/{database,queries}/**/@<east>@<north>@
    <zone number>@<zone letter>@<latitude>@<longitude>@<panorama>@<tile>@
    <heading>@<pitch>@<roll>@<height>@<timestamp>@<note>@.jpg

in one name. East and north, in metres, are required; the rest may be empty or
absent. The letter is the latitude band of the zone. If it is the hemisphere,
latitude or north tell, see `zone_notation`. Written by the
VPR-datasets-downloader for Pittsburgh, Tokyo 24/7, MSLS, St Lucia, Nordland and
others, and used by SF-XL. Only the base name is parsed: a folder above may hold
an `@`.

A file `<folder>_images_paths.txt` beside a folder lists its images, one path
relative to the folder a line, and is read instead of the folder. A split
without database/ and queries/ (the training images of SF-XL) gets its queries
from each square of 10 m. Where neighbouring images have different zones, they
get the same one, see `utm_zones.unify`.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sare_tf.dataset.names import SPLITS
from sare_tf.dataset.readers import files_on_disk, splitting
from sare_tf.dataset.readers.collector import NOT_IMAGE, Collector, Reading
from sare_tf.dataset.sqlite_manifest import Group

_LAYOUT = "images/{train,val,test}/{database,queries}/@<east>@<north>@...@.jpg"


def read(
    dataset: Path,
    *,
    query_fraction: float,
    utm_zone: str,
    utm_hemisphere: str,
    seed: int,
) -> Reading:
    """Reads the layout; its split folders are the split.

    Args:
        dataset: the folder.
        query_fraction: share of queries in a split without roles.
        utm_zone: zone for all images; empty: the zones in their names, unless
            neighbours have different ones.
        utm_hemisphere: that of zones which do not say it.
        seed: of the choice of queries.

    Raises:
        ValueError: no image, or several zones that cannot be made one.
    """
    collector = Collector(
        dataset, files_on_disk.image_root(dataset), layout=_LAYOUT
    )
    without_roles = []
    for split in SPLITS:
        top = collector.root / split
        for folder, role in files_on_disk.ROLE_FOLDERS.items():
            for image_id in _images(collector, top / folder):
                _add(collector, image_id, split=split, role=role)
        if not any(
            (top / folder).exists() for folder in files_on_disk.ROLE_FOLDERS
        ):
            without_roles.append(split)
            for image_id in _images(collector, top):
                _add(collector, image_id, split=split, role="")
    for split in without_roles:
        splitting.choose_roles(
            collector.images,
            Group.CELL,
            fraction=query_fraction,
            seed=seed,
            splits=[split],
        )
    collector.unify_zones(utm_zone=utm_zone, utm_hemisphere=utm_hemisphere)
    return collector.finish()


def _images(collector: Collector, folder: Path) -> Iterator[str]:
    paths = folder.with_name(f"{folder.name}_images_paths.txt")
    if not paths.is_file():
        yield from collector.image_files(folder)
        return
    below = folder.relative_to(collector.root).as_posix()
    for line in files_on_disk.read_lines(paths):
        image_id = collector.listed_file(f"{below}/{line}")
        if image_id:
            yield image_id


def _add(collector: Collector, image_id: str, *, split: str, role: str) -> None:
    name = image_id.rpartition("/")[2]
    try:
        fields = parse(name) | _degrees(name)
    except ValueError as error:
        collector.refuse(image_id, str(error))
        return
    collector.add(image_id, split=split, role=role, **fields)


def parse(name: str) -> dict[str, object]:
    """Parses the base name of a file into columns of the manifest.

    Raises:
        ValueError: the name does not follow the convention; says why.
    """
    if not files_on_disk.is_image(name):
        raise ValueError(NOT_IMAGE)
    stem, _, _ = name.rpartition(".")
    before, *fields = stem.split("@")
    if before or len(fields) < 2:
        raise ValueError("no @<east>@<north>@ at the start of the name")
    fields = [field.strip() for field in fields] + [""] * 14
    try:
        east, north = float(fields[0]), float(fields[1])
    except ValueError:
        east = north = math.nan
    if not (math.isfinite(east) and math.isfinite(north)):
        raise ValueError(
            f"east and north are no numbers: {fields[0]!r}, {fields[1]!r}"
        )
    parsed = {
        "utm_east_m": east,
        "utm_north_m": north,
        "utm_zone": fields[2].lstrip("0") + fields[3].upper(),
        "panorama_id": "" if fields[6] == "None" else fields[6],
        "timestamp": fields[12],
        "condition": fields[13],
    }
    if not any(fields[2:6]) and fields[6].isdecimal():
        # Made-up coordinates, as in Nordland, AmsterTime and SPED: no zone, and
        # the number of the frame (or pair) in place of a panorama.
        parsed["frame"] = int(fields[6])
    if fields[8]:
        try:
            parsed["heading_deg"] = float(fields[8])
        except ValueError:
            raise ValueError(
                f"the heading is no number: {fields[8]!r}"
            ) from None
    return parsed


def _degrees(name: str) -> dict[str, float]:
    """Parses latitude and longitude, which only tell hemispheres apart."""
    texts = (name.split("@") + [""] * 6)[5:7]
    numbers = [files_on_disk.number(text) for text in texts]
    if not np.isfinite(numbers).all():
        return {}
    return dict(zip(("latitude", "longitude"), numbers, strict=True))
