"""Oxford Buildings and Paris, as the University of Oxford offers them.

    <dataset>/**/<name>.jpg
    <dataset>/**/<query>_query.txt               <name> left top right bottom
    <dataset>/**/<query>_{good,ok,junk}.txt      one <name> a line

In Oxford's `_query.txt` names begin with `oxc1_`. A query is a part of an image
that is also in the database; good and ok images are its positives. All of it is
test. Names that a list holds and the folder does not (20 images of Paris are
damaged and often left out) are passed over.
"""

from collections.abc import Iterator
from pathlib import Path

from sare_tf.dataset.readers import reading

_LAYOUT = "**/*.jpg, beside <query>_query.txt, _good.txt, _ok.txt, _junk.txt"
_SUFFIX = "_query.txt"
_RELATIONS = {"good": "positive", "ok": "positive", "junk": "junk"}


def read(dataset: Path) -> reading.Reading:
    """Reads the layout; the queries are cropped, see `reading.crop`.

    Raises:
        ValueError: no image or no query, or a list that cannot be read.
    """
    found = reading.Collector(dataset, dataset, layout=_LAYOUT)
    queries, images = [], {}
    for name in reading.walk(dataset):
        stem = Path(name).stem
        if name.endswith(_SUFFIX):
            queries.append(dataset / name)
        elif reading.is_image(name) and stem in images:
            found.refuse(name, f"of the same name as {images[stem]}")
        elif reading.is_image(name) and found.add(
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
        triple for path in queries for triple in _query(found, path, images)
    ]
    return found.finish(relations=relations)


def _query(
    found: reading.Collector, path: Path, images: dict[str, str]
) -> Iterator[tuple[str, str, str]]:
    """Adds a query; gives what answers it."""
    fields = " ".join(reading.read_lines(path)).split()
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
        found.refuse(name, f"named in {path.name}, {reading.ABSENT}")
        return
    image_id, source = reading.crop(image, (left, top, right, bottom))
    if not found.add(image_id, split="test", role="query", source=source):
        return
    given = {}
    for ending, relation in _RELATIONS.items():
        names = path.with_name(
            path.name.removesuffix(_SUFFIX) + f"_{ending}.txt"
        )
        for name in reading.read_lines(names):
            given.setdefault(images.get(name), relation)
    for answer, relation in given.items():
        if answer is not None:
            yield image_id, answer, relation
