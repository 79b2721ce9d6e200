"""INRIA Holidays: groups of holiday photographs by their file names.

    <dataset>/**/1<group><number>.jpg     100000.jpg, 100001.jpg, ...

The first image of a group (number 00) is a query; the others of the group are
its positives. Every image is in the database; the query itself is junk there.
All of it is test. A query's image_id is its file's with `#query`.
"""

import re
from pathlib import Path

from sare_tf.dataset.readers.collector import Collector, Reading, Source

_LAYOUT = "**/1XXXNN.jpg, four digits of the group and two of the image"


def read(dataset: Path) -> Reading:
    """Reads the layout.

    Raises:
        ValueError: no image.
    """
    collector = Collector(dataset, dataset, layout=_LAYOUT)
    groups = {}
    for image_id in collector.image_files(dataset):
        stem = Path(image_id).stem
        if not re.fullmatch(r"1\d{5}", stem):
            collector.refuse(image_id, "its name is not six digits from 1")
            continue
        group, number = stem[:4], stem[4:]
        collector.add(image_id, split="test", role="database", place_id=group)
        groups.setdefault(group, {})[number] = image_id
    relations = []
    for group, images in groups.items():
        if "00" not in images:
            continue
        image = images["00"]
        query = f"{image}#query"
        collector.add(
            query,
            split="test",
            role="query",
            place_id=group,
            source=Source(image),
        )
        relations += [
            (query, other, "junk" if other == image else "positive")
            for other in images.values()
        ]
    return collector.finish(relations=relations)
