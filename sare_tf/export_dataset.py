"""records/ -> a dataset in the layout of another project.

    python -m sare_tf.export_dataset --records=runs/own/records \
        --layout=at_names --out=runs/own/for_others

The images are written as they are in the records. Layouts:

    at_names   images/<split>/{database,queries}/@<east>@<north>@...@.jpg, for
               deep-visual-geo-localization-benchmark, CosPlace and others
    openibl    raw/, meta.json and splits.json
    hloc       images/ and, for each split, <split>_{database,queries}.txt: one
               name a line

The first two say where images match by coordinates alone: without any, places
are put 1000 m apart, as the VPR-datasets-downloader does; a list of matches
cannot be told in them.
"""

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from absl import logging
from tqdm import tqdm

from sare_tf import flags
from sare_tf.dataset import manifest
from sare_tf.records import records
from sare_tf.records.options import ExportDatasetOptions
from sare_tf.runtime import atomic_files

_FOLDERS = {"database": "database", "query": "queries"}
_SHORT = {"query": "q", "database": "db"}
_APART_M = 1000.0


def run(options: ExportDatasetOptions) -> Path:
    """Writes images, and what the layout says of them.

    Args:
        options: the records, the new folder and its layout.

    Returns:
        The new folder.

    Raises:
        FileNotFoundError: no finished records are there.
        ValueError: a folder that exists, or images that the layout cannot tell
            the places of.
    """
    out, layout = Path(options.out), options.layout
    if out.exists():
        raise ValueError(
            f"Expected a new folder. Received: out={str(out)!r}, which exists. "
            "Choose another --out, or remove it."
        )
    opened = records.Records(options.records)
    with atomic_files.folder_in_one_piece(out) as folder:
        names = _LAYOUTS[layout](folder, opened.manifest)
        images = opened.read_images(opened.manifest)
        for name, encoded in zip(
            tqdm(names, unit="image", desc="export dataset", leave=False),
            images,
            strict=True,
        ):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded)
    logging.info("%d images as %s in %s.", len(names), layout, out)
    return out


def _at_names(folder: Path, table: pd.DataFrame) -> list[str]:
    """Paths of the images; nothing else is written."""
    del folder
    names = []
    places = _coordinates(table)
    for number, (row, (east, north)) in enumerate(
        zip(table.to_dict("records"), places, strict=True)
    ):
        zone = row["utm_zone"]
        heading = row["heading_deg"]
        fields = [
            # In full, so that what is within a radius stays within it.
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
        name = "@".join(["", *fields, _extension(row["image_id"])])
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
        f"{short}_{split}": []
        for split in manifest.SPLITS
        for short in _SHORT.values()
    }
    east, north = _coordinates(table).T
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


def _coordinates(table: pd.DataFrame) -> np.ndarray:
    """float64 [B, 2]: east and north, of the images or made up for places.

    Raises:
        ValueError: images with neither.
    """
    if manifest.has_coordinates(table):
        return table[["utm_east_m", "utm_north_m"]].to_numpy(np.float64)
    if not manifest.has_places(table):
        raise ValueError(
            "Expected coordinates of every image, or a place_id of every "
            "image, for a layout that tells matches by coordinates. Received: "
            f"{len(table)} images, not all with the one or the other. Use "
            "--layout=hloc."
        )
    number, _ = pd.factorize(table["place_id"], sort=True)
    return np.stack([np.zeros(len(table)), _APART_M * number], axis=1)


def safe_names(table: pd.DataFrame) -> list[str]:
    """Image ids as names of files: a part of an image has a name of its own.

    Args:
        table: rows of a manifest.
    """
    return [
        image_id
        if PurePosixPath(image_id).suffix.lower() in (".jpg", ".jpeg", ".png")
        else image_id.replace("#", "_") + _extension(image_id)
        for image_id in table["image_id"]
    ]


def _extension(image_id: str) -> str:
    """Of the file; parts of images are stored as PNG."""
    if "#xywh=" in image_id:
        return ".png"
    return PurePosixPath(image_id.partition("#")[0]).suffix.lower()


def main(argv) -> None:
    del argv
    run(ExportDatasetOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
