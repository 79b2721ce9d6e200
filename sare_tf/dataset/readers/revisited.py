"""Revisited Oxford and Paris, and the older files of the same form.

    <dataset>/jpg/<name>.jpg
    <dataset>/gnd_<roxford5k, rparis6k, oxford5k or paris6k>.{pkl,mat}

The ground truth holds imlist, the database; qimlist (in the older ones qidx,
positions in imlist), the queries; and gnd, for each query, bbx, the part of the
image that is the query, and the positions in imlist of easy, hard and junk
images (in the older ones ok and junk). They count from 0 in .pkl, from 1 in
.mat; bbx counts pixels from 0 in both. All of it is test.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sare_tf.dataset.readers import files_on_disk
from sare_tf.dataset.readers.collector import Collector, Reading, crop
from sare_tf.runtime import matlab_files, safe_pickle

_LAYOUT = "jpg/<name>.jpg, named by gnd_<dataset>.pkl or .mat"
# Field of a query -> relation.
_NAMES = ("imlist", "qimlist", "qidx", "gnd")
_FIELDS = {"ok": "positive", "easy": "easy", "hard": "hard", "junk": "junk"}


def read(dataset: Path) -> Reading:
    """Reads the layout; the queries are cropped, see `collector.crop`.

    Raises:
        ValueError: no image, or a ground truth that is absent or damaged.
    """
    path = files_on_disk.only_file(dataset, "gnd_*.pkl", "gnd_*.mat")
    collector = Collector(dataset, dataset, layout=_LAYOUT)
    truth = _load(path)
    database = []
    for name in truth["imlist"]:
        image_id = collector.listed_file(f"jpg/{name}.jpg")
        if image_id:
            collector.add(image_id, split="test", role="database")
        database.append(image_id)
    relations = list(_queries(collector, truth, database, path))
    return collector.finish(relations=relations)


def _queries(
    collector: Collector,
    truth: dict[str, Any],
    database: list[str],
    path: Path,
) -> Iterator[tuple[str, str, str]]:
    """Adds the queries, and yields their relations."""
    for name, query in zip(truth["qimlist"], truth["gnd"], strict=True):
        image = collector.listed_file(f"jpg/{name}.jpg")
        if not image:
            continue
        image_id, source = crop(image, query["bbx"])
        collector.add(image_id, split="test", role="query", source=source)
        for field, relation in _FIELDS.items():
            for place in query.get(field, ()):
                if not 0 <= place < len(database):
                    raise ValueError(
                        f"Expected places from 0 to {len(database) - 1} in the "
                        f"list of images. Received: path={str(path)!r} with "
                        f"{place} as {field} of {name!r}. Get the file again."
                    )
                yield image_id, database[place], relation


def _load(path: Path) -> dict[str, Any]:
    """Reads the ground truth; names are text, positions count from 0."""
    is_pickle = path.suffix == ".pkl"
    first = 0 if is_pickle else 1
    raw = safe_pickle.load(path) if is_pickle else None
    try:
        if not is_pickle:
            raw = matlab_files.load(path, names=_NAMES, simplify_cells=True)
        truth = {"imlist": [str(name) for name in _list(raw["imlist"])]}
        if "qimlist" in raw:
            truth["qimlist"] = [str(name) for name in _list(raw["qimlist"])]
        else:
            places = np.ravel(raw["qidx"]).astype(int) - first
            truth["qimlist"] = [truth["imlist"][place] for place in places]
        truth["gnd"] = [_query(query, first) for query in _list(raw["gnd"])]
        if len(truth["gnd"]) != len(truth["qimlist"]):
            raise ValueError(
                f"{len(truth['qimlist'])} queries, answers of "
                f"{len(truth['gnd'])}"
            )
        return truth
    except (
        *(IndexError, KeyError, NotImplementedError, OSError),
        *(TypeError, ValueError),
    ) as error:
        raise ValueError(
            "Expected a ground truth with imlist, qimlist or qidx, and gnd. "
            f"Received: path={str(path)!r} ({error!r}). Get the file again."
        ) from error


def _list(value: Any) -> list:
    """Returns a list, also of what a .mat file holds as a single value."""
    return list(value) if isinstance(value, list | np.ndarray) else [value]


def _query(raw: dict[str, Any], first: int) -> dict[str, Any]:
    box = [float(edge) for edge in np.ravel(raw["bbx"])]
    if len(box) != 4 or not box[0] < box[2] or not box[1] < box[3]:
        raise ValueError(f"bbx {box} is no left, top, right, bottom")
    query = {"bbx": box}
    for field in _FIELDS:
        if field in raw:
            places = np.ravel(raw[field]).astype(int) - first
            query[field] = places.tolist()
    return query
