"""One folder per place.

    <dataset>/{database,queries}/<place>/**/*.jpg
    <dataset>/{train,val,test}/{database,queries}/<place>/**/*.jpg

`images/` may stand between. Without split folders, the places are split by
seed, each with all its images. The folder below `database` or `queries` is the
place; folders below it only group its images.
"""

from collections.abc import Sequence
from pathlib import Path

from sare_tf.dataset.readers import files_on_disk, splitting
from sare_tf.dataset.readers.collector import Collector, Reading
from sare_tf.dataset.sqlite_manifest import Group

_LAYOUT = (
    "{database,queries}/<place>/*.jpg, or the same below train/, val/ and test/"
)


def read(
    dataset: Path, *, split_fractions: Sequence[float], seed: int
) -> Reading:
    """Reads the layout.

    Args:
        dataset: the folder.
        split_fractions: shares of places for train, val and test.
        seed: of the split.

    Raises:
        ValueError: no image, fractions that make no split, or split folders
            beside unsplit ones.
    """
    root = files_on_disk.image_root(dataset)
    split_folders = files_on_disk.split_folders(root)
    collector = Collector(dataset, root, layout=_LAYOUT)
    for split in split_folders or [""]:
        for folder, role in files_on_disk.ROLE_FOLDERS.items():
            top = root / split / folder
            above = len((top / "_").relative_to(root).as_posix()) - 1
            for image_id in collector.image_files(top):
                place, _, below = image_id[above:].partition("/")
                if below:
                    collector.add(
                        image_id, split=split, role=role, place_id=place
                    )
                else:
                    collector.refuse(image_id, "not in a folder of its place")
    if not split_folders:
        splitting.choose_splits(
            collector.images, Group.PLACE, fractions=split_fractions, seed=seed
        )
    return collector.finish()
