"""Findings in copies: images with the same content."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from sare_tf.checks.finding import ERROR, WARNING, Finding, count, if_any
from sare_tf.checks.image_contents import ImageContents
from sare_tf.dataset import manifest
from sare_tf.dataset.names import ROLES


def find(
    table: pd.DataFrame,
    images: ImageContents,
    *,
    relations: pd.DataFrame | None,
    radius_m: float,
    by_timestamp: Collection[str] = (),
) -> list[Finding]:
    """Finds images with the same content, unless they are one file by design.

    Args:
        table: manifest of B rows.
        images: contents of its images.
        relations: relations of the dataset; a pair listed as junk is no
            finding.
        radius_m: copies farther apart contradict each other.
        by_timestamp: splits in which images of the query's timestamp are never
            positives, so that a query may be in the database.
    """
    groups = [table.iloc[rows] for rows in _same_content(table, images)]
    return [
        *_across_splits(groups),
        *_queries_in_database(groups, relations, by_timestamp),
        *_repeated(groups),
        *_at_other_places(groups, radius_m),
    ]


def _across_splits(groups: Sequence[pd.DataFrame]) -> list[Finding]:
    images = []
    for copies in groups:
        ids = copies["image_id"].tolist()
        if copies["split"].nunique() > 1:
            images += [
                (one, f"{split}; the same as {_other(one, ids)}")
                for one, split in zip(ids, copies["split"], strict=True)
            ]
    return if_any(
        images,
        severity=ERROR,
        name="duplicates_across_splits",
        message=f"{count(len(images), 'image')} with a copy in another "
        "split: evaluation would use images of training.",
        action="Keep each image in one split and delete the copies.",
    )


def _queries_in_database(
    groups: Sequence[pd.DataFrame],
    relations: pd.DataFrame | None,
    by_timestamp: Collection[str],
) -> list[Finding]:
    junk = set()
    if relations is not None:
        pairs = relations[relations["relation"] == "junk"]
        junk = set(zip(pairs["query"], pairs["database"], strict=True))
    images = []
    for copies in groups:
        timestamps = dict(
            zip(copies["image_id"], copies["timestamp"], strict=True)
        )
        for split, of_split in copies.groupby("split"):
            ids = {
                role: of_split["image_id"][of_split["role"] == role]
                for role in ROLES
            }
            images += _found_by_themselves(
                ids["query"],
                ids["database"],
                split=split,
                junk=junk,
                timestamps=timestamps if split in by_timestamp else {},
            )
    is_judged = any(not detail.startswith("train") for _, detail in images)
    return if_any(
        images,
        severity=ERROR if is_judged else WARNING,
        name="queries_in_database",
        message=f"{count(len(images), 'query', several='queries')} "
        "with a copy in the database of the split: each finds itself.",
        action="Delete the copies from the database, or the queries.",
    )


def _found_by_themselves(
    queries: Iterable[str],
    database: Iterable[str],
    *,
    split: str,
    junk: set[tuple[str, str]],
    timestamps: Mapping[str, str],
) -> Iterator[tuple[str, str]]:
    """Queries with a copy in the database, and the copy."""
    for query in queries:
        time = timestamps.get(query)
        for image in database:
            if (
                _file(query) != _file(image)
                and (query, image) not in junk
                and not (time and time == timestamps[image])
            ):
                yield query, f"{split}; the same as {image}"
                break


def _repeated(groups: Sequence[pd.DataFrame]) -> list[Finding]:
    images = []
    for copies in groups:
        for (split, role), same in copies.groupby(["split", "role"]):
            first, *others = same["image_id"]
            if same["image_id"].map(_file).nunique() > 1:
                images += [
                    (one, f"{split}/{role}; the same as {first}")
                    for one in others
                ]
    return if_any(
        images,
        severity=WARNING,
        name="duplicates",
        message=f"{count(len(images), 'copy', several='copies')} of "
        "images in the same split and role.",
        action="Delete the copies: they add no information.",
    )


def _at_other_places(
    groups: Sequence[pd.DataFrame], radius_m: float
) -> list[Finding]:
    images = []
    for copies in groups:
        ids = copies["image_id"].tolist()
        if _is_apart(copies, radius_m):
            images += [
                (one, f"the same as {_other(one, ids)}, of another place")
                for one in ids
            ]
    return if_any(
        images,
        severity=WARNING,
        name="duplicates_elsewhere",
        message=f"{count(len(images), 'image')} with a copy at another "
        f"place, or more than {radius_m:g} m away.",
        action="One of the places is wrong, or the image is a placeholder: "
        "correct or delete it.",
    )


def _is_apart(copies: pd.DataFrame, radius_m: float) -> bool:
    """Whether copies of one image have positions of different places."""
    points = manifest.coordinates(copies)
    if np.isfinite(points).all():
        span = np.ptp(points, axis=0)
        one_grid = len(set(manifest.grids(copies))) == 1
        return not one_grid or float(np.hypot(*span)) > radius_m
    return copies["place_id"].nunique() > 1


def _same_content(
    table: pd.DataFrame, images: ImageContents
) -> Iterator[np.ndarray]:
    """Rows of images with the same content, from at least two files."""
    rows = np.flatnonzero(images.is_readable)
    keys = np.ascontiguousarray(images.digests[rows]).view("V16")[:, 0]
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    ends = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    for group in np.split(rows[order], ends):
        if len(group) < 2:
            continue
        if len(set(map(_file, table["image_id"].iloc[group]))) > 1:
            yield np.sort(group)


def _file(image_id: str) -> str:
    """The file that an image is, or is a part of."""
    return image_id.partition("#")[0]


def _other(one: str, ids: Sequence[str]) -> str:
    return next(other for other in ids if other != one)
