"""One folder per place.

    <dataset>/{database,queries}/<place>/**/*.jpg
    <dataset>/{train,val,test}/{database,queries}/<place>/**/*.jpg

`images/` may stand between. Without split folders, the places are split by
seed: a place is in one split with all its images. The folder below `database`
or `queries` is the place; folders below it only group its images.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sare_tf import manifest
from sare_tf.readers import reading

_LAYOUT = "{database,queries}/<place>/*.jpg"


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
    split_folders = [name for name in manifest.SPLITS if (root / name).is_dir()]
    role_folders = [name for name in reading.ROLES if (root / name).is_dir()]
    if split_folders and role_folders:
        raise ValueError(
            "Expected either split folders or database/ and queries/ at the "
            f"top. Received: dataset={str(dataset)!r} with "
            f"{split_folders + role_folders}."
        )
    rows, rejected = [], []
    for split in split_folders or [""]:
        for folder, role in reading.ROLES.items():
            top = root / split / folder
            for path in reading.walk(top) if top.is_dir() else ():
                image_id = path.relative_to(root).as_posix()
                place, *below = path.relative_to(top).parts
                if not reading.is_image(path):
                    reason = f"not one of {', '.join(reading.EXTENSIONS)}"
                    rejected.append((image_id, reason))
                elif not below:
                    rejected.append((image_id, "not in a folder of its place"))
                else:
                    rows.append(
                        {
                            "image_id": image_id,
                            "split": split,
                            "role": role,
                            "place_id": place,
                        }
                    )
    if not rows:
        raise ValueError(
            f"Expected images at {_LAYOUT}, or the same below train/, val/ and "
            f"test/. Received: dataset={str(dataset)!r} with none "
            f"({len(rejected)} other files). Choose another --reader, or move "
            "the images."
        )
    if not split_folders:
        places = split_places(
            sorted({row["place_id"] for row in rows}),
            fractions=split_fractions,
            seed=seed,
        )
        for row in rows:
            row["split"] = places[row["place_id"]]
    return reading.Reading(manifest.make(rows), root, rejected)


def split_places(
    places: Sequence[str], *, fractions: Sequence[float], seed: int
) -> dict[str, str]:
    """Assigns places to train, val and test at random.

    Args:
        places: their names, sorted.
        fractions: shares of train, val and test; their sum is 1.
        seed: the same seed gives the same split.

    Returns:
        place -> split. A split with a share above 0 gets at least one place.

    Raises:
        ValueError: fractions that make no split, or fewer places than splits.
    """
    fractions = np.asarray(fractions, np.float64)
    if (
        fractions.shape != (len(manifest.SPLITS),)
        or (fractions < 0).any()
        or abs(fractions.sum() - 1) > 1e-6
    ):
        raise ValueError(
            "Expected three shares from 0 to 1, of train, val and test, with "
            f"sum 1. Received: split_fractions={fractions.tolist()}."
        )
    wanted = fractions > 0
    if len(places) < wanted.sum():
        raise ValueError(
            f"Expected at least {wanted.sum()} places, one for each split. "
            f"Received: {len(places)}. Add places, or set a share of "
            "--split_fractions to 0."
        )
    counts = np.maximum(np.floor(fractions * len(places)), wanted).astype(int)
    # What rounding leaves goes to the largest share, or is taken from there.
    counts[np.argmax(fractions)] += len(places) - counts.sum()
    order = np.random.default_rng(seed).permutation(len(places))
    splits = np.repeat(manifest.SPLITS, counts)
    return {
        places[position]: str(split)
        for position, split in zip(order, splits, strict=True)
    }
