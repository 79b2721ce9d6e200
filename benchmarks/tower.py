"""Frames of an office tower as datasets, and commands on them that resume.

The dataset is ie-tower-visual-place-recognition, reduced to 320 x 180:
`metadata.csv` names image, split (gallery or query), floor, clip and frame. A
clip is a walk over one floor. What is asked is in the tables that `write`
makes for `build_records --reader=csv_table`; the images are links.
"""

import csv
import subprocess
import sys
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path


class Stage:
    """Runs stages as commands, each unless its result is there.

    Args:
        weights: file of the weights of ImageNet.
        cache: folder of `locate --photos`.
    """

    def __init__(self, *, weights: str, cache: Path):
        self._weights = weights
        self._cache = cache

    def __call__(self, name: str, done: Path, **options) -> Path:
        """Runs a stage.

        Args:
            name: of the stage.
            done: file that it writes at its end.
            options: flags; True stands for a flag without a value.
        """
        flags = [
            f"--{flag}" if value is True else f"--{flag}={value}"
            for flag, value in options.items()
        ]
        return self._run(name, done, flags)

    def compare(self, out: Path, runs: Sequence[Path]) -> Path:
        """Compares evaluations with the first one."""
        return self._run(
            "compare",
            out / "compare.json",
            [f"--comparison={out}", *map(str, runs)],
        )

    def untrained(self, photos: Path) -> Path:
        """Returns the export of MobileNetV2 that `locate --photos` makes.

        Args:
            photos: the photographs, to which clusters and whitening are fitted.
        """
        if not self._exports():
            first = next(photos.rglob("*.jpg"))
            self._run(
                "locate",
                None,
                [
                    f"--photos={photos}",
                    f"--weights={self._weights}",
                    f"--cache={self._cache}",
                    str(first),
                ],
            )
        (export,) = self._exports()
        return export

    def _exports(self) -> list[Path]:
        # state.json is written last.
        whole = self._cache.glob("photos/*/state.json")
        return [path.with_name("export") for path in whole]

    def _run(self, name: str, done: Path | None, flags: Sequence[str]) -> Path:
        if done is None or not done.is_file():
            command = [sys.executable, "-m", f"sare_tf.{name}", *flags]
            print(" ".join(command), file=sys.stderr, flush=True)
            subprocess.run(command, check=True)
        return done


def frames(dataset: Path) -> list[dict[str, str]]:
    """Returns the lines of metadata.csv."""
    with (dataset / "metadata.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def remainder(name: str, divisor: int) -> int:
    """Returns a number that a name always gets, below the divisor."""
    return zlib.crc32(name.encode()) % divisor


def write(folder: Path, dataset: Path, rows: Iterable[dict[str, str]]) -> Path:
    """Writes a table beside a link to the images, and returns its folder."""
    rows = list(rows)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "images").exists():
        (folder / "images").symlink_to((dataset / "images").resolve())
    with (folder / "images.csv").open("w", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows(rows)
    for split in ("val", "test"):
        of_split = [row["role"] for row in rows if row["split"] == split]
        print(
            f"{folder.name} {split}: {of_split.count('query')} queries, "
            f"{of_split.count('database')} images.",
            file=sys.stderr,
        )
    return folder
