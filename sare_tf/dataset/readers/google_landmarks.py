"""Google Landmarks v2, as it is downloaded.

    <dataset>/{train,index,test}/<a>/<b>/<c>/<id>.jpg
    <dataset>/train.csv                         id,url,landmark_id
    <dataset>/train_clean.csv                   landmark_id,images
    <dataset>/index.csv                         id
    <dataset>/retrieval_solution_v2.1.csv       id,images,Usage

where a, b, c are the first characters of the id; the tables may also lie in the
folders of their images. A landmark is a place. `train_clean.csv` is used
instead of `train.csv` where it is there. Landmarks are train or val, at random,
and a share of each one's images are queries. `index` is the test database; the
test queries are those of the solution, which lists their positives. Images that
are not downloaded are refused.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sare_tf.dataset.readers import files_on_disk, splitting
from sare_tf.dataset.readers.collector import Collector, Reading
from sare_tf.dataset.sqlite_manifest import Group

_LAYOUT = "{train,index,test}/<a>/<b>/<c>/<id>.jpg, named by a table"
_SOLUTION = "retrieval_solution_v2.1.csv"


def read(
    dataset: Path,
    *,
    split_fractions: Sequence[float],
    query_fraction: float,
    seed: int,
) -> Reading:
    """Reads the layout.

    Args:
        dataset: the folder.
        split_fractions: shares of landmarks. Only the proportion of train and
            val counts, as the dataset has a test split.
        query_fraction: share of a landmark's images that become queries.
        seed: of splits and queries.

    Raises:
        ValueError: no image, or a table that lacks columns.
    """
    collector = Collector(dataset, dataset, layout=_LAYOUT)
    for image, landmark in _landmarks(dataset):
        _add(collector, "train", image, split="train", place_id=landmark)
    index = _find(dataset, "index.csv", "index")
    if index:
        for block in files_on_disk.read_blocks(index, "id"):
            for image in block["id"]:
                _add(collector, "index", image, split="test", role="database")
    relations = None
    solution = _find(dataset, _SOLUTION, "test")
    if solution:
        relations = list(_solution(collector, solution))
    if collector.images.has_a_place():
        train, val = split_fractions[:2]
        if train + val <= 0:
            raise ValueError(
                "Expected a share above 0 of train or val: test has images of "
                f"its own. Received: split_fractions={list(split_fractions)}."
            )
        splitting.choose_splits(
            collector.images,
            Group.PLACE,
            fractions=(train / (train + val), val / (train + val), 0),
            seed=seed,
            splits=["train"],
        )
        splitting.choose_roles(
            collector.images,
            Group.PLACE,
            fraction=query_fraction,
            seed=seed,
            splits=["train", "val"],
        )
    return collector.finish(relations=relations)


def _find(dataset: Path, name: str, folder: str) -> Path | None:
    for path in (dataset / name, dataset / folder / name):
        if path.is_file():
            return path
    return None


def _landmarks(dataset: Path) -> Iterator[tuple[str, str]]:
    """Yields ids of training images with their landmark."""
    clean = _find(dataset, "train_clean.csv", "train")
    full = _find(dataset, "train.csv", "train")
    if clean:
        for block in files_on_disk.read_blocks(clean, "landmark_id", "images"):
            for landmark, images in zip(
                block["landmark_id"], block["images"], strict=True
            ):
                for image in images.split():
                    yield image, landmark
    elif full:
        for block in files_on_disk.read_blocks(full, "id", "landmark_id"):
            yield from zip(block["id"], block["landmark_id"], strict=True)


def _add(collector: Collector, folder: str, image: str, **columns: str) -> str:
    """Adds an image by its id; returns its image_id, empty if refused."""
    image_id = collector.listed_file(
        "/".join([folder, *image[:3], f"{image}.jpg"])
    )
    added = image_id and collector.add(image_id, **{"role": ""} | columns)
    return image_id if added else ""


def _solution(
    collector: Collector, solution: Path
) -> Iterator[tuple[str, str, str]]:
    """Adds the queries, and yields their positives."""
    table = files_on_disk.read_table(solution, "id", "images", "Usage")
    for row in table.to_dict("records"):
        if row["Usage"] == "Ignored":
            continue
        query = _add(collector, "test", row["id"], split="test", role="query")
        for image in row["images"].split() if query else ():
            path = "/".join(["index", *image[:3], f"{image}.jpg"])
            yield query, path, "positive"
