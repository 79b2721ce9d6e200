"""Tiny records of towns: streets of places with positions and headings."""

import csv
from pathlib import Path

from toy_search import jpeg

from sare_tf import build_records
from sare_tf.records.options import RecordOptions

_PLACES = {"train": 8, "val": 4}
_HEADINGS = (0, 60, 120) * 2


def records(root: Path, *, number: int, splits=("train", "val")) -> Path:
    """Builds records of two towns in the train split, and of one in val.

    Places of a street stand 60 m apart. In train, each has 6 images that look
    north to south-east, half a metre apart; in val, two of each role.

    Args:
        root: an empty folder.
        number: decides the pictures and the positions.
        splits: which splits there are.
    """
    table = []
    for split in splits:
        places = _PLACES[split]
        for town in ("ost", "west") if split == "train" else ("nord",):
            for place in range(places):
                picture = 1000 * number + 100 * len(town) + place
                picture += 50 * (split == "val")
                east = 500_000 + 20_000 * number + 4000 * len(town)
                table += [
                    {
                        "path": f"{town}/{place}-{view}.jpg",
                        "utm_east": east + 60.0 * place + 0.5 * view,
                        "utm_north": 4_000_000.0 + view % 2,
                        "utm_zone": "17T",
                        "place": f"{split}-{town}-{place}",
                        "heading": heading,
                        "split": split,
                        "role": "query" if view < 2 else "database",
                        "picture": picture,
                        "view": view,
                    }
                    for view, heading in enumerate(_HEADINGS)
                    if split == "train" or view < 4
                ]
    photos = root / "photos"
    for row in table:
        path = photos / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(row.pop("picture"), row.pop("view")))
    with (photos / "images.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    return build_records.run(
        RecordOptions(
            dataset=photos, records=root / "records", reader="csv_table"
        )
    )
