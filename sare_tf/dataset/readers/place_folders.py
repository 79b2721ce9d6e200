"""One folder per place.

    <dataset>/{database,queries}/<place>/**/*.jpg
    <dataset>/{train,val,test}/{database,queries}/<place>/**/*.jpg

`images/` may stand between. Without split folders, the places are split by
seed: a place is in one split with all its images. The folder below `database`
or `queries` is the place; folders below it only group its images.
"""

from collections.abc import Sequence
from pathlib import Path

from sare_tf.dataset.readers import reading, splitting

_LAYOUT = (
    "{database,queries}/<place>/*.jpg, or the same below train/, val/ and test/"
)


def read(
    dataset: Path, *, split_fractions: Sequence[float], seed: int
) -> reading.Reading:
    """Reads the layout.

    Args:
        dataset: the folder.
        split_fractions: shares of places for train, val and test.
        seed: of the split.

    Raises:
        ValueError: no image, fractions that make no split, or split folders
            beside unsplit ones.
    """
    root = reading.image_root(dataset)
    split_folders = reading.split_folders(root)
    found = reading.Collector(dataset, root, layout=_LAYOUT)
    for split in split_folders or [""]:
        for folder, role in reading.ROLES.items():
            top = root / split / folder
            above = len((top / "_").relative_to(root).as_posix()) - 1
            for image_id in found.images(top):
                place, _, below = image_id[above:].partition("/")
                if below:
                    found.add(image_id, split=split, role=role, place_id=place)
                else:
                    found.refuse(image_id, "not in a folder of its place")
    if not split_folders:
        splitting.split_by(
            found.listing, "place_id", fractions=split_fractions, seed=seed
        )
    return found.finish()
