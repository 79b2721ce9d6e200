"""Tables of the frames of an office tower, for measurements of sequences.

    python -m benchmarks.sequences --dataset=ie_tower_320 --tables=runs/tower

`<tables>/same_walk/images.csv` asks every second frame of a clip among the
others; its place is the clip, and `--protocol=frames` measures the frame.
`<tables>/another_walk/images.csv` asks every second clip of a floor among the
others; its place is the floor. A clip, or floor, is of val if the CRC-32 of its
name is odd, and of test otherwise. `build_records --reader=csv_table` reads
them; the images are links to those of the dataset.
"""

import csv
import zlib
from collections.abc import Iterable
from pathlib import Path

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", None, "Folder of metadata.csv and images/.")
flags.DEFINE_string("tables", None, "Folder of the tables.")


def main(argv) -> None:
    del argv
    dataset = Path(FLAGS.dataset).resolve()
    with (dataset / "metadata.csv").open(encoding="utf-8") as file:
        frames = list(csv.DictReader(file))
    clips = sorted({(frame["floor"], frame["clip"]) for frame in frames})
    asked, last, number = {}, None, 0
    for floor, clip in clips:
        number = number + 1 if floor == last else 0
        asked[clip], last = number % 2 == 1, floor
    tables = {
        "same_walk": ("clip", lambda frame: int(frame["frame"]) % 2 == 0),
        "another_walk": ("floor", lambda frame: asked[frame["clip"]]),
    }
    for name, (place, is_query) in tables.items():
        write(
            Path(FLAGS.tables) / name,
            dataset,
            (
                {
                    "path": frame["image"],
                    "place": frame[place],
                    "split": "val" if _is_odd(frame[place]) else "test",
                    "role": "query" if is_query(frame) else "database",
                    "sequence": frame["clip"],
                    "frame": frame["frame"],
                }
                for frame in frames
            ),
        )


def write(folder: Path, dataset: Path, rows: Iterable[dict[str, str]]) -> None:
    """Writes a table beside a link to the images."""
    rows = list(rows)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "images").exists():
        (folder / "images").symlink_to(dataset / "images")
    with (folder / "images.csv").open("w", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows(rows)
    for split in ("val", "test"):
        of_split = [row["role"] for row in rows if row["split"] == split]
        print(
            f"{folder.name} {split}: {of_split.count('query')} queries, "
            f"{of_split.count('database')} images."
        )


def _is_odd(name: str) -> bool:
    return zlib.crc32(name.encode()) % 2 == 1


if __name__ == "__main__":
    app.run(main)
