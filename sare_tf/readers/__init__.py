"""Raw folders of images -> manifest: one module per layout.

A reader takes the dataset's folder and returns a `Reading`: rows of the
manifest, and the files it refused with the reason. It opens no image.
"""

from collections.abc import Sequence
from pathlib import Path

from sare_tf.readers import at_names, netvlad_mat, place_folders
from sare_tf.readers.reading import Reading

READERS = {
    "at_names": at_names.read,
    "netvlad_mat": netvlad_mat.read,
    "place_folders": place_folders.read,
}


def read(
    dataset: str | Path,
    *,
    reader: str,
    split_fractions: Sequence[float] = (0.6, 0.15, 0.25),
    seed: int = 0,
) -> Reading:
    """Reads a folder of images.

    Args:
        dataset: the folder.
        reader: its layout, a name in `READERS`.
        split_fractions: shares of places that become train, val and test,
            where the layout has no split folders.
        seed: of that split.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: an unknown reader, or no image in the layout expected.
    """
    if reader not in READERS:
        raise ValueError(
            f"Expected a reader: {', '.join(READERS)}. Received: "
            f"reader={reader!r}."
        )
    dataset = Path(dataset)
    if not dataset.is_dir():
        raise FileNotFoundError(
            "Expected a folder of images. Received: "
            f"dataset={str(dataset)!r}, which does not exist. Check --dataset."
        )
    return READERS[reader](dataset, split_fractions=split_fractions, seed=seed)
