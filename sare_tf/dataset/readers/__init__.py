"""Raw folders of images -> manifest: one module per layout.

A reader takes the dataset's folder, and the options that its `read` names. It
returns a `Reading`: the manifest, the relations that the layout lists, and the
files that it refused with the reason. It opens no image, except to read the
position in the header of a photograph.
"""

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sare_tf.dataset.readers.collector import Reading

# Modules of this folder, each with a function `read`.
READERS = (
    "at_names",
    "csv_table",
    "exif_photos",
    "google_landmarks",
    "gsv_cities",
    "holidays",
    "msls",
    "netvlad_mat",
    "openibl",
    "oxford_paris",
    "patch_netvlad",
    "place_folders",
    "revisited",
    "vpr_bench",
)

# The options of readers, and what they are in Python if they are not given.
DEFAULTS = {
    "split_fractions": (0.6, 0.15, 0.25),
    "query_fraction": 0.25,
    "utm_zone": "",
    "utm_hemisphere": "auto",
    "doubtful_positions": "keep",
    "positive_radius_m": 25.0,
    "seed": 0,
}


def _parameters(reader: str) -> Sequence[str]:
    """Returns the names of the options that a reader takes."""
    return inspect.signature(_module(reader).read).parameters


def _module(reader: str):
    return importlib.import_module(f"{__name__}.{reader}")


def reads_lists(reader: str) -> bool:
    """Returns whether a reader can read a list of images without them."""
    return "list_only" in _parameters(reader)


def options_of(reader: str) -> list[str]:
    """Returns the names of the options of `DEFAULTS` that a reader takes."""
    return [name for name in DEFAULTS if name in _parameters(reader)]


def read(
    dataset: str | Path,
    *,
    reader: str,
    list_only: bool = False,
    **options: object,
) -> "Reading":
    """Reads a folder of images.

    Args:
        dataset: the folder.
        reader: its layout, a name in `READERS`.
        list_only: whether images that a list names may be absent; only for
            readers of lists, see `reads_lists`.
        **options: those of `DEFAULTS` that are not the default; see
            `dataset.options.DatasetOptions`.

    Raises:
        FileNotFoundError: no such folder.
        NoImages: no image in the layout of the reader.
        TypeError: an unknown option.
        ValueError: an unknown reader, or a dataset that it cannot read.
    """
    unknown = sorted(options.keys() - DEFAULTS.keys())
    if unknown:
        raise TypeError(
            f"Expected options of readers: {', '.join(DEFAULTS)}. Received: "
            f"{', '.join(unknown)}."
        )
    if reader not in READERS:
        raise ValueError(
            f"Expected a reader: {', '.join(READERS)}. Received: "
            f"reader={reader!r}."
        )
    if list_only and not reads_lists(reader):
        lists = filter(reads_lists, READERS)
        raise ValueError(
            f"Expected a reader of lists: {', '.join(lists)}. Received: "
            f"reader={reader!r}, to read a list without its images."
        )
    dataset = Path(dataset)
    if not dataset.is_dir():
        raise FileNotFoundError(
            "Expected a folder of images. Received: "
            f"dataset={str(dataset)!r}, which does not exist. Check --dataset."
        )
    options = {**DEFAULTS, **options, "list_only": list_only}
    taken = _parameters(reader)
    return _module(reader).read(
        dataset,
        **{name: value for name, value in options.items() if name in taken},
    )
