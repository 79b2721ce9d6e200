"""index/ + photographs -> the most similar places.

python -m sare_tf.locate --flagfile=configs/demo.flags PHOTO.jpg ...
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from absl import flags

from sare_tf import flags as stage_flags
from sare_tf import index as index_stage
from sare_tf import serving

FLAGS = flags.FLAGS


def run(
    *,
    index: str | Path,
    export: str | Path | serving.Server,
    photos: Sequence[str | Path],
    k: int = 5,
    batch_size: int = 32,
    exact: bool = False,
) -> list[pd.DataFrame]:
    """Looks up photographs in an index.

    Args:
        index: folder of the index.
        export: folder of the export that the index was built with, or a server
            of it (`serving.load`).
        photos: JPEG or PNG files.
        k: places to find for each.
        batch_size: photographs embedded at a time.
        exact: search exactly, without ScaNN.

    Returns:
        For each photograph the rows of the index's manifest, nearest first,
        with a column `squared_distance` in front.

    Raises:
        FileNotFoundError: index, export or a photograph is not there.
        ValueError: no photograph given, one that cannot be decoded, another
            export than the index's, or k larger than the database.
    """
    photos = [Path(photo) for photo in photos]
    if not photos:
        raise ValueError(
            "Expected at least one photograph. Received: photos=[]. Name "
            "files after the flags."
        )
    missing = [str(photo) for photo in photos if not photo.is_file()]
    if missing:
        raise FileNotFoundError(
            "Expected photographs. Received: no file at "
            f"{', '.join(missing[:5])}."
        )
    search = index_stage.Index.open(index, exact=exact)
    servable = serving.load(export)
    search.check_export(servable)
    descriptors = index_stage.embed(
        servable,
        (photo.read_bytes() for photo in photos),
        [str(photo) for photo in photos],
        batch_size=batch_size,
    )
    results = []
    for rows, distances in zip(*search.search(descriptors, k), strict=True):
        found = rows >= 0
        result = search.manifest.iloc[rows[found]].reset_index(drop=True)
        result.insert(0, "squared_distance", distances[found])
        results.append(result)
    return results


def describe(result: pd.DataFrame) -> str:
    """The places found for one photograph, one line each."""
    lines = []
    for row in result.itertuples():
        words = [f"{row.Index + 1:>4}", f"{row.squared_distance:.4f}"]
        words.append(row.image_id)
        if row.place_id:
            words.append(f"place {row.place_id}")
        if np.isfinite(row.utm_east_m) and np.isfinite(row.utm_north_m):
            zone = f" zone {row.utm_zone}" if row.utm_zone else ""
            words.append(
                f"{row.utm_east_m:.1f} m east, {row.utm_north_m:.1f} m north"
                + zone
            )
        lines.append("  ".join(words) + "\n")
    return "".join(lines)


def main(argv) -> None:
    stage_flags.required("index")
    photos = argv[1:]
    results = run(
        index=FLAGS.index,
        export=serving.named_by_flags(),
        photos=photos,
        k=FLAGS.k,
        batch_size=FLAGS.batch_size,
        exact=FLAGS.exact_search,
    )
    for photo, result in zip(photos, results, strict=True):
        sys.stdout.write(f"{photo}: squared distance and image\n")
        sys.stdout.write(describe(result))


if __name__ == "__main__":
    stage_flags.start(main, takes_files=True)
