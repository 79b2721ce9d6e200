"""What tests of `locate` share: an index of toy places, and two photographs."""

from pathlib import Path

import toy_search

from sare_tf import index, locate
from sare_tf.pages.options import LocateOptions
from sare_tf.search.options import IndexOptions


def build(root: Path) -> dict[str, Path]:
    """An index and its export; the records lie beside it."""
    records = toy_search.records(root)
    export = toy_search.export(root / "export")
    index.run(
        IndexOptions(records=records, export=export, index=root / "index")
    )
    return {"index": root / "index", "export": export}


def photographs(folder: Path) -> list[Path]:
    """Photographs of the places 2 and 4."""
    paths = [folder / "two.jpg", folder / "four.jpg"]
    for path, place in zip(paths, (2, 4), strict=True):
        path.write_bytes(toy_search.jpeg(place, 99))
    return paths


def answers_of(inputs, photos, **options):
    """Names of photographs with their answers."""
    return list(locate.run(LocateOptions(**inputs, photos=photos, **options)))
