"""Datasets of VPR-Bench: numbered images and a list of which match.

    <dataset>/query/0000000.jpg
    <dataset>/ref/0000000.jpg
    <dataset>/ground_truth_new.npy     [Q, 2]: query, list of references

Its numbers are those in the file names, or positions in the sorted list where
names are no numbers. All of it is test; `frame` holds the number. NumPy stores
such a list as a pickle, see `safe_pickle`.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sare_tf.dataset.readers.collector import Collector, Reading
from sare_tf.runtime import safe_pickle

_LAYOUT = "{query,ref}/0000000.jpg"
_TRUTH = "ground_truth_new.npy"


def read(dataset: Path) -> Reading:
    """Reads the layout.

    Raises:
        ValueError: no image, or a ground truth that is absent or damaged, or
            that names images that are not there.
    """
    collector = Collector(dataset, dataset, layout=_LAYOUT)
    numbered = []
    for folder, role in (("query", "query"), ("ref", "database")):
        images = list(collector.image_files(dataset / folder))
        stems = [Path(image_id).stem for image_id in images]
        if all(stem.isdecimal() for stem in stems):
            images = dict(zip(map(int, stems), images, strict=True))
        else:
            images = dict(enumerate(images))
        for number, image_id in images.items():
            collector.add(image_id, split="test", role=role, frame=number)
        numbered.append(images)
    relations = None
    if all(numbered):
        relations = list(_relations(dataset / _TRUTH, *numbered))
    return collector.finish(relations=relations)


def _relations(
    path: Path, queries: dict[int, str], references: dict[int, str]
) -> Iterator[tuple[str, str, str]]:
    truth = safe_pickle.load_npy(path)
    try:
        for query, answers in truth:
            for answer in sorted(set(np.ravel(answers).astype(int).tolist())):
                yield queries[int(query)], references[answer], "positive"
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "Expected pairs of the number of a query and a list of numbers of "
            f"references. Received: path={str(path)!r} ({error!r}). Check that "
            f"all images of query/ and ref/ are there."
        ) from error
