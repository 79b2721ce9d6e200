"""An index made from given descriptors, and what the tests of one need."""

import shutil
from pathlib import Path

import numpy as np
import toy_damage
import toy_search

from sare_tf import index, serving
from sare_tf.search.opened_index import Index
from sare_tf.search.options import IndexOptions

# Tests put another in its place.
_load = serving.load


def write(
    folder: Path,
    descriptors: np.ndarray,
    image_ids,
    *,
    export: str = "of the export",
    dtype: str = "float32",
) -> Path:
    """Writes an index of one segment, as if an export had made it."""
    Index.build(descriptors, image_ids=image_ids, out=folder, dtype=dtype)
    toy_damage.edit(
        folder / "index.json",
        built_from="an export",
        export_fingerprint=export,
        records_fingerprint=f"of {folder.name}",
        split="test",
    )
    return folder


def build(root: Path) -> dict[str, Path]:
    """Records, their export, and `out`, an index built by it, in batches of 4.

    It has 18 database images, 3 of each place.
    """
    records = toy_search.records(root)
    export = toy_search.export(root / "export")
    out = root / "index"
    index.run(
        IndexOptions(records=records, export=export, index=out, batch_size=4)
    )
    return {"records": records, "export": export, "out": out}


def copy(built: dict[str, Path], folder: Path) -> dict[str, Path]:
    """What `build` made, with an index of one's own."""
    out = folder / "index"
    shutil.copytree(built["out"], out)
    return {**built, "out": out}


def bytes_of(folder: Path) -> dict[str, bytes]:
    """All files by their names in the folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class StoppedServable:
    """An export that stops the process, or fails, after some batches."""

    def __init__(self, export, stop, after):
        self._servable = _load(export)
        self._stop, self._left = stop, after
        self.batches = 0

    def __getattr__(self, name):
        return getattr(self._servable, name)

    def __call__(self, images):
        if self.batches == self._left:
            self._stop()
        self.batches += 1
        return self._servable(images)


def fail():
    """A way to stop."""
    raise OSError("the server is gone")


def clustered(seed: int, clusters: int, each: int, dimension: int):
    """Unit vectors around centres, float32 [clusters * each, dimension]."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, 1, dimension))
    centres /= np.linalg.norm(centres, axis=2, keepdims=True)
    noise = rng.normal(size=(clusters, each, dimension))
    noise /= np.linalg.norm(noise, axis=2, keepdims=True)
    rows = (centres + 0.5 * noise).reshape(-1, dimension)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)
