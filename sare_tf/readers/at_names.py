"""Folders whose file names hold the coordinates, between `@`.

    <dataset>/images/{train,val,test}/{database,queries}/**/@<east>@<north>@
    <zone number>@<zone letter>@<latitude>@<longitude>@<panorama>@<tile>@
    <heading>@<pitch>@<roll>@<height>@<timestamp>@<note>@.jpg

in one name. East and north, in metres, are required; the rest may be empty or
absent. Written by the VPR-datasets-downloader for Pittsburgh, Tokyo 24/7, MSLS,
St Lucia, Nordland and others, and used by SF-XL. Only the base name is parsed:
a folder above may hold an `@`.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from sare_tf import manifest
from sare_tf.readers import reading

_LAYOUT = "images/{train,val,test}/{database,queries}/@<east>@<north>@...@.jpg"


def read(
    dataset: Path, *, split_fractions: Sequence[float], seed: int
) -> reading.Reading:
    """Reads the layout; its split folders are the split.

    Raises:
        ValueError: no image, or coordinates in several UTM zones.
    """
    del split_fractions, seed  # The folders say it.
    root = reading.image_root(dataset)
    rows, rejected = [], []
    for split in manifest.SPLITS:
        for folder, role in reading.ROLES.items():
            top = root / split / folder
            for path in reading.walk(top) if top.is_dir() else ():
                image_id = path.relative_to(root).as_posix()
                try:
                    fields = parse(path.name)
                except ValueError as error:
                    rejected.append((image_id, str(error)))
                    continue
                rows.append(
                    {
                        "image_id": image_id,
                        "split": split,
                        "role": role,
                        **fields,
                    }
                )
    if not rows:
        raise ValueError(
            f"Expected images at {_LAYOUT}. Received: dataset={str(dataset)!r} "
            f"with none ({len(rejected)} other files"
            + (
                f", such as {rejected[0][0]}: {rejected[0][1]}"
                if rejected
                else ""
            )
            + "). Choose another --reader, or move the images."
        )
    return reading.Reading(manifest.make(rows), root, rejected)


def parse(name: str) -> dict[str, object]:
    """Parses the base name of a file into columns of the manifest.

    Raises:
        ValueError: it is no image name of the convention; says why.
    """
    if not reading.is_image(Path(name)):
        raise ValueError(f"not one of {', '.join(reading.EXTENSIONS)}")
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
    if fields[8]:
        try:
            parsed["heading_deg"] = float(fields[8])
        except ValueError:
            raise ValueError(
                f"the heading is no number: {fields[8]!r}"
            ) from None
    return parsed
