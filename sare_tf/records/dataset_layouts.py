"""Images of records written as a dataset, in the layouts of other projects.

    at_names   images/<split>/{database,queries}/@<east>@<north>@...@.jpg, for
               deep-visual-geo-localization-benchmark, CosPlace and others
    openibl    raw/, meta.json and splits.json
    hloc       images/ and, for each split, <split>_{database,queries}.txt: one
               name a line

The first two say only by coordinates which images match. Without coordinates,
places are put 1000 m apart, as the VPR-datasets-downloader does. They have no
room for a list of matches.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from sare_tf.dataset import manifest
from sare_tf.dataset.names import SPLITS
from sare_tf.records.file_names import extension, safe_names
from sare_tf.runtime import atomic_files

_FOLDERS = {"database": "database", "query": "queries"}
_SHORT = {"query": "q", "database": "db"}
# VPR-datasets-downloader.
_APART_M = 1000.0


def describe(layout: str, folder: Path, table: pd.DataFrame) -> list[str]:
    """Writes the files of a layout that describe its images.

    Args:
        layout: a name in `records.options.DATASET_LAYOUTS`.
        folder: where the files are written.
        table: N rows of a manifest.

    Returns:
        N paths below the folder, where the images belong.

    Raises:
        ValueError: the layout cannot say which of these images match.
    """
    return _LAYOUTS[layout](folder, table)


def _at_names(folder: Path, table: pd.DataFrame) -> list[str]:
    """Writes nothing: the names hold everything."""
    del folder
    names = []
    positions = _positions(table)
    for number, (row, (east, north)) in enumerate(
        zip(table.to_dict("records"), positions, strict=True)
    ):
        zone = row["utm_zone"]
        heading = row["heading_deg"]
        fields = [
            # All digits, so that images within a radius stay within it.
            *(repr(float(east)), repr(float(north))),
            *((zone[:-1], zone[-1]) if zone[-1:].isalpha() else (zone, "")),
            *("", ""),
            row["panorama_id"]
            or ("" if row["frame"] < 0 else str(row["frame"])),
            str(number),  # The tile, which nobody reads: names are unique.
            f"{heading:.0f}" if np.isfinite(heading) else "",
            *("", "", ""),
            row["timestamp"],
            row["condition"],
        ]
        fields = [field.replace("@", "-").replace("/", "-") for field in fields]
        name = "@".join(["", *fields, extension(row["image_id"])])
        names.append(f"images/{row['split']}/{_FOLDERS[row['role']]}/{name}")
    return names


def _openibl(folder: Path, table: pd.DataFrame) -> list[str]:
    grids = manifest.grids(table)
    if len(set(grids)) > 1:
        raise ValueError(
            "Expected images of one UTM zone: the layout openibl has no zones. "
            f"Received: {sorted(set(grids))}. Use --layout=at_names, or build "
            "records of one city."
        )
    names = safe_names(table)
    identities, positions = [], []
    splits = {
        f"{short}_{split}": [] for split in SPLITS for short in _SHORT.values()
    }
    east, north = _positions(table).T
    places = pd.DataFrame(
        {
            "split": table["split"],
            "role": table["role"],
            "east": east,
            "north": north,
            "name": names,
        }
    )
    for (split, role, east_m, north_m), images in places.groupby(
        ["split", "role", "east", "north"], sort=False
    )["name"]:
        splits[f"{_SHORT[role]}_{split}"].append(len(identities))
        identities.append(images.tolist())
        positions.append([east_m, north_m])
    meta = {"name": "sare_tf", "identities": identities, "utm": positions}
    atomic_files.write_json(folder / "meta.json", meta)
    atomic_files.write_json(folder / "splits.json", splits)
    return [f"raw/{name}" for name in names]


def _hloc(folder: Path, table: pd.DataFrame) -> list[str]:
    names = safe_names(table)
    for (split, role), rows in table.groupby(["split", "role"]).indices.items():
        lines = [f"{names[row]}\n" for row in rows]
        atomic_files.write_text(
            folder / f"{split}_{_FOLDERS[role]}.txt", "".join(lines)
        )
    return [f"images/{name}" for name in names]


_LAYOUTS: dict[str, Callable[[Path, pd.DataFrame], list[str]]] = {
    "at_names": _at_names,
    "openibl": _openibl,
    "hloc": _hloc,
}


def _positions(table: pd.DataFrame) -> np.ndarray:
    """Returns metres east and north, [N, 2], which may stand for places.

    Raises:
        ValueError: images without coordinates, and images without a place.
    """
    if manifest.has_coordinates(table):
        return manifest.coordinates(table)
    if not manifest.has_places(table):
        raise ValueError(
            "Expected coordinates of every image, or a place_id of every "
            "image, for a layout that gives matches by coordinates. Received: "
            f"{len(table)} images, not all with the one or the other. Use "
            "--layout=hloc."
        )
    number, _ = pd.factorize(table["place_id"], sort=True)
    return np.stack([np.zeros(len(table)), _APART_M * number], axis=1)
