"""Lists of Patch-NetVLAD: names of images, and their coordinates.

    <dataset>/<name>_imageNames_index.txt     one path a line: the database
    <dataset>/<name>_imageNames_query.txt     the queries
    <dataset>/<name>.npz                      utmDb [N, 2], utmQ [Q, 2],
                                              posDistThr

Paths are relative to the dataset. All of it is test. The radius of a positive
that the file gives is logged: pass it as --positive_radius_m. Where coordinates
are positions in the lists (Nordland: both numbers of the i-th image are i),
they are in `frame` too.
"""

from pathlib import Path

import numpy as np
from absl import logging

from sare_tf.dataset.readers import files_on_disk
from sare_tf.dataset.readers.collector import Collector, Reading

_LAYOUT = "the paths in *_imageNames_index.txt and *_imageNames_query.txt"
_PARTS = (
    ("database", "*_imageNames_index.txt", "utmDb"),
    ("query", "*_imageNames_query.txt", "utmQ"),
)


def read(dataset: Path, *, list_only: bool) -> Reading:
    """Reads the layout; with `list_only`, images may be absent.

    Raises:
        ValueError: no image, a file that is absent or cannot be read, or
            numbers of coordinates and of names that differ.
    """
    collector = Collector(dataset, dataset, layout=_LAYOUT, list_only=list_only)
    path = files_on_disk.only_file(dataset, "*.npz")
    truth = _load(path)
    for role, pattern, array in _PARTS:
        path_of_names = files_on_disk.only_file(dataset, pattern)
        names = list(files_on_disk.read_lines(path_of_names))
        points = truth[array]
        if points.shape != (len(names), 2):
            raise ValueError(
                f"Expected coordinates [{len(names)}, 2], as there are names. "
                f"Received: path={str(path)!r} with {array} "
                f"{list(points.shape)}. Take list and .npz of the same dataset."
            )
        are_frames = (points == np.arange(len(names))[:, None]).all()
        for place, name in enumerate(names):
            image_id = collector.listed_file(name)
            if image_id:
                collector.add(
                    image_id,
                    split="test",
                    role=role,
                    utm_east_m=float(points[place, 0]),
                    utm_north_m=float(points[place, 1]),
                    **({"frame": place} if are_frames else {}),
                )
    logging.info(
        "%s gives positives within %g: --positive_radius_m=%g.",
        path.name,
        *[truth["posDistThr"]] * 2,
    )
    return collector.finish()


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            truth = {
                name: np.asarray(file[name], np.float64)
                for name in ("utmDb", "utmQ", "posDistThr")
            }
        return truth | {"posDistThr": truth["posDistThr"].item()}
    except Exception as error:  # zipfile raises many kinds for damage.
        raise ValueError(
            "Expected arrays utmDb, utmQ and posDistThr. Received: "
            f"path={str(path)!r} ({error!r}). Get the file again."
        ) from error
