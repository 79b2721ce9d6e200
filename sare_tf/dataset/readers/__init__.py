"""Raw folders of images -> manifest: one module per layout.

A reader takes the dataset's folder, and those of the options that its `read`
names, and returns a `Reading`: rows of the manifest, what the layout says about
which image answers which, and the files it refused with the reason. It opens no
image, but for the position in the headers of photographs.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path

from sare_tf.dataset.readers import (
    at_names,
    csv_table,
    exif_photos,
    google_landmarks,
    gsv_cities,
    holidays,
    msls,
    netvlad_mat,
    openibl,
    oxford_paris,
    patch_netvlad,
    place_folders,
    revisited,
    vpr_bench,
)
from sare_tf.dataset.readers.reading import Reading

READERS = {
    module.__name__.rpartition(".")[2]: module.read
    for module in (
        at_names,
        csv_table,
        exif_photos,
        google_landmarks,
        gsv_cities,
        holidays,
        msls,
        netvlad_mat,
        openibl,
        oxford_paris,
        patch_netvlad,
        place_folders,
        revisited,
        vpr_bench,
    )
}
# Those that read a list of images alone, without the images.
LISTS = tuple(
    name
    for name, read_layout in READERS.items()
    if "list_only" in inspect.signature(read_layout).parameters
)


def read(
    dataset: str | Path,
    *,
    reader: str,
    split_fractions: Sequence[float] = (0.6, 0.15, 0.25),
    query_fraction: float = 0.25,
    utm_zone: str = "",
    seed: int = 0,
    list_only: bool = False,
) -> Reading:
    """Reads a folder of images.

    Args:
        dataset: the folder.
        reader: its layout, a name in `READERS`.
        split_fractions: shares of places that become train, val and test,
            where the layout has no splits.
        query_fraction: share of each place's images that become queries,
            where the layout has no roles.
        utm_zone: zone for latitudes and longitudes, such as 17T; empty: that
            of the median point, see `coordinates.project`.
        seed: of splits and roles.
        list_only: images that a list names need not be there; for the readers
            in `LISTS`.

    Raises:
        FileNotFoundError: no such folder.
        NoImages: no image in the layout expected.
        ValueError: an unknown reader, or a dataset that it cannot read.
    """
    if reader not in READERS:
        raise ValueError(
            f"Expected a reader: {', '.join(READERS)}. Received: "
            f"reader={reader!r}."
        )
    if list_only and reader not in LISTS:
        raise ValueError(
            f"Expected a reader of lists: {', '.join(LISTS)}. Received: "
            f"reader={reader!r}, to read a list without its images."
        )
    dataset = Path(dataset)
    if not dataset.is_dir():
        raise FileNotFoundError(
            "Expected a folder of images. Received: "
            f"dataset={str(dataset)!r}, which does not exist. Check --dataset."
        )
    options = {
        "split_fractions": split_fractions,
        "query_fraction": query_fraction,
        "utm_zone": utm_zone,
        "seed": seed,
        "list_only": list_only,
    }
    named = inspect.signature(READERS[reader]).parameters
    return READERS[reader](
        dataset,
        **{name: value for name, value in options.items() if name in named},
    )
