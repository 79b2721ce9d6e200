"""Datasets of OpenIBL: images by position, and splits, in JSON.

    <dataset>/meta.json      {name, identities: [[path, ...], ...],
                              utm: [[east, north], ...]}
    <dataset>/splits.json    {q_train: [...], db_train, q_val, db_val, q_test,
                              db_test}: places in identities
    <dataset>/raw/<path>

The files may have a scale in their names (meta_30k.json, splits_30k.json). An
identity is a set of images of one position; queries and database have different
ones. The zone of the coordinates is unknown.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sare_tf.dataset.names import SPLITS
from sare_tf.dataset.readers import files_on_disk
from sare_tf.dataset.readers.collector import Collector, Reading

_LAYOUT = "raw/, named by meta.json and splits.json"
_ROLES = {"q": "query", "db": "database"}


def read(dataset: Path, *, list_only: bool) -> Reading:
    """Reads the layout; with `list_only`, images may be absent.

    Raises:
        ValueError: no image, or files that are absent, damaged or inconsistent.
    """
    path = files_on_disk.only_file(dataset, "meta.json", "meta_*.json")
    splits = path.with_name(path.name.replace("meta", "splits", 1))
    collector = Collector(
        dataset, dataset / "raw", layout=_LAYOUT, list_only=list_only
    )
    for split, role, images, (east, north) in _identities(path, splits):
        for name in images:
            image_id = collector.listed_file(name)
            if image_id:
                collector.add(
                    image_id,
                    split=split,
                    role=role,
                    utm_east_m=east,
                    utm_north_m=north,
                )
    return collector.finish()


def _identities(
    path: Path, splits: Path
) -> Iterator[tuple[str, str, list[str], tuple[float, float]]]:
    """Yields split, role, paths and position of each identity in use."""
    try:
        meta, numbers = _json(path), _json(splits)
        identities, positions = meta["identities"], meta["utm"]
        if len(identities) != len(positions):
            raise ValueError(
                f"{len(identities)} identities, {len(positions)} positions"
            )
        for short, role in _ROLES.items():
            for split in SPLITS:
                for number in numbers[f"{short}_{split}"]:
                    if not 0 <= number < len(identities):
                        raise ValueError(f"no identity {number}")
                    east, north = map(float, positions[number])
                    names = [str(name) for name in identities[number]]
                    yield split, role, names, (east, north)
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise ValueError(
            "Expected identities and utm in one file, q_train, db_train, "
            "q_val, db_val, q_test and db_test in the other. Received: "
            f"path={str(path)!r} and {splits.name!r} ({error!r}). Get the "
            "files again."
        ) from error


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
