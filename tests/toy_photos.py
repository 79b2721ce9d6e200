"""A folder of photographs to search, and what is made of it."""

from pathlib import Path

import toy_search

from sare_tf.photo_database import preparing
from sare_tf.records.records import Records
from sare_tf.search.opened_index import Index
from sare_tf.search.options import PhotoFolderOptions
from sare_tf.serving.options import ServableOptions


def photographs(folder: Path, *, places=3, views=2) -> Path:
    """Writes `<place>/<view>.jpg`, see `toy_search.jpeg`."""
    for place in range(places):
        (folder / str(place)).mkdir(parents=True, exist_ok=True)
        for view in range(views):
            path = folder / str(place) / f"{view}.jpg"
            path.write_bytes(toy_search.jpeg(place, view))
    return folder


def prepare(folder, cache, **options) -> preparing.Database:
    """Prepares a folder, with an export or with weights."""
    names = {"export", "server"} & options.keys()
    model = {name: options.pop(name) for name in names}
    repair = options.pop("repair", False)
    return preparing.prepare(
        PhotoFolderOptions(photo_folder=folder, cache=cache, **options),
        ServableOptions(**model),
        batch_size=4,
        repair=repair,
    )


def contents(database: preparing.Database) -> dict[str, bytes]:
    """Image -> descriptor; index and records must agree."""
    index = Index.open(database.index, exact=True)
    manifest = Records(database.records).manifest
    index.check_records(Records(database.records), split="all")
    assert len(index.segments) == 1
    assert index.manifest["image_id"].tolist() == manifest["image_id"].tolist()
    assert index.manifest["sha256"].tolist() == manifest["sha256"].tolist()
    return {
        image_id: descriptor.tobytes()
        for image_id, descriptor in zip(
            manifest["image_id"], index.descriptors, strict=True
        )
    }


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder -> its inode and time of change."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_ino,
            path.stat().st_mtime_ns,
        )
        for path in folder.rglob("*")
        if path.is_file()
    }
