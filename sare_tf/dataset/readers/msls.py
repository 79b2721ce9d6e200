"""Mapillary Street-level Sequences, as they are downloaded.

    <dataset>/train_val/<city>/{query,database}/images/<key>.jpg
        raw.csv            key,lon,lat,ca,captured_at,pano
        postprocessed.csv  key,easting,northing,night,view_direction,...
        seq_info.csv       key,sequence_key,frame_number
        subtask_index.csv  key,all,s2w,w2s,o2n,n2o,d2n,n2d
    <dataset>/test/<city>/...   the same without raw.csv and postprocessed.csv

Copenhagen and San Francisco (cph, sf) are val, the other cities of train_val/
train. As in the official code, panoramas are left out. The subtasks of an image
are in `subtasks`, for the protocol to choose from. Queries without a positive
stay, for the protocol to count. The test cities have no coordinates. Tables are
joined by key and columns are found by name: their order on disk is not that of
the documentation.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from sare_tf.dataset.names import SUBTASKS
from sare_tf.dataset.readers import files_on_disk, utm
from sare_tf.dataset.readers.collector import ABSENT, Collector, Reading

_LAYOUT = "{train_val,test}/<city>/{query,database}/images/<key>.jpg"
_VAL_CITIES = ("cph", "sf")


def read(dataset: Path) -> Reading:
    """Reads the layout.

    Raises:
        ValueError: no image, or a table that is absent or lacks columns.
    """
    collector = Collector(dataset, dataset, layout=_LAYOUT)
    for part in ("train_val", "test"):
        if not (dataset / part).is_dir():
            continue
        for city in sorted((dataset / part).iterdir()):
            split = "train" if part == "train_val" else "test"
            if part == "train_val" and city.name in _VAL_CITIES:
                split = "val"
            if city.is_dir() and not city.name.startswith("."):
                _read_city(collector, city, split)
    return collector.finish()


def _read_city(collector: Collector, city: Path, split: str) -> None:
    tables = {}
    for role in ("database", "query"):
        if (city / role).is_dir():
            tables[role] = _table(city / role, located=split != "test")
    zone = ""
    if split != "test" and tables:
        # The tables do not say the zone: it is that of the median point.
        raw = pd.concat(tables.values())
        zone = utm.zone_of(
            float(raw["lat"].map(files_on_disk.number).median()),
            float(raw["lon"].map(files_on_disk.number).median()),
        )
    for role, table in tables.items():
        folder = city / role / "images"
        present = set(collector.image_files(folder))
        below = folder.relative_to(collector.root).as_posix()
        for row in table.to_dict("records"):
            image_id = f"{below}/{row['key']}.jpg"
            if image_id not in present:
                collector.refuse(image_id, f"named in the tables, {ABSENT}")
            elif row.get("pano") == "True":
                collector.refuse(image_id, "panorama")
            else:
                columns = _columns(row, zone)
                collector.add(image_id, split=split, role=role, **columns)
        named = set(below + "/" + table["key"] + ".jpg")
        for image_id in sorted(present - named):
            collector.refuse(image_id, "not in the tables")


def _table(folder: Path, *, located: bool) -> pd.DataFrame:
    """Reads all tables of a folder, joined."""
    needed = {"seq_info": (), "subtask_index": SUBTASKS}
    if located:
        needed["raw"] = ("lon", "lat", "ca", "captured_at", "pano")
        needed["postprocessed"] = (
            *("easting", "northing", "night", "view_direction"),
        )
    joined = None
    for name, columns in needed.items():
        table = files_on_disk.read_table(
            folder / f"{name}.csv", "key", *columns
        )
        kept = table.columns.difference(["key"]) if not columns else columns
        table = table[["key", *kept]]
        joined = table if joined is None else joined.merge(table, on="key")
    return joined


def _columns(row: dict[str, str], zone: str) -> dict[str, object]:
    sequence = row.get("sequence_key", row.get("sequence_id", ""))
    subtasks = [name for name in SUBTASKS if row[name] == "True"]
    columns = {"sequence_id": sequence, "subtasks": " ".join(subtasks)}
    frame = files_on_disk.number(row.get("frame_number", ""))
    if np.isfinite(frame):
        columns["frame"] = int(frame)
    if zone:
        time = "night" if row["night"] == "True" else "day"
        columns |= {
            "utm_east_m": files_on_disk.number(row["easting"]),
            "utm_north_m": files_on_disk.number(row["northing"]),
            "utm_zone": zone,
            "heading_deg": files_on_disk.number(row["ca"]),
            "timestamp": row["captured_at"],
            "condition": f"{time}_{row['view_direction'].lower()}",
        }
    return columns
