"""Oxford Buildings and Paris, as the University of Oxford offers them.

    <dataset>/**/<name>.jpg
    <dataset>/**/<query>_query.txt               <name> left top right bottom
    <dataset>/**/<query>_{good,ok,junk}.txt      one <name> a line

In Oxford's `_query.txt` names begin with `oxc1_`. A query is a part of an image
that is also in the database; good and ok images are its positives. All of it is
test. Names without an image in the folder are ignored (20 images of Paris are
damaged and often left out).
"""

from collections.abc import Iterator
from pathlib import Path

from sare_tf.dataset.readers import files_on_disk
from sare_tf.dataset.readers.collector import ABSENT, Collector, Reading, crop

_LAYOUT = "**/*.jpg, beside <query>_query.txt, _good.txt, _ok.txt, _junk.txt"
_SUFFIX = "_query.txt"
_RELATIONS = {"good": "positive", "ok": "positive", "junk": "junk"}


def read(dataset: Path) -> Reading:
    """Reads the layout; the queries are cropped, see `collector.crop`.

    Raises:
        ValueError: no image or no query, or a list that cannot be read.
    """
    collector = Collector(dataset, dataset, layout=_LAYOUT)
    queries, images = [], {}
    for name in files_on_disk.walk(dataset):
        stem = Path(name).stem
        if name.endswith(_SUFFIX):
            queries.append(dataset / name)
        elif files_on_disk.is_image(name) and stem in images:
            collector.refuse(name, f"of the same name as {images[stem]}")
        elif files_on_disk.is_image(name) and collector.add(
            name, split="test", role="database"
        ):
            images[stem] = name
    if images and not queries:
        raise ValueError(
            f"Expected lists *{_SUFFIX} of the ground truth. Received: "
            f"dataset={str(dataset)!r} with {len(images)} images and no list. "
            "Unpack gt_files_170407.tgz or paris_120310.tgz into it."
        )
    relations = [
        triple for path in queries for triple in _query(collector, path, images)
    ]
    return collector.finish(relations=relations)


def _query(
    collector: Collector, path: Path, images: dict[str, str]
) -> Iterator[tuple[str, str, str]]:
    """Adds a query, and yields its relations."""
    fields = " ".join(files_on_disk.read_lines(path)).split()
    try:
        name, *box = fields
        left, top, right, bottom = map(float, box)
    except ValueError as error:
        raise ValueError(
            "Expected a name, left, top, right and bottom. Received: "
            f"path={str(path)!r} with {' '.join(fields)[:80]!r}. Get the file "
            "again."
        ) from error
    image = images.get(name.removeprefix("oxc1_"))
    if image is None:
        collector.refuse(name, f"named in {path.name}, {ABSENT}")
        return
    image_id, source = crop(image, (left, top, right, bottom))
    if not collector.add(image_id, split="test", role="query", source=source):
        return
    given = {}
    for ending, relation in _RELATIONS.items():
        names = path.with_name(
            path.name.removesuffix(_SUFFIX) + f"_{ending}.txt"
        )
        for name in files_on_disk.read_lines(names):
            given.setdefault(images.get(name), relation)
    for answer, relation in given.items():
        if answer is not None:
            yield image_id, answer, relation
